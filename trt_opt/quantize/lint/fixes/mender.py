"""Edits that take pairs out of a graph, with a record of what was done."""

from __future__ import annotations

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.writer import GraphWriter, drop_unread
from trt_opt.quantize.lint import linted_graph
from trt_opt.values.lint import Mended

SAME = "the same numbers"
FEWER = "one rounding fewer"
"""What becomes of the numbers."""


class Mender:
    """A copy of a model being mended for one rule.

    A node that was edited is not edited again: what the rule still finds is left to the next round.

    Args:
        model: Is not edited.
        rule: The rule's name, for the record.

    Attributes:
        graph: The model before all edits, types and shapes inferred.
        writer: The copy.
        mended: What was done.
    """

    def __init__(self, model: onnx.ModelProto, rule: str) -> None:
        self.given = with_unique_node_names(model)
        self.graph = linted_graph(self.given)
        self.index = self.graph.index
        self.writer = GraphWriter(self.given)
        self.mended: list[Mended] = []
        self._rule = rule
        self._edited: set[str] = set()

    def may_edit(self, *nodes: onnx.NodeProto) -> bool:
        """Whether none of them was edited; from now on all of them are."""
        names = {node.name for node in nodes}
        if names & self._edited:
            return False
        self._edited |= names
        return True

    def did(self, node: str, what: str) -> None:
        """Records an edit."""
        self.mended.append(Mended(self._rule, node, what))

    def same_type(self, first: str, second: str) -> bool:
        """Whether two tensors certainly have the same element type."""
        kind = self.index.element_type(first)
        return kind is not None and kind == self.index.element_type(second)

    def reads_instead(self, node: onnx.NodeProto, old: str, new: str) -> None:
        """Lets a node read another tensor."""
        edited = self.writer.nodes[node.name]
        edited.input[:] = [new if name == old else name for name in edited.input]

    def can_replace(self, old: str, new: str) -> bool:
        """Whether `replace` would work: what is given out must be made by a node, under one name."""
        if old in self.index.captured or not self.same_type(old, new):
            return False
        if old not in self.index.outputs:
            return True
        return self.index.producer(new) is not None and not self.index.is_read_elsewhere(new)

    def replace(self, old: str, new: str) -> None:
        """Lets everybody read `new` for `old`; a graph output keeps its name."""
        for reader, _ in self.index.readers(old):
            self.reads_instead(reader, old, new)
        maker = self.index.producer(new)
        if old in self.index.outputs and maker is not None:
            gone = self.index.producer(old)
            if gone is not None:
                self.writer.remove(gone.name)
            made = self.writer.nodes[maker.name]
            made.output[:] = [old if name == new else name for name in made.output]
            for node in self.writer.model.graph.node:
                node.input[:] = [old if name == new else name for name in node.input]

    def finished(self) -> tuple[onnx.ModelProto, tuple[Mended, ...]]:
        """The mended model, without pairs and casts that lost their last reader; the given one if nothing was done."""
        if not self.mended:
            return self.given, ()
        model = self.writer.finished()
        gone = _unread(GraphIndex(model)) - _unread(self.index)
        kept = [node for node in model.graph.node if node.name not in gone]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        drop_unread(model)
        return model, tuple(self.mended)


def _unread(index: GraphIndex) -> set[str]:
    """The pairs and casts whose results lead nowhere."""
    found: set[str] = set()
    for node in reversed(index.model.graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity"):
            readers = {reader.name for reader, _ in index.readers(node.output[0])}
            if readers <= found and not index.is_read_elsewhere(node.output[0]):
                found.add(node.name)
    return found
