"""Edits of a GraphSurgeon graph in time linear in what they touch.

GraphSurgeon's own lists compare nodes attribute by attribute to find one, so taking a node off a tensor with n readers
costs n deep comparisons; a constant read by every node of a large graph then makes an edit of all nodes quadratic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_graphsurgeon as gs

from trt_opt.errors import UnsupportedModelError


def every_graph(graph: gs.Graph) -> Iterator[gs.Graph]:
    """The graph, then all graphs nested in it, at any depth, in the order of their nodes."""
    yield graph
    for node in graph.nodes:
        for attribute in node.attrs.values():
            if isinstance(attribute, gs.Graph):
                yield from every_graph(attribute)


def label(node: gs.Node) -> str:
    """What users can find the node by: its name, or its first named output, or its operator."""
    return str(node.name or next((tensor.name for tensor in node.outputs if tensor.name), node.op))


def remove_nodes(graph: gs.Graph, nodes: Iterable[gs.Node]) -> None:
    """Takes nodes out of this graph and off their tensors; the tensors stay."""
    gone = {id(node): node for node in nodes}
    if not gone:
        return
    list.__init__(graph.nodes, [node for node in graph.nodes if id(node) not in gone])
    touched = {id(tensor): tensor for node in gone.values() for tensor in (*node.inputs, *node.outputs)}
    for tensor in touched.values():
        for links in (tensor.inputs, tensor.outputs):
            list.__init__(links, [node for node in links if id(node) not in gone])
    for node in gone.values():
        list.clear(node.inputs)
        list.clear(node.outputs)


def replace_uses(old: gs.Tensor, new: gs.Tensor) -> None:
    """Makes every node that reads `old`, in any graph, read `new`; graph outputs are the caller's affair."""
    readers = {id(node): node for node in old.outputs}
    for node in readers.values():
        for position, tensor in enumerate(node.inputs):
            if tensor is old:
                list.__setitem__(node.inputs, position, new)
                list.append(new.outputs, node)
    list.clear(old.outputs)


def graph_output_ids(graph: gs.Graph) -> set[int]:
    """The ids of all tensors that are outputs of this graph or of one nested in it."""
    return {id(tensor) for inner in every_graph(graph) for tensor in inner.outputs}


def tensor_names(graph: gs.Graph) -> set[str]:
    """Every tensor name in the graph and in those nested in it."""
    names: set[str] = set()
    for inner in every_graph(graph):
        for tensors in (inner.inputs, inner.outputs):
            names.update(tensor.name for tensor in tensors)
        for node in inner.nodes:
            names.update(tensor.name for tensor in node.inputs)
            names.update(tensor.name for tensor in node.outputs)
    return names


def in_order(graph: gs.Graph) -> list[gs.Node]:
    """The nodes of this one graph, each after those it reads from; the given order is kept wherever it allows.

    Raises:
        UnsupportedModelError: The nodes form a cycle.
    """
    producer = {id(tensor): node for node in graph.nodes for tensor in node.outputs if tensor.name}
    order: list[gs.Node] = []
    done: set[int] = set()
    for first in graph.nodes:
        stack = [] if id(first) in done else [(first, tensors_read(first))]
        entered = {id(first)}
        while stack:
            node, tensors = stack[-1]
            sources = (producer.get(id(tensor)) for tensor in tensors)
            source = next((found for found in sources if found is not None and id(found) not in done), None)
            if source is None:
                stack.pop()
                done.add(id(node))
                order.append(node)
            elif id(source) in entered:
                raise UnsupportedModelError("the graph has a cycle", where=f"node {label(source)!r}")
            else:
                entered.add(id(source))
                stack.append((source, tensors_read(source)))
    return order


def tensors_read(node: gs.Node) -> Iterator[gs.Tensor]:
    """A node's inputs, and what the graphs nested in it read from outside (or from themselves, which does no harm)."""
    yield from node.inputs
    for attribute in node.attrs.values():
        if isinstance(attribute, gs.Graph):
            for inner in every_graph(attribute):
                for nested in inner.nodes:
                    yield from nested.inputs
                yield from inner.outputs


def set_input(node: gs.Node, position: int, tensor: gs.Tensor) -> None:
    """Makes input `position` of the node read another tensor; `node.inputs[i] = …` compares nodes deeply instead."""
    _drop_link(node.inputs[position].outputs, node)
    list.__setitem__(node.inputs, position, tensor)
    list.append(tensor.outputs, node)


def set_output(node: gs.Node, position: int, tensor: gs.Tensor) -> None:
    """Makes output `position` of the node write another tensor."""
    _drop_link(node.outputs[position].inputs, node)
    list.__setitem__(node.outputs, position, tensor)
    list.append(tensor.inputs, node)


def _drop_link(links: list[gs.Node], node: gs.Node) -> None:
    position = next((index for index, linked in enumerate(links) if linked is node), None)
    if position is not None:
        list.__delitem__(links, position)
