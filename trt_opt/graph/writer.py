"""Editing a model's top-level graph by names: new nodes before or behind old ones, new constants, other readers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trt_opt.graph.index import captured_names
from trt_opt.graph.names import fresh_name, tensor_names

FREE_INITIALISERS = 4
"""The first IR version in which an initialiser need not be a graph input."""


class GraphWriter:
    """A copy of a model under construction; `finished` gives it out once everything is said.

    Nodes that are added before or behind another are kept beside it and put in place at the end, so that the nodes of
    the graph can be walked while they are edited.

    Args:
        model: Is not edited. Node names unique.

    Attributes:
        model: The copy; its nodes may be edited in place.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.model.ir_version = max(model.ir_version, FREE_INITIALISERS)
        self.nodes: dict[str, onnx.NodeProto] = {node.name: node for node in self.model.graph.node}
        self._tensors = tensor_names(self.model.graph)
        self._node_names = set(self.nodes)
        self._before: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._behind: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._first: list[onnx.NodeProto] = []
        self._last: list[onnx.NodeProto] = []
        self._gone: set[str] = set()

    def tensor(self, base: str) -> str:
        """A tensor name that is still free, like `base`."""
        return fresh_name(base, self._tensors)

    def constant(self, base: str, array: NDArray[np.generic]) -> str:
        """Adds an initialiser; its name."""
        name = self.tensor(base)
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def made(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """A node with one output and a name of its own, not in the graph yet."""
        name = fresh_name(output, self._node_names)
        return helper.make_node(op_type, list(inputs), [output], name=name, **attributes)

    def before(self, node: str, *added: onnx.NodeProto) -> None:
        """Puts nodes before the node of this name, behind what was put there earlier."""
        self._before[node].extend(added)

    def behind(self, node: str, *added: onnx.NodeProto) -> None:
        """Puts nodes right behind the node of this name, behind what was put there earlier."""
        self._behind[node].extend(added)

    def first(self, *added: onnx.NodeProto) -> None:
        """Puts nodes before all others."""
        self._first.extend(added)

    def last(self, *added: onnx.NodeProto) -> None:
        """Puts nodes behind all others."""
        self._last.extend(added)

    def remove(self, node: str) -> None:
        """Takes the node of this name out; whoever reads its outputs must have been told."""
        self._gone.add(node)

    def finished(self) -> onnx.ModelProto:
        """The model with all nodes in place, and without the constants and types that nothing refers to any more."""
        graph = self.model.graph
        ordered = list(self._first)
        for node in graph.node:
            ordered += self._before[node.name]
            ordered += [] if node.name in self._gone else [node]
            ordered += self._behind[node.name]
        ordered += self._last
        del graph.node[:]
        graph.node.extend(ordered)
        drop_unread(self.model)
        return self.model


def drop_unread(model: onnx.ModelProto) -> None:
    """Takes out the initialisers that nothing reads and the types of tensors that nothing writes, in place.

    An initialiser that is listed as a graph input too, as old files must, goes from there as well: left behind, it
    would have to be fed.
    """
    graph = model.graph
    read = {name for node in graph.node for name in (*node.input, *captured_names(node))}
    read |= {value.name for value in graph.output}
    written = {name for node in graph.node for name in node.output}
    unread = {tensor.name for tensor in graph.initializer} - read
    initializers = [tensor for tensor in graph.initializer if tensor.name not in unread]
    inputs = [value for value in graph.input if value.name not in unread]
    values = [value for value in graph.value_info if value.name in written]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    graph.value_info.extend(values)
