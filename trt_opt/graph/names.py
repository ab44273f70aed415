"""Every node gets a name of its own, so that decisions and messages can point at it."""

from __future__ import annotations

import onnx

from trt_opt.graph.tensors import graphs_of


def with_unique_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose top-level nodes all have different names; names already unique are kept.

    A node without a name takes its first output's, which is unique by ONNX's rules.
    """
    named = onnx.ModelProto()
    named.CopyFrom(model)
    taken: set[str] = set()
    for node in named.graph.node:
        base = node.name or next((output for output in node.output if output), node.op_type)
        node.name = fresh_name(base, taken)
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
