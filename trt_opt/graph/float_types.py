"""Half-precision models as float32 ones, so that one road leads from every float model to INT8 and FP16."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trt_opt.graph.names import fresh_name, tensor_names
from trt_opt.graph.tensors import graphs_of
from trt_opt.graph.writer import drop_unread

HALF_TYPES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def holds_half_floats(model: onnx.ModelProto) -> bool:
    """Whether weights or graph inputs are FP16 or BF16."""
    graph = model.graph
    return any(tensor.data_type in HALF_TYPES for tensor in graph.initializer) or any(
        value.type.tensor_type.elem_type in HALF_TYPES for value in graph.input
    )


def widened_to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in float32; graph inputs and outputs keep their type behind a Cast.

    Exact: every FP16 and BF16 number is a float32 number.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    constants = {tensor.name for tensor in wide.graph.initializer}
    ends = [value for value in (*wide.graph.input, *wide.graph.output) if value.name not in constants]
    outer = {value.name: value.type.tensor_type.elem_type for value in ends}
    for graph in graphs_of(wide.graph):
        _widen(graph)
    _cast_ends(wide.graph, {name: kind for name, kind in outer.items() if kind in HALF_TYPES})
    return wide


def with_fp16_io(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose float32 graph inputs and outputs are FP16, with a Cast behind each input and before each output."""
    narrow = onnx.ModelProto()
    narrow.CopyFrom(model)
    constants = {tensor.name for tensor in narrow.graph.initializer}
    ends: dict[str, int] = {
        value.name: TensorProto.FLOAT16
        for value in (*narrow.graph.input, *narrow.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in constants
    }
    _cast_ends(narrow.graph, ends)
    return narrow


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in HALF_TYPES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in HALF_TYPES:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in HALF_TYPES:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _cast_ends(graph: onnx.GraphProto, outer: dict[str, int]) -> None:
    """Gives the graph inputs and outputs named in `outer` that type; inside they stay float32 under another name."""
    taken = tensor_names(graph)
    renamed = {name: fresh_name(f"{name}_fp32", taken) for name in outer}
    for inner in graphs_of(graph):
        for node in inner.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        for value in inner.output if inner is not graph else ():
            value.name = renamed.get(value.name, value.name)
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
    _add_casts(graph, renamed, outer)


def _add_casts(graph: onnx.GraphProto, renamed: dict[str, str], outer: dict[str, int]) -> None:
    first: list[onnx.NodeProto] = []
    last: list[onnx.NodeProto] = []
    inputs = {value.name for value in graph.input}
    node_names = {node.name for node in graph.node}
    for value in (*graph.input, *graph.output):
        if value.name not in outer:
            continue
        value.type.tensor_type.elem_type = outer[value.name]
        wide = renamed[value.name]
        name = fresh_name(f"{wide}_cast", node_names)
        if value.name in inputs:
            first.append(helper.make_node("Cast", [value.name], [wide], name=name, to=TensorProto.FLOAT))
        else:
            last.append(helper.make_node("Cast", [wide], [value.name], name=name, to=outer[value.name]))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose constants behind DequantizeLinear are float32 constants; the model itself if it has none.

    Some exporters store weights in 8 bits though the model computes in float. Blocked quantisation is left as it is.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if _dequantizes_constants(node, constants)]
    if not nodes:
        return model
    floats = onnx.ModelProto()
    floats.CopyFrom(model)
    gone = {node.output[0] for node in nodes}
    kept = [node for node in floats.graph.node if not (node.op_type == "DequantizeLinear" and node.output[0] in gone)]
    del floats.graph.node[:]
    floats.graph.node.extend(kept)
    for node in nodes:
        array = dequantized(node, [numpy_helper.to_array(constants[name]) for name in node.input if name])
        floats.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    drop_unread(floats)
    return floats


def _dequantizes_constants(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> bool:
    blocked = any(attribute.name == "block_size" and attribute.i for attribute in node.attribute)
    return node.op_type == "DequantizeLinear" and not blocked and all(name in constants for name in node.input if name)


def dequantized(node: onnx.NodeProto, inputs: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    """What a DequantizeLinear without blocks gives of these inputs: (x - zero point) · scale, in float32."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    values, scale = inputs[0].astype(np.float32), inputs[1].astype(np.float32)
    zero = inputs[2].astype(np.float32) if len(inputs) > 2 else np.zeros_like(scale)
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((values - zero.reshape(scale.shape)) * scale).astype(np.float32).reshape(values.shape)
