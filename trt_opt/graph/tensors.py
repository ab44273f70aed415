"""The constants of a model: walking over them, their size, and their values however they are stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

LARGE_TENSOR_BYTES = 16 * 1024
"""Tensors above this are weights; what shape inference and version conversion look at (shapes, axes) is far smaller."""


def subgraphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among a node's attributes: the branches of If, the body of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph itself, then all graphs nested in it, at any depth."""
    yield graph
    for node in graph.node:
        for subgraph in subgraphs_of(node):
            yield from graphs_of(subgraph)


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in the model: initialisers (sparse ones too), attributes; in subgraphs and functions too."""
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            yield from _attribute_tensors(node)
    for function in model.functions:
        for node in function.node:
            yield from _attribute_tensors(node)
            for subgraph in subgraphs_of(node):
                for graph in graphs_of(subgraph):
                    yield from graph.initializer
                    for inner in graph.node:
                        yield from _attribute_tensors(inner)


def tensor_bytes(tensor: TensorProto) -> int:
    """The bytes a tensor's elements take, from its shape and type; strings count what is stored."""
    if tensor.data_type == TensorProto.STRING:
        return sum(len(item) for item in tensor.string_data)
    elements = int(np.prod(tensor.dims, dtype=np.int64)) if tensor.dims else 1
    return -(-elements * element_bits(tensor.data_type) // 8)


def element_bits(data_type: int) -> int:
    """The bits of one element of an ONNX type as stored: 4 for INT4, 32 for FLOAT."""
    name = TensorProto.DataType.Name(data_type)
    if name.endswith(("INT4", "FLOAT4E2M1")):
        return 4
    if name.endswith("INT2"):
        return 2
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def array_from_tensor(tensor: TensorProto) -> NDArray[np.generic]:
    """The values of a tensor whose data is in memory, whichever field holds them."""
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def raw_bytes(tensor: TensorProto) -> bytes:
    """The elements as `raw_data` holds them, little-endian and narrow types packed, whichever field they are in."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(onnx.numpy_helper.from_array(array_from_tensor(tensor)).raw_data)


def weight_bytes(model: ModelProto) -> int:
    """The bytes of all tensors in the model together."""
    return sum(tensor_bytes(tensor) for tensor in tensors_of(model))


def without_large_tensors(model: ModelProto, limit_bytes: int = LARGE_TENSOR_BYTES) -> ModelProto:
    """A copy of the model whose large initialisers have become graph inputs.

    For the checker, shape inference and version conversion: they take the model as one message, which may not exceed
    2 GB, and copying gigabytes to ask a question about the graph is slow in any case.
    """
    light = model_without_initialisers(model)
    declared = {value.name for value in light.graph.input}
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) <= limit_bytes or tensor.data_type == TensorProto.STRING:
            light.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in declared:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def model_without_graph(model: ModelProto) -> ModelProto:
    """A copy of everything in the model but its graph: versions, opsets, functions, metadata."""
    copy = ModelProto()
    _copy_fields(model, copy, except_for="graph")
    return copy


def model_without_initialisers(model: ModelProto) -> ModelProto:
    """A copy of the model but for the main graph's initialisers, which are most of its bytes."""
    copy = model_without_graph(model)
    _copy_fields(model.graph, copy.graph, except_for="initializer")
    return copy


def _copy_fields(source: ModelProto | GraphProto, target: ModelProto | GraphProto, *, except_for: str) -> None:
    for field, value in source.ListFields():
        if field.name == except_for:
            continue
        if hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)


def _attribute_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.type == AttributeProto.TENSORS:
            yield from attribute.tensors
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
