"""The last look at a Q/DQ graph before a builder sees it: TensorRT builds wrong graphs without a word.

Sources: NVIDIA's "Working with Quantized Types" for what a pair must look like; that TensorRT-RTX 1.7 accepts UINT8
pairs with zero-point 0 and reads them as INT8, and accepts per-channel activations, was seen by running it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from trt_opt.errors import StageError
from trt_opt.graph.index import GraphIndex

PAIR_OPS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken by one node."""

    rule: str
    node: str
    what: str


def findings_of(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Every rule that a quantised graph breaks; nothing for a good one.

    Args:
        model: Node names unique.
    """
    index = GraphIndex(model)
    found: list[Finding] = []
    for node in model.graph.node:
        if node.op_type in PAIR_OPS:
            found += _scale_findings(node, index)
            found += _zero_point_findings(node, index)
            found += _partner_findings(node, index)
        elif node.op_type == "Concat":
            found += _concat_findings(node, index)
    return tuple(found)


def require_clean(model: onnx.ModelProto) -> None:
    """Refuses a graph that breaks a rule.

    Raises:
        StageError: Names the first finding, and how many there are.
    """
    found = findings_of(model)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise StageError(f"{found[0].rule}: {found[0].what}{more}", where=f"node {found[0].node!r}")


def _scale_findings(node: onnx.NodeProto, index: GraphIndex) -> Iterator[Finding]:
    scale = index.constant(node.input[1])
    if scale is None:
        yield Finding("scale-not-constant", node.name, f"its scale {node.input[1]!r} is computed at run time")
    elif not (np.isfinite(scale).all() and np.greater(scale, 0).all()):
        yield Finding("scale-not-positive", node.name, "its scale holds zero, a negative number, NaN or infinity")
    elif scale.size > 1 and not index.is_constant(node.input[0]):
        yield Finding("per-channel-activation", node.name, "an activation has one scale per channel")


def _zero_point_findings(node: onnx.NodeProto, index: GraphIndex) -> Iterator[Finding]:
    zero = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None:
        yield Finding("zero-point-missing", node.name, "without a zero-point ONNX means UINT8 and TensorRT reads INT8")
        return
    if index.element_type(node.input[2]) == TensorProto.UINT8:
        yield Finding("uint8-read-as-int8", node.name, "TensorRT reads UINT8 as INT8: values above 127 saturate")
    if np.any(zero):
        yield Finding("zero-point-not-zero", node.name, "TensorRT takes symmetric quantisation only")


def _partner_findings(node: onnx.NodeProto, index: GraphIndex) -> Iterator[Finding]:
    if node.op_type == "DequantizeLinear":
        if index.element_type(node.input[0]) == TensorProto.INT32:
            yield Finding("int32-bias", node.name, "TensorRT refuses a DequantizeLinear of INT32")
        if not index.readers(node.output[0]) and node.output[0] not in index.outputs:
            yield Finding("orphan-pair", node.name, "nobody reads it")
        return
    readers = [reader for reader, _ in index.readers(node.output[0])]
    if not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
        yield Finding("pair-torn", node.name, "a QuantizeLinear must be read by DequantizeLinear alone")


def _concat_findings(node: onnx.NodeProto, index: GraphIndex) -> Iterator[Finding]:
    """All inputs of a Concat come through pairs of one scale, or none does."""
    scales = [_scale_before(name, index) for name in node.input]
    known = [scale for scale in scales if scale is not None]
    if known and (len(known) < len(scales) or len(set(known)) > 1):
        yield Finding("concat-scales-differ", node.name, "its inputs do not share one scale")


def _scale_before(tensor: str, index: GraphIndex) -> float | None:
    producer = index.producer(tensor)
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    scale = index.constant(producer.input[1])
    return float(scale.ravel()[0]) if scale is not None and scale.size == 1 else None
