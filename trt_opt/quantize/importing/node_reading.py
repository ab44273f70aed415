"""Inputs and attributes of nodes, and which nodes are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from trt_opt.graph.index import attribute_of, captured_names


def attributes_of(node: onnx.NodeProto, *without: str) -> list[onnx.AttributeProto]:
    """A node's attributes, but for some."""
    return [attribute for attribute in node.attribute if attribute.name not in without]


def integer_attribute(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    """An attribute that is one integer."""
    return int(str(attribute_of(node, name, default)))


def input_of(node: onnx.NodeProto, position: int) -> str:
    """The name of an input; "" where it is left out."""
    return str(node.input[position]) if position < len(node.input) else ""


def read_nodes(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes, in order, on which the outputs depend."""
    read = set(outputs)
    kept = []
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(name for name in node.input if name)
            read.update(captured_names(node))
            kept.append(node)
    return kept[::-1]
