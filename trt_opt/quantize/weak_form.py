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

from trt_opt.graph.tensors import array_from_tensor
from trt_opt.graph.writer import GraphWriter, drop_unread

PAIR = ("QuantizeLinear", "DequantizeLinear")

NONE_PINNED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class WeakForm:
    """A graph in float32 and Q/DQ, and the builder's flags that go with it.

    Attributes:
        model: The graph.
        fp16: Whether the builder may use FP16.
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
    int8 = any(node.op_type in PAIR for node in model.graph.node)
    written = _with_float_weights(model) if int8 else model
    return WeakForm(written, fp16, int8 or calibrated, tuple(pinned) if fp16 else (), calibrated)


def _with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    writer = GraphWriter(model)
    constants = {tensor.name: tensor for tensor in writer.model.graph.initializer}
    for node in list(writer.model.graph.node):
        if node.op_type not in PAIR:
            continue
        _complete_zero_point(writer, node, constants)
        stored = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and stored is not None and stored.data_type == TensorProto.INT8:
            _quantize_from_float(writer, node, constants)
    finished = writer.finished()
    drop_unread(finished)
    return finished


def _complete_zero_point(writer: GraphWriter, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Gives a pair the zero-point of its scale's shape, which ONNX lets one leave out."""
    scale = constants.get(node.input[1])
    given = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scale is None or (given is not None and list(given.dims) == list(scale.dims)):
        return
    zeros = writer.constant(f"{node.input[1]}_zero_point", np.zeros(list(scale.dims), np.int8))
    del node.input[2:]
    node.input.append(zeros)


def _quantize_from_float(writer: GraphWriter, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Puts the floats that an INT8 initialiser stands for, and their QuantizeLinear, before a DequantizeLinear."""
    codes = array_from_tensor(constants[node.input[0]])
    scale = array_from_tensor(constants[node.input[1]]).astype(np.float32)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    weights = writer.constant(f"{node.input[0]}_float", _floats(codes, scale, axis))
    quantized = writer.tensor(f"{node.input[0]}_quantized")
    pair = writer.made("QuantizeLinear", [weights, *node.input[1:3]], quantized)
    pair.attribute.extend(attribute for attribute in node.attribute if attribute.name == "axis")
    writer.before(node.name, pair)
    node.input[0] = quantized


def _floats(codes: NDArray[np.generic], scale: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    if scale.size > 1:
        shape = [1] * codes.ndim
        shape[axis] = -1
        scale = scale.reshape(shape)
    return np.asarray(codes, np.float32) * scale
