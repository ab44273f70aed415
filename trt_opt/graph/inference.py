"""Shape inference that cannot be made to take all memory."""

from __future__ import annotations

import warnings

import onnx
from onnx import ModelProto, ValueInfoProto

from trt_opt.graph.tensors import graphs_of

_LARGEST_PROPAGATED_SHAPE = 1 << 16
_LARGEST_RANK = 8

_LARGEST_VECTOR = 1 << 20
"""onnx takes some 200 bytes per element of a one-dimensional tensor whose values it follows."""

_MAKE_LONG_VECTORS = frozenset({"ConstantOfShape", "Expand", "Pad", "Range", "Resize", "Tile", "Upsample"})


def inferred(light: ModelProto) -> ModelProto:
    """The model with all shapes ONNX can tell, its own claims included; the model itself where inference raises."""
    return _infer(light, data_prop=_is_safe_to_propagate(light))


def _infer(light: ModelProto, *, data_prop: bool) -> ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return onnx.shape_inference.infer_shapes(light, strict_mode=False, data_prop=data_prop)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            # Even in lenient mode inference raises for some graphs; what the file itself declares is then all there is.
            return light


def _is_safe_to_propagate(light: ModelProto) -> bool:
    """Whether onnx can follow the values of shape-like tensors through the graph.

    It takes every one-dimensional tensor for a shape and joins the lists of dimensions at each Concat without a limit
    (onnx 1.23): a chain of doublings takes all memory, and so does a vector that a Tile or Range makes long.
    """
    grows = any(node.op_type in _MAKE_LONG_VECTORS for graph in graphs_of(light.graph) for node in graph.node)
    if not grows and _longest_shape(light, {}) <= _LARGEST_PROPAGATED_SHAPE:
        return True
    graph = _infer(light, data_prop=False).graph
    lengths = {value.name: _length(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    if max((length or 0 for length in lengths.values()), default=0) > _LARGEST_VECTOR:
        return False
    return _longest_shape(light, lengths) <= _LARGEST_PROPAGATED_SHAPE


def _longest_shape(light: ModelProto, known: dict[str, int | None]) -> int:
    """An estimate, from above, of the longest list of dimensions that any Concat makes."""
    lengths: dict[str, int] = {}
    longest = 0
    for graph in graphs_of(light.graph):
        for tensor in graph.initializer:
            lengths[tensor.name] = tensor.dims[0] if len(tensor.dims) == 1 else 1
        for node in graph.node:
            read = [lengths.get(name, _LARGEST_RANK) for name in node.input]
            made = sum(read) if node.op_type == "Concat" else max(read, default=_LARGEST_RANK)
            for name in node.output:
                length = known.get(name)
                lengths[name] = made if length is None else length
                if node.op_type == "Concat":
                    longest = max(longest, lengths[name])
    return longest


def _length(value: ValueInfoProto) -> int | None:
    """The length of a one-dimensional tensor, 0 for other ranks, None where it is not known."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    if len(dimensions) != 1:
        return 0
    return int(dimensions[0].dim_value) if dimensions[0].HasField("dim_value") else None
