"""By how much each tensor should be shifted, so that the QuantizeLinear that reads it finds it on a symmetric grid."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.importing.shift_rules import (
    BOUNDED,
    constant_operand,
    has_free_bias,
    moved_outputs,
    padding_of,
    passes_shifts,
)


class Demands:
    """What the readers of a tensor want added to it.

    Args:
        index: A model in normal form.
        wanted: Name of a QuantizeLinear → what it wants; 0 for those that are not here.
        given: Dequantised tensor → the shift it comes with.
    """

    def __init__(self, index: GraphIndex, wanted: Mapping[str, float], given: Mapping[str, float]) -> None:
        self._index = index
        self._wanted = wanted
        self._coming = _coming(index, given)
        self._adjustable = _adjustable(index)
        self._of: dict[str, float | None] = {}
        for node in reversed(index.model.graph.node):
            for output in node.output:
                self._of[output] = self._agreed(output)

    def of(self, tensor: str) -> float:
        """What the tensor's readers agree on, or 0."""
        return self._of.get(tensor) or 0.0

    def _agreed(self, tensor: str) -> float | None:
        """None where no reader minds; 0 where they disagree."""
        if self._index.is_read_elsewhere(tensor):
            return 0.0
        wishes = {self._wish(node, at) for node, at in self._index.readers(tensor)} - {None}
        if not wishes:
            return None
        return wishes.pop() if len(wishes) == 1 else 0.0

    def _wish(self, node: onnx.NodeProto, at: int) -> float | None:
        if node.op_type == "QuantizeLinear":
            return self._wanted.get(node.name, 0.0)
        if node.op_type == "Concat" or (at == 0 and (node.op_type in BOUNDED or passes_shifts(node))):
            return self._of.get(node.output[0]) if len(node.output) == 1 else 0.0
        if node.op_type == "Add":
            return self._wish_of_sum(node, at)
        if at == 0 and node.op_type == "Conv" and has_free_bias(node, self._index):
            return 0.0 if any(padding_of(node, self._index) or (1,)) else None
        if node.op_type in ("Shape", "Size"):
            return None
        if at == 0 and node.op_type == "Gemm" and has_free_bias(node, self._index):
            return None
        return 0.0

    def _wish_of_sum(self, node: onnx.NodeProto, at: int) -> float | None:
        """A constant takes any shift in; of two tensors the first that can be shifted for nothing bears it all."""
        if constant_operand(node, self._index) is not None:
            return None
        bearer = next((name for name in node.input if name in self._adjustable), None)
        if bearer != node.input[at] or node.input[0] == node.input[1]:
            return None
        total = self._of.get(node.output[0])
        return None if total is None else total - self._coming.get(node.input[1 - at], 0.0)


def _coming(index: GraphIndex, given: Mapping[str, float]) -> dict[str, float]:
    """The shifts that tensors have from dequantised ones before them."""
    coming = dict(given)
    for node in index.model.graph.node:
        if node.input and (passes_shifts(node) or node.op_type in BOUNDED) and node.input[0] in coming:
            coming.update(dict.fromkeys(moved_outputs(node), coming[node.input[0]]))
        elif node.op_type == "Add" and all(name in coming for name in node.input):
            coming[node.output[0]] = sum(coming[name] for name in node.input)
    return coming


def _adjustable(index: GraphIndex) -> frozenset[str]:
    """The tensors that any number can be added to by changing a constant."""
    found: set[str] = set()
    for node in index.model.graph.node:
        through = (passes_shifts(node) or node.op_type in BOUNDED) and len(node.output) == 1
        if has_free_bias(node, index) or (through and node.input and node.input[0] in found):
            found.add(node.output[0])
    return frozenset(found)
