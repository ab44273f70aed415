"""Nodes and constants that no output depends on."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from trt_opt.graph.edit import every_graph, in_order, remove_nodes, tensors_read
from trt_opt.passes.base import GraphEdit, GraphPass


class RemoveDeadNodes(GraphPass):
    """Removes nodes and initialisers that no graph output depends on.

    What it does: Walks back from the outputs of the graph, and of every graph nested in it, and removes the nodes it
    does not meet and the initialisers nobody reads. Graph inputs stay, read or not.

    Why TensorRT wants it: The parser reads dead nodes too, and refuses the model for an operator that does nothing.

    Example: y = Relu(x); unused = NonZero(x) → y = Relu(x).

    When it declines: Never. Unused outputs of a node that is needed stay.
    """

    name = "remove_dead_nodes"

    def apply(self, edit: GraphEdit) -> None:
        """Cleans nested graphs first: what only a dead inner node read is then dead outside."""
        for graph in reversed(list(every_graph(edit.graph))):
            dead = list(_dead_nodes(graph))
            for node in dead:
                edit.changed(node, f"{node.op} removed: no output depends on it")
            remove_nodes(graph, dead)
        used = _constants_read(edit.graph)
        for tensor in edit.model.graph.initializer:
            if tensor.name not in used:
                edit.changed(tensor.name, "initialiser removed: nobody reads it")


def _dead_nodes(graph: gs.Graph) -> Iterator[gs.Node]:
    live = {id(tensor) for tensor in graph.outputs}
    for node in reversed(in_order(graph)):
        if any(id(tensor) in live for tensor in node.outputs):
            live.update(id(tensor) for tensor in tensors_read(node))
        else:
            yield node


def _constants_read(graph: gs.Graph) -> set[str]:
    names = {tensor.name for tensor in graph.outputs}
    for inner in every_graph(graph):
        for node in inner.nodes:
            names.update(tensor.name for tensor in node.inputs if isinstance(tensor, gs.Constant))
    return names
