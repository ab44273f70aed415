"""Where a quantised tensor comes from: the operator that gave its numbers their range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.rules import COMMUTING_OPS
from trt_opt.sensitivity.wording import number_text

SUMS = frozenset({"Add", "Sum", "ReduceSum", "Relu", "Clip", "AveragePool", "GlobalAveragePool", "ReduceMean"})
"""They keep the range of what they add up; looked through, as data movement is."""

LARGEST_DEPTH = 5

TINY = 1e-4
"""A variance or divisor below this is worth telling."""

WORDS: Mapping[str, str] = {
    "square": "the square",
    "Exp": "the exponential",
    "Div": "a division",
    "Reciprocal": "a reciprocal",
    "Softmax": "a softmax",
    "BatchNormalization": "a BatchNormalization",
}
"""Operators that make ranges which one scale does not fit, in words."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The operator behind a tensor.

    Attributes:
        kind: "square", else the operator's name; "input" for a graph input.
        words: It in words, where it is one of those that explain a range: "the square", "a division by 1e-09".
    """

    kind: str
    words: str | None = None


def origin_of(tensor: str, index: GraphIndex) -> Origin:
    """What gave a tensor its range, looked for through data movement and sums; else the operator that wrote it."""
    producer = index.producer(tensor)
    if producer is None:
        return Origin("input")
    return _telling(tensor, index, LARGEST_DEPTH) or Origin(producer.op_type)


def normalised_variances(model: onnx.ModelProto) -> dict[str, float]:
    """Tensor → the least variance (epsilon added) of the BatchNormalization that writes or reads it.

    A layer that a pass folded one into writes what that wrote; where none was folded, a layer writes what it reads.

    Args:
        model: As it was given.
    """
    index = GraphIndex(model)
    found: dict[str, float] = {}
    for node in model.graph.node:
        least = _least_variance(node, index) if node.op_type == "BatchNormalization" else None
        if least is not None:
            found |= {node.output[0]: least, node.input[0]: least}
    return found


def _telling(tensor: str, index: GraphIndex, depth: int) -> Origin | None:
    node = index.producer(tensor)
    if node is None or not depth:
        return None
    if _is_square(node, index):
        return Origin("square", WORDS["square"])
    if node.op_type in WORDS:
        return Origin(node.op_type, _words(node, index))
    if node.op_type in SUMS:
        found = (_telling(name, index, depth - 1) for name in node.input if not index.is_constant(name))
        return next((origin for origin in found if origin is not None), None)
    return _telling(node.input[0], index, depth - 1) if node.op_type in COMMUTING_OPS else None


def _is_square(node: onnx.NodeProto, index: GraphIndex) -> bool:
    if node.op_type == "Mul":
        return bool(node.input[0] == node.input[1])
    exponent = index.constant(node.input[1]) if node.op_type == "Pow" else None
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) == 2.0


def _words(node: onnx.NodeProto, index: GraphIndex) -> str:
    words = WORDS[node.op_type]
    if node.op_type == "BatchNormalization":
        least = _least_variance(node, index)
        return f"{words} of variance {number_text(least)}" if least is not None and least < TINY else words
    divisor = index.constant(node.input[1]) if node.op_type == "Div" else None
    if divisor is not None and divisor.size:
        least = float(np.abs(divisor.astype(np.float64)).min())
        return f"{words} by {number_text(least)}" if least < TINY else words
    return words


def _least_variance(node: onnx.NodeProto, index: GraphIndex) -> float | None:
    variance = index.constant(node.input[4]) if len(node.input) > 4 else None
    if variance is None or not variance.size:
        return None
    epsilon = attribute_of(node, "epsilon", 1e-5)
    return float(variance.astype(np.float64).min()) + (epsilon if isinstance(epsilon, float) else 1e-5)
