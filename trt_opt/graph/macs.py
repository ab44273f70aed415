"""How many multiply-accumulate operations (MACs) a graph's layers do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.inference import inferred
from trt_opt.graph.tensors import without_large_tensors

COUNTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

NOT_COUNTED_OPS = frozenset({"LSTM", "GRU", "RNN", "Attention", "Einsum", "If", "Loop", "Scan"})
"""They multiply too, but not by a formula of their shapes alone that is worth having here."""


def macs_by_node(index: GraphIndex) -> dict[str, int | None]:
    """Node → its MACs for one run, None where a shape is not known, for every Conv, ConvTranspose, Gemm and MatMul.

    Biases and the layers inside subgraphs are left out.

    Args:
        index: A graph with shapes inferred.
    """
    nodes = index.model.graph.node
    return {
        node.name: _macs(node, index)
        for node in nodes
        if node.op_type in COUNTED_OPS and node.domain in ("", "ai.onnx")
    }


def with_input_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A copy of the model whose graph inputs have these shapes, an unknown first dimension being 1; shapes inferred.

    Args:
        model: The model.
        shapes: Graph input → its shape; inputs not named keep their own.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        given = shapes.get(value.name, ())
        for axis, dim in enumerate(dims):
            if len(given) == len(dims):
                dim.dim_value = given[axis]
            elif axis == 0 and not dim.HasField("dim_value"):
                dim.dim_value = 1
    # What was inferred from symbols must not stand in the way of numbers.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    types = inferred(without_large_tensors(fixed)).graph
    fixed.graph.value_info.extend(types.value_info)
    del fixed.graph.output[:]
    fixed.graph.output.extend(types.output)
    return fixed


def _macs(node: onnx.NodeProto, index: GraphIndex) -> int | None:
    first, second = (index.shape(name) for name in node.input[:2])
    match node.op_type:
        case "Conv":
            return _product(index.shape(node.output[0]), second and second[1:])
        case "ConvTranspose":
            return _product(first, second and second[1:])
        case "Gemm":
            reduced = slice(0, 1) if attribute_of(node, "transA", 0) else slice(1, 2)
            return _product(index.shape(node.output[0]), first and first[reduced])
        case _:
            return _product(index.shape(node.output[0]), first and first[-1:])


def _product(*shapes: tuple[int | None, ...] | None) -> int | None:
    """The product of all dimensions; None where one is unknown."""
    sizes: list[int] = []
    for shape in shapes:
        if shape is None:
            return None
        sizes += [size for size in shape if size is not None]
        if None in shape:
            return None
    return math.prod(sizes)
