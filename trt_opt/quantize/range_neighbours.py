"""Which tensor's range serves for another's: the values are the same, or the largest of the same ones.

A part of a tensor (Slice, Split, Gather) could do with the range of the whole, but its own may be a hundredth of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.rules import moves_data_only

EQUAL_OPS = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth", "Identity", "Expand"}
    | {"Tile"}
)
"""Every value of the first input is in the output, and no other."""

HOLDING_OPS = frozenset({"MaxPool", "GlobalMaxPool", "Resize", "Pad"})
"""Every value of the output is one of the first input's, or 0, and the extremes seldom are not: the input's range
serves for the output, but not the reverse."""

NOT_NEGATIVE_OPS = frozenset({"Relu", "Sigmoid", "Softmax", "Abs", "Exp", "Sqrt"})

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)

DEEPEST_CONCAT = 16
"""Concatenations of concatenations are followed so far."""

LONGEST_SIGN_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A range that serves.

    Attributes:
        amax: The threshold.
        tensors: Whose it is: one tensor, or the inputs of a concatenation.
    """

    amax: float
    tensors: tuple[str, ...]


def neighbour_of(tensor: str, known: Mapping[str, float], graphs: Sequence[GraphIndex]) -> Neighbour | None:
    """The nearest tensor with a known threshold that holds every value of this one; itself where it is known.

    Args:
        tensor: The tensor that needs a range.
        known: Tensor → threshold.
        graphs: Forms of one model; a name that occurs in several stands for the same values in all.
    """
    return _nearest(tensor, known, graphs, DEEPEST_CONCAT)


def _nearest(tensor: str, known: Mapping[str, float], graphs: Sequence[GraphIndex], depth: int) -> Neighbour | None:
    """Walks from tensor to tensor, each holding all values of the one before, the nearest first."""
    waiting, seen = deque([tensor]), {tensor}
    while waiting:
        name = waiting.popleft()
        if name in known:
            return Neighbour(known[name], (name,))
        for index in graphs:
            joined = _of_concatenation(name, known, graphs, index, depth)
            if joined is not None:
                return joined
            for other in _holders(name, index):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
    return None


def _of_concatenation(
    tensor: str, known: Mapping[str, float], graphs: Sequence[GraphIndex], index: GraphIndex, depth: int
) -> Neighbour | None:
    """The largest threshold of what is joined, if all are known."""
    maker = index.producer(tensor)
    if maker is None or maker.op_type != "Concat" or maker.domain not in ("", "ai.onnx") or not depth:
        return None
    parts: list[Neighbour] = []
    for name in maker.input:
        value = index.constant(name)
        if value is not None:
            parts.append(Neighbour(float(np.abs(np.asarray(value, np.float64)).max(initial=0.0)), ()))
            continue
        found = _nearest(name, known, graphs, depth - 1)
        if found is None:
            return None
        parts.append(found)
    amax = max((part.amax for part in parts), default=0.0)
    names = dict.fromkeys(name for part in parts for name in part.tensors)
    return Neighbour(amax, tuple(names)) if np.isfinite(amax) and names else None


def _holders(tensor: str, index: GraphIndex) -> Iterator[str]:
    """Tensors next to this one that hold all its values; constants, whose range is another matter, are left out."""
    maker = index.producer(tensor)
    if maker is not None and _is_contained(maker, index) and not index.is_constant(maker.input[0]):
        yield maker.input[0]
    for reader, position in index.readers(tensor):
        if position == 0 and _is_equal(reader, index):
            yield reader.output[0]


def _is_contained(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether every value of the output is one of the first input's, or 0."""
    return _is_equal(node, index) or _holds(node, index)


def _holds(node: onnx.NodeProto, index: GraphIndex) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in HOLDING_OPS:
        return False
    return node.op_type == "GlobalMaxPool" or moves_data_only(node, index)


def _is_equal(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether the first output holds the values of the first input, all of them and no others."""
    if node.domain not in ("", "ai.onnx") or not node.input or not node.output:
        return False
    match node.op_type:
        case "Dropout":
            return len([name for name in node.output if name]) == 1 and not _may_train(node, index)
        case "Cast":
            return index.element_type(node.input[0]) in FLOATS and attribute_of(node, "to") in FLOATS
        case "Relu":
            return _is_not_negative(node.input[0], index, LONGEST_SIGN_CHAIN)
        case _:
            return node.op_type in EQUAL_OPS


def _may_train(node: onnx.NodeProto, index: GraphIndex) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return False
    training = index.constant(node.input[2])
    return training is None or bool(np.any(training))


def _is_not_negative(tensor: str, index: GraphIndex, steps: int) -> bool:
    maker = index.producer(tensor)
    if maker is None or maker.domain not in ("", "ai.onnx") or not steps:
        return False
    if maker.op_type in NOT_NEGATIVE_OPS:
        return True
    if maker.op_type in ("Add", "Sum", "Mul", "Concat"):
        return all(_is_not_negative(name, index, steps - 1) for name in maker.input)
    moves = maker.op_type in EQUAL_OPS or _holds(maker, index)
    return moves and _is_not_negative(maker.input[0], index, steps - 1)
