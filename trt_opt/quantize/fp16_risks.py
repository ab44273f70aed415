"""Which nodes FP16 would ruin: judged from the ranges seen, the constants, and what the operator does inside.

FP16 ends at 65504, loses precision below 6.1e-5 and reads everything below 6e-8 as zero (IEEE 754 binary16).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.quantize.rules import moves_data_only
from trt_opt.values.calibration import TensorRange

LARGEST = 65504.0
HEADROOM = 2.0
"""Data not seen may exceed data seen: a tensor counts as too large for FP16 from 65504 / 2."""

SMALLEST_NORMAL = 2.0**-14
SMALLEST = 2.0**-24

SATURATING_OPS = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "HardSigmoid"})
"""An input that overflows to infinity still gives the right output, as long as the output fits."""

BOUNDED_OPS = frozenset({"Sigmoid", "Tanh", "HardSigmoid", "Softmax", "Erf", "Sin", "Cos"})
"""The output lies within -1 … 1 whatever comes in."""

SUMMING_OPS = frozenset({"ReduceSum", "ReduceMean", "GlobalAveragePool", "ReduceL1"})
SQUARING_OPS = frozenset(
    {
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "MeanVarianceNormalization",
        "LpNormalization",
        "LRN",
        "ReduceL2",
        "ReduceSumSquare",
        "GlobalLpPool",
        "LpPool",
    }
)
SPATIAL_OPS = frozenset({"GlobalAveragePool", "GlobalLpPool", "InstanceNormalization"})
EXPONENTIAL_SUMS = frozenset({"ReduceLogSumExp", "ReduceLogSum"})
DIVIDING_OPS = {"Div": 1, "Reciprocal": 0, "Log": 0}
"""Operator → the input that must not vanish."""

GENERATING_OPS = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Range"}
    | {"ConstantOfShape", "EyeLike", "CastLike", "Constant", "NonMaxSuppression", "BitCast"}
)
"""Their element type is an attribute, they take float32 alone, or its very bits matter."""


def tensors_to_watch(index: GraphIndex) -> tuple[str, ...]:
    """The tensors whose extremes the data pass must see so that every other tensor's extreme follows."""
    covered = {tensor for node in index.model.graph.node for tensor in _implied_by_inputs(node, index)}
    covered |= {tensor for node in index.model.graph.node for tensor in _saturated(node, index)}
    written = [name for node in index.model.graph.node for name in node.output if name]
    names = [*sorted(index.inputs), *written]
    return tuple(
        name
        for name in names
        if name not in covered and index.element_type(name) == onnx.TensorProto.FLOAT and not index.is_constant(name)
    )


def extremes(index: GraphIndex, ranges: Mapping[str, TensorRange]) -> dict[str, float]:
    """The largest magnitude of every tensor that was seen or follows from one that was."""
    found = {name: seen.extreme for name, seen in ranges.items()}
    for node in index.model.graph.node:
        for name in _implied_by_inputs(node, index):
            if name not in found:
                bound = _bound_from_inputs(node, index, found)
                if bound is not None:
                    found[name] = bound
    for node in index.model.graph.node:
        for name in _saturated(node, index):
            if node.output[0] in found:
                found.setdefault(name, found[node.output[0]])
    return found


def risk_of(
    node: onnx.NodeProto, index: GraphIndex, seen: Mapping[str, float], ranges: Mapping[str, TensorRange]
) -> str | None:
    """Why the node must stay in FP32, or None if FP16 will do.

    Args:
        node: A node of the float model.
        index: The float model.
        seen: What `extremes` found; empty without data.
        ranges: The ranges themselves, for their lower ends.
    """
    if node.domain not in ("", "ai.onnx"):
        return f"the domain {node.domain!r} is not ONNX's own"
    if any(True for _ in subgraphs_of(node)):
        return "its subgraphs stay as they are"
    if node.op_type in GENERATING_OPS:
        return f"{node.op_type} writes float32"
    return (
        constant_risk(node, index)
        or _magnitude_risk(node, index, seen)
        or _accumulation_risk(node, index, seen)
        or _division_risk(node, index, ranges)
    )


def constant_risk(node: onnx.NodeProto, index: GraphIndex) -> str | None:
    """Why FP16 cannot hold a constant that the node reads, or None: all that can be told without data."""
    for position, name in enumerate(node.input):
        value = index.constant(name) if name else None
        if value is None or value.dtype not in (np.float32, np.float64) or may_saturate(node, position):
            continue
        largest = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
        if largest > LARGEST:
            return f"the constant {name!r} reaches {largest:.3g}, FP16 ends at {LARGEST:.0f}"
        if 0 < largest < SMALLEST:
            return f"the constant {name!r} is {largest:.3g}, which FP16 reads as zero"
    return None


def may_saturate(node: onnx.NodeProto, position: int) -> bool:
    """Whether a constant beyond FP16 may be cut to ±65504 without a change: the bounds of a Clip."""
    return node.op_type == "Clip" and position > 0


def _magnitude_risk(node: onnx.NodeProto, index: GraphIndex, seen: Mapping[str, float]) -> str | None:
    written = [name for name in node.output if name and not _overflow_is_harmless(name, index)]
    for name in (*node.input, *written):
        extreme = 0.0 if index.is_constant(name) else seen.get(name, 0.0)
        if not extreme <= LARGEST / HEADROOM and not (name in node.input and node.op_type in SATURATING_OPS):
            return f"{name!r} reaches {extreme:.3g}, FP16 ends at {LARGEST:.0f}"
    return None


def _overflow_is_harmless(tensor: str, index: GraphIndex) -> bool:
    readers = index.readers(tensor)
    return len(readers) == 1 and readers[0][0].op_type in SATURATING_OPS and not index.is_read_elsewhere(tensor)


def _accumulation_risk(node: onnx.NodeProto, index: GraphIndex, seen: Mapping[str, float]) -> str | None:
    """Whether a sum inside the operator may leave FP16 though its result does not."""
    squares = node.op_type in SQUARING_OPS
    if not squares and node.op_type not in SUMMING_OPS | EXPONENTIAL_SUMS:
        return None
    extreme = seen.get(node.input[0])
    count = _reduced_elements(node, index)
    if extreme is None or count is None:
        return f"{node.op_type} sums over an unknown range"
    if node.op_type in EXPONENTIAL_SUMS:
        return None if extreme < math.log(LARGEST) else f"{node.op_type} sums exponentials of up to {extreme:.3g}"
    bound = count * (extreme**2 if squares else extreme)
    if bound <= LARGEST:
        return None
    what = "squares" if squares else "values"
    return f"{node.op_type} sums {count} {what} of up to {extreme:.3g}: {bound:.3g} is beyond FP16"


def _reduced_elements(node: onnx.NodeProto, index: GraphIndex) -> int | None:
    """How many elements go into one sum, at most; None where a size is unknown."""
    shape = index.shape(node.input[0])
    if shape is None:
        return None
    sizes = [shape[axis] for axis in _reduced_axes(node, len(shape), index)]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _reduced_axes(node: onnx.NodeProto, rank: int, index: GraphIndex) -> list[int]:
    """The axes a summing operator sums over; all but the first where it is not one of those known here."""
    if node.op_type in SPATIAL_OPS:
        return list(range(2, rank))
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        first = attribute_of(node, "axis", -1)
        return list(range(first % rank if isinstance(first, int) else 0, rank))
    if node.op_type.startswith("Reduce"):
        given = index.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        axes = given.tolist() if given is not None else attribute_of(node, "axes", list(range(rank)))
        return [int(axis) % rank for axis in axes] if isinstance(axes, list) else list(range(rank))
    return list(range(1, rank))


def _division_risk(node: onnx.NodeProto, index: GraphIndex, ranges: Mapping[str, TensorRange]) -> str | None:
    if node.op_type not in DIVIDING_OPS:
        return None
    name = node.input[DIVIDING_OPS[node.op_type]]
    if index.is_constant(name):
        return None
    seen = ranges.get(name)
    if seen is not None and (seen.low >= SMALLEST_NORMAL or seen.high <= -SMALLEST_NORMAL):
        return None
    return f"{node.op_type} of {name!r}, which comes near zero or was not seen"


def _implied_by_inputs(node: onnx.NodeProto, index: GraphIndex) -> list[str]:
    """The outputs whose extreme follows from the inputs' or from the operator."""
    is_bounded = node.op_type in BOUNDED_OPS
    is_mean = node.op_type in ("AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "Concat", "Split")
    is_mover = moves_data_only(node, index) or node.op_type in ("Gather", "GatherElements", "GatherND")
    known = node.domain in ("", "ai.onnx") and (is_bounded or is_mean or is_mover)
    return [name for name in node.output if name] if known and not any(True for _ in subgraphs_of(node)) else []


def _bound_from_inputs(node: onnx.NodeProto, index: GraphIndex, found: Mapping[str, float]) -> float | None:
    if node.op_type in BOUNDED_OPS:
        return 1.0
    names = node.input if node.op_type == "Concat" else node.input[:1]
    bounds: list[float] = []
    for name in names:
        value = index.constant(name)
        bound = found.get(name) if value is None else float(np.abs(value).max(initial=0.0))
        if bound is None:
            return None
        bounds.append(bound)
    return max(bounds, default=None)


def _saturated(node: onnx.NodeProto, index: GraphIndex) -> list[str]:
    """What is read by a saturating operator alone: what it does beyond FP16 is harmless if the output fits.

    The same holds for the operand of a sum before a Relu whose other operand is not negative: the operand is at most
    the output, and where it is hugely negative the output is 0 either way.
    """
    if node.op_type not in SATURATING_OPS or node.domain not in ("", "ai.onnx"):
        return []
    name = node.input[0]
    producer = index.producer(name)
    if producer is None or not _overflow_is_harmless(name, index):
        return []
    return [name, *(_summands_below(producer, index) if node.op_type == "Relu" else ())]


def _summands_below(node: onnx.NodeProto, index: GraphIndex) -> list[str]:
    if node.op_type not in ("Add", "Sum") or len(node.input) != 2:
        return []
    first, second = node.input
    pairs = ((first, second), (second, first))
    return [name for name, other in pairs if _is_not_negative(other, index) and _is_read_once(name, index)]


def _is_not_negative(tensor: str, index: GraphIndex) -> bool:
    producer = index.producer(tensor)
    return producer is not None and producer.op_type in ("Relu", "Sigmoid", "HardSigmoid")


def _is_read_once(tensor: str, index: GraphIndex) -> bool:
    written = index.producer(tensor) is not None
    return written and len(index.readers(tensor)) == 1 and not index.is_read_elsewhere(tensor)
