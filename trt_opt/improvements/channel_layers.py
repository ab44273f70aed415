"""What layers with constant weights, and normalisations, do with factors per channel: they take them up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import attribute_of
from trt_opt.improvements.channel_flow import ChannelFlow, ConstantUse, Rule
from trt_opt.improvements.channel_unknowns import Ids, along, shaped

Array = NDArray[np.generic]


def convolution(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Conv: weights [M, C/group, …], a factor per input channel and one per output channel."""
    weights = float_constant(flow, node, 1)
    if weights is None:
        return
    group, (outputs, inner) = int_attribute(node, "group", 1), weights.shape[:2]
    read = _read(flow, node, axis=1, channels=inner * group)
    if read is not None:
        rows = np.repeat(read.reshape(group, inner), outputs // group, axis=0)
        flow.uses.append(ConstantUse(node.name, 1, rows.reshape(outputs, inner, *[1] * (weights.ndim - 2)), 1))
    made = flow.unknowns.fresh(outputs)
    flow.uses.append(ConstantUse(node.name, 1, shaped(made, 0, weights.ndim), -1))
    _make(flow, node, shaped(made, 1, weights.ndim), made)


def transposed_convolution(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """ConvTranspose: weights [C, M/group, …]."""
    weights = float_constant(flow, node, 1)
    if weights is None:
        return
    group, (inputs, inner) = int_attribute(node, "group", 1), weights.shape[:2]
    read = _read(flow, node, axis=1, channels=inputs)
    if read is not None:
        flow.uses.append(ConstantUse(node.name, 1, shaped(read, 0, weights.ndim), 1))
    made = flow.unknowns.fresh(inner * group)
    rows = np.repeat(made.reshape(group, inner), inputs // group, axis=0)
    flow.uses.append(ConstantUse(node.name, 1, rows.reshape(inputs, inner, *[1] * (weights.ndim - 2)), -1))
    _make(flow, node, shaped(made, 1, weights.ndim), made)


def matrix_product(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """MatMul and Gemm by constant weights [K, N], or [N, K] with transB."""
    weights = float_constant(flow, node, 1)
    shape = flow.index.shape(node.input[0])
    if weights is None or weights.ndim != 2 or not shape or attribute_of(node, "transA", 0):
        return
    output_axis = 0 if attribute_of(node, "transB", 0) else 1
    read = _read(flow, node, axis=len(shape) - 1, channels=weights.shape[1 - output_axis])
    if read is not None:
        flow.uses.append(ConstantUse(node.name, 1, shaped(read, 1 - output_axis, 2), 1))
    made = flow.unknowns.fresh(weights.shape[output_axis])
    flow.uses.append(ConstantUse(node.name, 1, shaped(made, output_axis, 2), -1))
    _make(flow, node, shaped(made, -1, len(shape)), made)


def normalization(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Layer, instance and RMS normalisation: nothing passes, the scale and the bias start anew."""
    flow.unknowns.pin(flow.of(node.input[0]), f"{node.op_type} {node.name!r} normalises it")
    rank = len(flow.index.shape(node.input[0]) or ())
    last = node.op_type in ("LayerNormalization", "RMSNormalization")
    scale = float_constant(flow, node, 1)
    channels = (flow.index.shape(node.input[0]) or (None, None))[-1 if last else 1] if rank > 1 else None
    whole = last and int_attribute(node, "axis", -1) % max(rank, 1) != rank - 1
    if scale is None or whole or scale.shape != (channels,) or not _constant_bias(flow, node):
        return
    made = flow.unknowns.fresh(scale.size)
    flow.made(node, shaped(made, -1 if last else 1, rank))
    flow.uses.extend(ConstantUse(node.name, position, made, -1) for position in (1, 2) if _has(node, position))


def batch_normalization(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """The input's factors go into the scale and, inverted, into the mean; the output's into scale and bias."""
    constants = [float_constant(flow, node, position) for position in range(1, 5)]
    scale = constants[0]
    rank = flow.of(node.input[0]).ndim
    if any(found is None for found in constants) or scale is None or rank < 2 or any(node.output[1:]):
        return
    read = _read(flow, node, axis=1, channels=scale.size)
    if read is not None:
        flow.uses.extend((ConstantUse(node.name, 1, read, 1), ConstantUse(node.name, 3, read, -1)))
    made = flow.unknowns.fresh(scale.size)
    flow.uses.extend(ConstantUse(node.name, position, made, -1) for position in (1, 2))
    flow.made(node, shaped(made, 1, rank))


def float_constant(flow: ChannelFlow, node: onnx.NodeProto, position: int) -> Array | None:
    """A constant float32 operand; None for anything else."""
    found = flow.index.constant(node.input[position]) if _has(node, position) else None
    return found if found is not None and found.dtype == np.float32 else None


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """A whole number among a node's attributes."""
    found = attribute_of(node, name, default)
    return found if isinstance(found, int) else default


def _read(flow: ChannelFlow, node: onnx.NodeProto, *, axis: int, channels: int) -> Ids | None:
    """The unknowns of the input's channels, which the weights take up; None where there are none to take up."""
    ids = flow.of(node.input[0])
    vector = along(ids, axis) if ids.ndim > axis else None
    if vector is not None and vector.size in (1, channels):
        return np.broadcast_to(vector, (channels,))
    flow.unknowns.pin(ids, f"{node.op_type} {node.name!r} reads it with other factors than one per channel")
    return None


def _make(flow: ChannelFlow, node: onnx.NodeProto, ids: Ids, vector: Ids) -> None:
    """The output's unknowns begin here; a bias is divided by the factors as well."""
    flow.made(node, ids)
    if not _has(node, 2):
        return
    if float_constant(flow, node, 2) is None:
        flow.unknowns.pin(ids, f"the bias of {node.op_type} {node.name!r} is not constant")
        if not flow.is_constant(node.input[2]):
            flow.unknowns.pin(flow.of(node.input[2]), f"it is the bias of {node.op_type} {node.name!r}")
        return
    flow.uses.append(ConstantUse(node.name, 2, vector, -1))


def _constant_bias(flow: ChannelFlow, node: onnx.NodeProto) -> bool:
    return not _has(node, 2) or float_constant(flow, node, 2) is not None


def _has(node: onnx.NodeProto, position: int) -> bool:
    return len(node.input) > position and bool(node.input[position])


LAYER_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BatchNormalization": batch_normalization,
        "Conv": convolution,
        "ConvTranspose": transposed_convolution,
        "Gemm": matrix_product,
        "InstanceNormalization": normalization,
        "LayerNormalization": normalization,
        "MatMul": matrix_product,
        "RMSNormalization": normalization,
    }
)
