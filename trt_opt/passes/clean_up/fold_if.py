"""If whose condition is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.graph.edit import every_graph, remove_nodes, replace_uses, set_output
from trt_opt.graph.surgeon import constant_values
from trt_opt.passes.base import GraphEdit, GraphPass


class FoldIf(GraphPass):
    """Replaces an If with a constant condition by the nodes of the branch it takes.

    What it does: The nodes of the branch move to where the If stood and write its outputs; the other branch goes. What
    the branch calls like something else in the model gets another name; what it reads from outside it goes on reading.

    Why TensorRT wants it: Where the condition is computed, even from shapes alone, it reads both branches, so that an
    operator it refuses in a branch never taken refuses the model. What lies behind an If also hides its shapes from the
    passes after this one.

    Example: y = If(true, then: {a = Relu(x)}, else: {b = NonZero(x)}) becomes y = Relu(x).

    When it declines: Never. Ifs whose condition is computed at run time are none of its business.
    """

    name = "fold_if"

    def apply(self, edit: GraphEdit) -> None:
        """Goes through all graphs; an If that a branch brings along is folded too."""
        shared = _names_given_twice(edit)
        for graph in every_graph(edit.graph):
            waiting = [node for node in graph.nodes if _is_decided(node)]
            while waiting:
                node = waiting.pop(0)
                moved = _take_branch(node, graph, shared, edit)
                waiting += [found for found in moved if _is_decided(found)]


def _is_decided(node: gs.Node) -> bool:
    return node.op == "If" and not node.domain and constant_values(node.inputs[0]) is not None


def _names_given_twice(edit: GraphEdit) -> frozenset[str]:
    """Names of several tensors: nested graphs may give a name that another graph gives too."""
    tensors: dict[int, str] = {}
    for graph in every_graph(edit.graph):
        tensors.update((id(tensor), tensor.name) for tensor in (*graph.inputs, *graph.outputs))
        for node in graph.nodes:
            tensors.update((id(tensor), tensor.name) for tensor in (*node.inputs, *node.outputs))
    return frozenset(name for name, count in Counter(tensors.values()).items() if count > 1 and name)


def _take_branch(node: gs.Node, graph: gs.Graph, shared: frozenset[str], edit: GraphEdit) -> list[gs.Node]:
    condition = constant_values(node.inputs[0])
    taken = "then_branch" if condition is not None and condition.any() else "else_branch"
    branch: gs.Graph = node.attrs[taken]
    other: gs.Graph = node.attrs["else_branch" if taken == "then_branch" else "then_branch"]
    for inner in every_graph(other):
        remove_nodes(inner, list(inner.nodes))
    nodes = list(branch.nodes)
    _rename(branch, shared, edit)
    made = _hand_over(branch, list(node.outputs), nodes, edit)
    edit.changed(node, f"If replaced by the {len(nodes)} nodes of its {taken}")
    position = next(index for index, found in enumerate(graph.nodes) if found is node)
    remove_nodes(graph, [node])
    list.__init__(branch.nodes)
    list.__setitem__(graph.nodes, slice(position, position), [*nodes, *made])
    return nodes


def _rename(branch: gs.Graph, shared: frozenset[str], edit: GraphEdit) -> None:
    """Only what the branch makes itself; all that reads it holds the tensor, not the name."""
    for node in branch.nodes:
        for tensor in node.outputs:
            if tensor.name in shared:
                tensor.name = edit.fresh_name(tensor.name)
    # A constant of a branch is read inside it alone; one from outside the branch is read outside too, or keeps its name
    # for lack of a second tensor of it.
    inside = {id(node) for inner in every_graph(branch) for node in inner.nodes}
    read = {id(tensor): tensor for inner in every_graph(branch) for node in inner.nodes for tensor in node.inputs}
    for tensor in (*read.values(), *branch.outputs):
        local = isinstance(tensor, gs.Constant) and all(id(reader) in inside for reader in tensor.outputs)
        if local and tensor.name in shared:
            tensor.name = edit.fresh_name(tensor.name)


def _hand_over(
    branch: gs.Graph, outputs: Sequence[gs.Tensor], nodes: Sequence[gs.Node], edit: GraphEdit
) -> list[gs.Node]:
    """Makes the branch's nodes write the If's outputs; an Identity where a result comes from elsewhere, or twice."""
    producers = {id(tensor): (node, index) for node in nodes for index, tensor in enumerate(node.outputs)}
    made: list[gs.Node] = []
    written: dict[int, gs.Tensor] = {}
    for output, result in zip(outputs, list(branch.outputs), strict=True):
        if not output.name:
            continue
        if id(result) in producers and id(result) not in written:
            producer, position = producers[id(result)]
            replace_uses(result, output)
            _replace_in_outputs(branch, result, output)
            set_output(producer, position, output)
            written[id(result)] = output
            continue
        source = written.get(id(result), result)
        name = edit.fresh_node_name(f"{output.name}/Identity")
        made.append(gs.Node("Identity", name, {}, [source], [gs.Variable(edit.fresh_name(f"{output.name}/taken"))]))
        set_output(made[-1], 0, output)
    return made


def _replace_in_outputs(branch: gs.Graph, old: gs.Tensor, new: gs.Tensor) -> None:
    """A graph nested in the branch may hand on a tensor of the branch as its own output."""
    for inner in list(every_graph(branch))[1:]:
        for position, tensor in enumerate(inner.outputs):
            if tensor is old:
                list.__setitem__(inner.outputs, position, new)
