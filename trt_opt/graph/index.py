"""Who produces and who reads each tensor of a graph's top level, looked up in constant time."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from trt_opt.graph.tensors import subgraphs_of


class GraphIndex:
    """A read-only view of a model's top-level graph.

    Nodes are named by their `name`; `graph.names.with_unique_node_names` sees to it that every node has one.

    Args:
        model: A model with unique node names. Types and shapes come from its value_info, so infer shapes first.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: dict[str, onnx.NodeProto] = {node.name: node for node in model.graph.node}
        self._producers = {output: node for node in model.graph.node for output in node.output if output}
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
        for node in model.graph.node:
            for position, name in enumerate(node.input):
                if name:
                    self._readers[name].append((node, position))
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name for value in model.graph.input} - set(self._initializers)
        self.outputs = {value.name for value in model.graph.output}
        self._arrays: dict[str, NDArray[np.generic]] = {}

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that writes the tensor; None for graph inputs and initialisers."""
        return self._producers.get(tensor)

    def readers(self, tensor: str) -> list[tuple[onnx.NodeProto, int]]:
        """The (node, input index) pairs of the top-level graph that read the tensor."""
        return self._readers.get(tensor, [])

    def is_read_elsewhere(self, tensor: str) -> bool:
        """Whether the tensor is also a graph output or read inside a subgraph."""
        return tensor in self.outputs or tensor in self.captured

    def constant(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of an initialiser or Constant node; None for anything computed at run time."""
        if tensor in self._arrays:
            return self._arrays[tensor]
        proto = self._constant_proto(tensor)
        if proto is None:
            return None
        array: NDArray[np.generic] = numpy_helper.to_array(proto)
        self._arrays[tensor] = array
        return array

    def is_constant(self, tensor: str) -> bool:
        """Whether the tensor's value is known without running the model."""
        return self._constant_proto(tensor) is not None

    def element_type(self, tensor: str) -> int | None:
        """The `onnx.TensorProto` element type, or None where inference did not find it."""
        proto = self._constant_proto(tensor)
        if proto is not None:
            return int(proto.data_type)
        value = self._values.get(tensor)
        return int(value.type.tensor_type.elem_type) or None if value is not None else None

    def shape(self, tensor: str) -> tuple[int | None, ...] | None:
        """The shape, None for dimensions that are not numbers; None where even the rank is unknown."""
        proto = self._constant_proto(tensor)
        if proto is not None:
            return tuple(proto.dims)
        value = self._values.get(tensor)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        dims = value.type.tensor_type.shape.dim
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)

    @cached_property
    def captured(self) -> frozenset[str]:
        """The names that subgraphs (If, Loop, Scan bodies) read."""
        return frozenset(name for node in self.model.graph.node for name in captured_names(node))

    @cached_property
    def _values(self) -> dict[str, onnx.ValueInfoProto]:
        graph = self.model.graph
        return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}

    def _constant_proto(self, tensor: str) -> onnx.TensorProto | None:
        stored: onnx.TensorProto | None = self._initializers.get(tensor)
        if stored is not None:
            return stored
        node = self._producers.get(tensor)
        if node is None or node.op_type != "Constant":
            return None
        for attribute in node.attribute:
            if attribute.name == "value":
                value: onnx.TensorProto = attribute.t
                return value
        return None


def captured_names(node: onnx.NodeProto) -> frozenset[str]:
    """The names that the node's subgraphs read, those of their own tensors included."""
    return frozenset().union(*(_names_read(graph) for graph in subgraphs_of(node)))


def attribute_of(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of a node's attribute, or the default."""
    for attribute in node.attribute:
        if attribute.name == name:
            value: object = onnx.helper.get_attribute_value(attribute)
            return value
    return default


def _names_read(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.input if name}
    names |= {value.name for value in graph.output}
    for node in graph.node:
        for inner in subgraphs_of(node):
            names |= _names_read(inner)
    return names
