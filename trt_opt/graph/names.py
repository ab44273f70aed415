"""Every node gets a name of its own, so that decisions and messages can point at it."""

from __future__ import annotations

import onnx

from trt_opt.graph.tensors import graphs_of


def with_unique_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with different names for all its nodes, nested ones too; itself where that is so already.

    A node without a name takes its first output's, which is unique by ONNX's rules.
    """
    names = [node.name for graph in graphs_of(model.graph) for node in graph.node]
    if all(names) and len(set(names)) == len(names):
        return model
    named = onnx.ModelProto()
    named.CopyFrom(model)
    given = set(names)
    taken: set[str] = set()
    for graph in graphs_of(named.graph):
        for node in graph.node:
            base = node.name or next((output for output in node.output if output), node.op_type)
            node.name = base if node.name and base not in taken else fresh_name(base, given)
            taken.add(node.name)
    return named


def fresh_name(base: str, taken: set[str]) -> str:
    """A name not in `taken`, which then holds it."""
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Every tensor name of a graph and of the graphs inside it."""
    names: set[str] = set()
    for inner in graphs_of(graph):
        names.update(value.name for value in (*inner.input, *inner.output))
        names.update(tensor.name for tensor in inner.initializer)
        for node in inner.node:
            names.update(name for name in (*node.input, *node.output) if name)
    return names
