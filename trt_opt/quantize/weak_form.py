"""The graph for builders that are told precisions by flags: TensorRT 8.5 to 9, and implicit quantisation up to 10.

Their parsers read every scale as float32 and want a zero-point of the scale's size (onnx-tensorrt 8.5 and 8.6,
QuantDequantLinearHelper); weights are quantised from float by a QuantizeLinear of their own, the form that NVIDIA's
developer guide for TensorRT 8 describes. FP16 is a flag of the builder; layers that FP16 cannot hold are
pinned by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import attribute_of, captured_names
from trt_opt.graph.query import all_nodes
from trt_opt.graph.tensors import array_from_tensor, subgraphs_of
from trt_opt.graph.writer import GraphWriter

PAIR = ("QuantizeLinear", "DequantizeLinear")

NONE_PINNED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class WeakForm:
    """A graph in float32 and Q/DQ, and the builder's flags that go with it.

    Attributes:
        model: The graph.
        fp16: Whether the builder may use FP16: it was asked for, or the graph's ends are FP16.
        int8: Whether it may use INT8: there are Q/DQ pairs, or a calibration tells the ranges.
        float32_layers: Nodes that stay FP32 although it may use FP16.
        calibrated: Whether the ranges come with a calibration and not in Q/DQ pairs.
    """

    model: onnx.ModelProto
    fp16: bool
    int8: bool
    float32_layers: tuple[str, ...] = ()
    calibrated: bool = False


def weak_form(
    model: onnx.ModelProto, *, fp16: bool, pinned: Mapping[str, str] = NONE_PINNED, calibrated: bool = False
) -> WeakForm:
    """The form of a graph for builders with precision flags; the same numbers.

    Args:
        model: Float32, with or without INT8 Q/DQ pairs; not changed.
        fp16: Whether the builder may use FP16.
        pinned: Node → why it must stay FP32.
        calibrated: Whether the ranges come with a calibration.
    """
    int8 = any(node.op_type in PAIR for node in all_nodes(model))
    written = _with_float_weights(model) if int8 else model
    if not fp16 and _has_halves(written):
        return WeakForm(written, True, int8 or calibrated, () if calibrated else _floats_alone(written), calibrated)
    return WeakForm(written, fp16, int8 or calibrated, tuple(pinned) if fp16 else (), calibrated)


def _has_halves(model: onnx.ModelProto) -> bool:
    """Whether the graph has FP16 tensors although nobody asked for FP16: ends that came so, and the casts at them."""
    casts = (node for node in all_nodes(model) if node.op_type == "Cast")
    kinds = {attribute_of(node, "to") for node in casts}
    kinds |= {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    return TensorProto.FLOAT16 in kinds


def _floats_alone(model: onnx.ModelProto) -> tuple[str, ...]:
    """The nodes that must stay FP32 where FP16 is a flag for the ends' sake; Q/DQ decides of the others."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    left = (*PAIR, "Constant", "Cast")
    return tuple(
        node.name for node in model.graph.node if node.op_type not in left and dequantized.isdisjoint(node.input)
    )


def _with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    writer = GraphWriter(model)
    _write_float_weights(writer, writer.model.graph, {})
    return writer.finished()


def _write_float_weights(writer: GraphWriter, graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto]) -> None:
    """Does so in a graph and in the bodies of its nodes; what is added lies in the outermost graph, seen by all.

    Args:
        writer: Of the whole model.
        graph: Its graph, or a body in it.
        outer: The constants that the body sees from outside.
    """
    constants = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    ordered: list[onnx.NodeProto] = []
    for node in graph.node:
        for body in subgraphs_of(node):
            _write_float_weights(writer, body, constants)
        if node.op_type in PAIR:
            _complete_zero_point(writer, node, constants)
            stored = constants.get(node.input[0])
            if node.op_type == "DequantizeLinear" and stored is not None and stored.data_type == TensorProto.INT8:
                ordered.append(_quantize_from_float(writer, node, constants))
        ordered.append(node)
    del graph.node[:]
    graph.node.extend(ordered)
    if graph is not writer.model.graph:  # the writer looks after that one
        _drop_unread_constants(graph)


def _drop_unread_constants(body: onnx.GraphProto) -> None:
    read = {name for node in body.node for name in (*node.input, *captured_names(node))}
    read |= {value.name for value in body.output}
    kept = [tensor for tensor in body.initializer if tensor.name in read]
    del body.initializer[:]
    body.initializer.extend(kept)


def _complete_zero_point(writer: GraphWriter, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Gives a pair the zero-point of its scale's shape, which ONNX lets one leave out."""
    scale = constants.get(node.input[1])
    given = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scale is None or (given is not None and list(given.dims) == list(scale.dims)):
        return
    zeros = writer.constant(f"{node.input[1]}_zero_point", np.zeros(list(scale.dims), np.int8))
    del node.input[2:]
    node.input.append(zeros)


def _quantize_from_float(
    writer: GraphWriter, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """Lets a DequantizeLinear read the floats its INT8 initialiser stands for, through the QuantizeLinear returned."""
    codes = array_from_tensor(constants[node.input[0]])
    scale = array_from_tensor(constants[node.input[1]]).astype(np.float32)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    weights = writer.constant(f"{node.input[0]}_float", _floats(codes, scale, axis))
    quantized = writer.tensor(f"{node.input[0]}_quantized")
    pair = writer.made("QuantizeLinear", [weights, *node.input[1:3]], quantized)
    pair.attribute.extend(attribute for attribute in node.attribute if attribute.name == "axis")
    node.input[0] = quantized
    return pair


def _floats(codes: NDArray[np.generic], scale: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    if scale.size > 1:
        shape = [1] * codes.ndim
        shape[axis] = -1
        scale = scale.reshape(shape)
    return np.asarray(codes, np.float32) * scale
