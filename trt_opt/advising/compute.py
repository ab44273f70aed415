"""Where a model's arithmetic is, and how much of it the placement policy makes INT8."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.macs import NOT_COUNTED_OPS, macs_by_node, with_input_shapes
from trt_opt.values.advice import ComputeShare, LeftOut
from trt_opt.values.precision import LayerDecision

NARROWEST_USEFUL_CHANNELS = 16
"""INT8 tensor-core tiles are 16 wide: a convolution with fewer channels in or out of a group leaves them part empty."""

MOST_LEFT_OUT = 3


def compute_share(
    model: onnx.ModelProto, decisions: Sequence[LayerDecision], shapes: Mapping[str, tuple[int, ...]], told: str
) -> ComputeShare:
    """Counts a model's MACs and says which of them are INT8.

    Args:
        model: The model the decisions are about.
        decisions: What the policy says of its nodes.
        shapes: The shapes of the graph inputs in one run.
        told: Where the shapes come from, in words.
    """
    index = GraphIndex(with_input_shapes(model, shapes))
    counted = macs_by_node(index)
    known = {name: macs for name, macs in counted.items() if macs is not None}
    int8 = {layer.node for layer in decisions if layer.precision == "int8" and layer.node in counted}
    reasons = {layer.node: layer.reason for layer in decisions}
    left = [
        LeftOut(name, index.nodes[name].op_type, macs, reasons.get(name, "nothing is known about it"))
        for name, macs in counted.items()
        if name not in int8
    ]
    left.sort(key=lambda layer: -(math.inf if layer.macs is None else layer.macs))
    return ComputeShare(
        macs=sum(known.values()),
        int8_macs=sum(macs for name, macs in known.items() if name in int8),
        wide_macs=sum(macs for name, macs in known.items() if name in int8 and _is_wide(index.nodes[name], index)),
        product_macs=sum(macs for name, macs in known.items() if _is_product(index.nodes[name], index)),
        weights=sum(_weights(index.nodes[name], index) for name in counted),
        left_out=tuple(left[:MOST_LEFT_OUT]),
        not_counted=_not_counted(index, counted),
        shapes=told,
    )


def decisions_from_error(error: UnsupportedModelError) -> tuple[LayerDecision, ...]:
    """The decisions about a model of which no layer can be quantised."""
    return tuple(LayerDecision(node, kind, "fp32", "refused", reason) for node, kind, reason in error.nodes)


def _not_counted(index: GraphIndex, counted: Mapping[str, int | None]) -> dict[str, int]:
    """Operator → how many layers multiply and are not in the sum."""
    unknown = [index.nodes[name].op_type for name, macs in counted.items() if macs is None]
    others = [node.op_type for node in index.model.graph.node if node.op_type in NOT_COUNTED_OPS]
    return dict(sorted(Counter(unknown + others).items()))


def _is_wide(node: onnx.NodeProto, index: GraphIndex) -> bool:
    shape = index.shape(node.input[1])
    if node.op_type not in ("Conv", "ConvTranspose") or shape is None:
        return True
    groups = attribute_of(node, "group", 1)
    first, second = shape[0] or 0, shape[1] or 0
    # Conv: [out, in / groups, …]; ConvTranspose: [in, out / groups, …]
    return min(first // (groups if isinstance(groups, int) else 1), second) >= NARROWEST_USEFUL_CHANNELS


def _is_product(node: onnx.NodeProto, index: GraphIndex) -> bool:
    return node.op_type in ("Gemm", "MatMul") and _weights(node, index) > 0


def _weights(node: onnx.NodeProto, index: GraphIndex) -> int:
    """How many numbers the node's constant weights hold, whether float or behind a DequantizeLinear."""
    total = 0
    for name in node.input[:2]:
        producer = index.producer(name)
        source = producer.input[0] if producer is not None and producer.op_type == "DequantizeLinear" else name
        shape = index.shape(source) if index.is_constant(source) else None
        total += math.prod(size or 0 for size in shape) if shape else 0
    return total
