"""Passes that put other nodes in the place of single ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import onnx_graphsurgeon as gs
from onnx import ModelProto

from trt_opt.graph.edit import every_graph, label, remove_nodes, replace_uses, set_output
from trt_opt.graph.query import all_nodes
from trt_opt.passes.base import GraphEdit, GraphPass
from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.values.rewriting import PassReport
from trt_opt.values.summary import RefusedNode

OLDEST_OPSET = 13
"""Replacements are written in the operators of this opset or later."""


class DeclinedError(Exception):
    """A replacement is not possible; the text says why, and what would make it so."""


class NodePass(GraphPass):
    """Replaces nodes of certain operators, one by one.

    Args:
        refused: The names of the nodes that the target refuses; only these are replaced, and those that the target
            takes but misreads. None replaces every node of the pass's operators.
    """

    operators: ClassVar[frozenset[str]]
    """The operators it replaces; those of other domains than ONNX's own as "domain::Operator"."""

    oldest_opset: ClassVar[int] = OLDEST_OPSET
    """Replacements need this opset; models below it are declined."""

    def __init__(self, refused: frozenset[str] | None = None) -> None:
        self.refused = refused

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Imports the graph only where a node that may be wanted is in it."""
        kind = type(self)
        decides_itself = kind.misread is not NodePass.misread or kind.wants is not NodePass.wants
        for node in all_nodes(model):
            if operator_of(node.op_type, node.domain) in self.operators and (
                self.refused is None or node.name in self.refused or decides_itself
            ):
                return super().run(model)
        return model, PassReport(self.name)

    def apply(self, edit: GraphEdit) -> None:
        """Goes through all graphs, nested ones too."""
        for graph in every_graph(edit.graph):
            gone: list[gs.Node] = []
            made: list[gs.Node] = []
            for node in graph.nodes:
                if self.wants(node, edit):
                    emitted = self._replaced(node, edit)
                    made += emitted or ()
                    gone += [node] if emitted is not None else []
            remove_nodes(graph, gone)
            list.extend(graph.nodes, made)

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Whether the node is one of those to be replaced."""
        if operator_of(node.op, node.domain) not in self.operators:
            return False
        return self.refused is None or node.name in self.refused or self.misread(node, edit)

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Whether TensorRT takes this node and computes something else than ONNX says; such nodes may never stay."""
        del node, edit
        return False

    @abstractmethod
    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """Writes the nodes that compute the same.

        Args:
            node: The node; is not edited.
            emit: Where the new nodes are written; `emit.edit` knows shapes, types and constants.

        Returns:
            What takes the place of each output, in order; None for outputs that nobody reads, and for trailing ones.

        Raises:
            DeclinedError: It cannot be done here.
        """

    def summary(self, node: gs.Node, nodes: Sequence[gs.Node]) -> str:
        """What was done, in a few words, for the report."""
        operators = list(dict.fromkeys(made.op for made in nodes))
        told = ", ".join(operators[:5]) + (" …" if len(operators) > 5 else "")
        return f"{node.op} replaced" + (f" by {told}" if told else "")

    def _replaced(self, node: gs.Node, edit: GraphEdit) -> list[gs.Node] | None:
        emit = Emitter(edit, node)
        try:
            if edit.opset < self.oldest_opset:
                raise DeclinedError(f"the model's opset {edit.opset} is below {self.oldest_opset}")
            results = self.replacement(node, emit)
        except DeclinedError as reason:
            edit.declined(node, str(reason))
            discard(emit.nodes)
            return None
        what = self.summary(node, emit.nodes)
        taken: dict[int, gs.Tensor] = {}
        for output, result in zip(list(node.outputs), results, strict=False):
            if result is not None and output.name:
                take_over(output, taken.get(id(result), result), emit)
                taken.setdefault(id(result), output)
        edit.changed(node, what)
        return emit.nodes


def misread_nodes(model: ModelProto, passes: Iterable[NodePass]) -> tuple[RefusedNode, ...]:
    """The nodes that TensorRT takes and computes something else for, as the passes know them."""
    by_operator: dict[str, list[NodePass]] = {}
    for entry in passes:
        if type(entry).misread is not NodePass.misread:
            for operator in entry.operators:
                by_operator.setdefault(operator, []).append(entry)
    if not any(operator_of(node.op_type, node.domain) in by_operator for node in all_nodes(model)):
        return ()
    edit = GraphEdit(model)
    found = []
    for graph in every_graph(edit.graph):
        for node in graph.nodes:
            known = by_operator.get(operator_of(node.op, node.domain), ())
            if any(entry.misread(node, edit) for entry in known):
                reason = "TensorRT takes it, and computes something else than ONNX says"
                found.append(RefusedNode(label(node), node.op, reason))
    return tuple(found)


def operator_of(op: str, domain: str | None) -> str:
    """The operator as `NodePass.operators` names it."""
    return op if domain in {None, "", "ai.onnx"} else f"{domain}::{op}"


def is_used(tensor: gs.Tensor, edit: GraphEdit) -> bool:
    """Whether anybody reads the tensor, or it is a graph output."""
    return bool(tensor.name) and (bool(tensor.outputs) or edit.is_graph_output(tensor))


def optional_input(node: gs.Node, position: int) -> gs.Tensor | None:
    """An input that may be left out; None where it is."""
    if position >= len(node.inputs) or node.inputs[position].is_empty():
        return None
    return node.inputs[position]


def discard(nodes: Sequence[gs.Node]) -> None:
    """Takes nodes that never entered a graph off the tensors they read."""
    ids = {id(node) for node in nodes}
    for tensor in {id(tensor): tensor for node in nodes for tensor in node.inputs}.values():
        list.__init__(tensor.outputs, [reader for reader in tensor.outputs if id(reader) not in ids])


def take_over(output: gs.Tensor, result: Operand, emit: Emitter) -> None:
    """Makes `output` be what `result` is, under its own name; an Identity where the result exists already."""
    for made in emit.nodes:
        for position, tensor in enumerate(made.outputs):
            if tensor is result:
                replace_uses(tensor, output)
                set_output(made, position, output)
                return
    emit("Identity", result)
    set_output(emit.nodes[-1], 0, output)
