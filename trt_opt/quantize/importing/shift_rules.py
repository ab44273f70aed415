"""How operators treat a tensor to which one number was added everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.importing.constants import fits, spread

MOVES = frozenset(
    {
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Slice",
        "Split",
        "Gather",
        "Expand",
        "Tile",
        "DepthToSpace",
        "SpaceToDepth",
        "MaxPool",
        "GlobalMaxPool",
        "ReduceMax",
        "ReduceMin",
    }
)
"""What gives numbers out that went in: they stay on their grid."""

AVERAGES = frozenset({"GlobalAveragePool", "ReduceMean"})

BOUNDED = frozenset({"Relu", "Clip"})

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a Relu or Clip; None is no bound."""

    low: float | None
    high: float | None


def passes_shifts(node: onnx.NodeProto) -> bool:
    """Whether a number added everywhere to the first input is added everywhere to the outputs."""
    if node.op_type in MOVES or node.op_type in AVERAGES:
        return True
    if node.op_type == "AveragePool":
        padded = any(_integers(node, "pads")) or attribute_of(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        return not (padded and attribute_of(node, "count_include_pad", 0))
    if node.op_type == "Resize":
        cropping = attribute_of(node, "coordinate_transformation_mode", b"half_pixel") == b"tf_crop_and_resize"
        return not cropping and attribute_of(node, "mode", b"nearest") in (b"nearest", b"linear")
    return node.op_type == "Pad" and attribute_of(node, "mode", b"constant") != b"constant"


def moved_outputs(node: onnx.NodeProto) -> Sequence[str]:
    """The outputs of a node that passes shifts which hold its first input's numbers: not where MaxPool found them."""
    outputs = node.output if node.op_type == "Split" else node.output[:1]
    return tuple(filter(None, outputs))


def stays_on_grid(node: onnx.NodeProto) -> bool:
    """Whether the outputs of a node that passes shifts hold only numbers of its first input."""
    if node.op_type == "Resize":
        return attribute_of(node, "mode", b"nearest") == b"nearest"
    return node.op_type in MOVES or node.op_type == "Pad"


def constant_value(index: GraphIndex, tensor: str) -> NDArray[np.float32] | None:
    """The value of a float constant, stored as it is or behind a DequantizeLinear; None for anything else."""
    node = index.producer(tensor)
    if node is None or node.op_type != "DequantizeLinear":
        found = index.constant(tensor)
        return found if found is not None and found.dtype == np.float32 else None  # type: ignore[return-value]
    if attribute_of(node, "block_size", 0):
        return None
    parts = [part for part in (index.constant(name) for name in node.input if name) if part is not None]
    if len(parts) != sum(map(bool, node.input)):
        return None
    axis, shape = int(str(attribute_of(node, "axis", 1))), parts[0].shape
    if not all(fits(part, shape, axis) for part in parts[1:]):
        return None
    # FLOAT64 holds the difference of two INT32 as well as the fractions of an FP8.
    zeros = parts[2].astype(np.float64) if len(parts) > 2 else np.zeros(())
    difference = parts[0].astype(np.float64) - spread(zeros, shape, axis)
    return np.asarray(difference.astype(np.float32) * spread(parts[1].astype(np.float32), shape, axis), np.float32)


def is_constant(index: GraphIndex, tensor: str) -> bool:
    """Whether `constant_value` would give one."""
    node = index.producer(tensor)
    if node is None or node.op_type != "DequantizeLinear":
        return index.is_constant(tensor) and index.element_type(tensor) == TensorProto.FLOAT
    known = all(index.is_constant(name) for name in node.input if name)
    return known and not attribute_of(node, "block_size", 0) and _has_fitting_scales(node, index)


def _has_fitting_scales(node: onnx.NodeProto, index: GraphIndex) -> bool:
    weights, *others = (index.constant(name) for name in node.input if name)
    axis = int(str(attribute_of(node, "axis", 1)))
    return weights is not None and all(part is not None and fits(part, weights.shape, axis) for part in others)


def has_free_bias(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether any number can be added to the output by changing a constant that the node adds anyway."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        bias = node.input[2] if len(node.input) > 2 else ""
        return is_constant(index, node.input[1]) and (not bias or is_constant(index, bias))
    return node.op_type == "Add" and constant_operand(node, index) is not None


def constant_operand(node: onnx.NodeProto, index: GraphIndex) -> int | None:
    """The position of an Add's constant; None where both or neither operand is one."""
    constant = [is_constant(index, name) for name in node.input]
    return constant.index(True) if sum(constant) == 1 else None


def bounds_of(node: onnx.NodeProto, index: GraphIndex) -> Bounds | None:
    """The bounds of a Relu or a Clip (opset 11 or later); None where they are not constant."""
    if node.op_type == "Relu":
        return Bounds(0.0, None)
    found: list[float | None] = [None, None]
    for at, name in enumerate(node.input[1:3]):
        if not name:
            continue
        value = index.constant(name)
        if value is None or value.size != 1:
            return None
        found[at] = float(value.reshape(-1)[0])
    return Bounds(*found)


def padding_of(node: onnx.NodeProto, index: GraphIndex) -> tuple[int, ...] | None:
    """What a Conv pads: begin of each spatial axis, then end of each; None where that is not known beforehand."""
    weights = index.shape(node.input[1])
    if weights is None or None in weights:
        return None
    kernel = [int(size or 0) for size in weights[2:]]
    auto = attribute_of(node, "auto_pad", b"NOTSET")
    if auto == b"VALID":
        return (0,) * (2 * len(kernel))
    if auto == b"NOTSET":
        pads = _integers(node, "pads") or (0,) * (2 * len(kernel))
        return None if min(pads, default=0) < 0 else pads
    sizes = index.shape(node.input[0])
    if sizes is None or None in sizes[2:]:
        return None
    strides = _integers(node, "strides") or (1,) * len(kernel)
    dilations = _integers(node, "dilations") or (1,) * len(kernel)
    totals = [
        max(0, (-(-int(size or 0) // stride) - 1) * stride + (width - 1) * dilation + 1 - int(size or 0))
        for size, width, stride, dilation in zip(sizes[2:], kernel, strides, dilations, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return tuple(small + large if auto == b"SAME_UPPER" else large + small)


def _integers(node: onnx.NodeProto, attribute: str) -> tuple[int, ...]:
    found = attribute_of(node, attribute)
    return tuple(int(value) for value in found) if isinstance(found, Sequence) else ()
