"""A convolution of stored weights and what multiplies or adds per channel behind it, as one convolution.

PyTorch's quantisation-aware training exports Conv, Div, BatchNormalization: the stored weights are those of the folded
convolution, and the Div undoes the fold before the normalisation (Krishnamoorthi, "Quantizing deep convolutional
networks for efficient inference", 2018, section 3.2.2). Factors belong into the scales, which keeps the integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.writer import GraphWriter, drop_unread
from trt_opt.quantize.importing.constants import Array, ConstantReader, axis_of, integer_limits, spread
from trt_opt.quantize.importing.held_integers import StoredConstant, UnreadableError
from trt_opt.quantize.importing.node_reading import input_of, read_nodes
from trt_opt.quantize.importing.stored_constants import read_constant
from trt_opt.values.changes import Change

_FOLDED = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Sub"})

_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}
"""The weights' axis of output channels, in groups for ConvTranspose."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """A model, and what was folded in it."""

    model: onnx.ModelProto
    changed: tuple[Change, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Affine:
    """factor · x + addend, per output channel."""

    factor: Vector
    addend: Vector


def with_factors_in_scales(model: onnx.ModelProto) -> Folded:
    """Folds Mul, Div, Add, Sub and BatchNormalization per channel into the convolution of stored weights before them.

    Args:
        model: Node names unique; comes back itself where nothing is folded.
    """
    changed: list[Change] = []
    while True:
        index = GraphIndex(model)
        constant = ConstantReader(index)
        found = [entry for node in model.graph.node if (entry := _chain(node, index, constant)) is not None]
        if not found:
            return Folded(model, tuple(changed))
        writer = GraphWriter(model)
        for conv, follower, affine, stored in found:
            _write(writer, index, (conv, follower), affine, stored)
            changed.append(Change(follower.name, f"folded into the scales and the bias of {conv.name!r}"))
        model = _without_unread(writer.finished())


_Chain = tuple[onnx.NodeProto, onnx.NodeProto, _Affine, StoredConstant]


def _chain(conv: onnx.NodeProto, index: GraphIndex, constant: ConstantReader) -> _Chain | None:
    """The convolution, its only reader, and what becomes of the weights; None where nothing can be folded."""
    if conv.op_type not in _CONVOLUTIONS or conv.domain or (input_of(conv, 2) and constant(conv.input[2]) is None):
        return None
    readers = index.readers(conv.output[0])
    if len(readers) != 1 or index.is_read_elsewhere(conv.output[0]) or readers[0][0].op_type not in _FOLDED:
        return None
    stored = _stored(conv, index, constant)
    if stored is None:
        return None
    channels = stored.integers.shape[_CONVOLUTIONS[conv.op_type]]
    affine = _affine(*readers[0], (channels, stored.integers.ndim), constant)
    if affine is None or not (np.isfinite(affine.factor).all() and np.isfinite(affine.addend).all()):
        return None
    scaled = _scaled(stored, affine.factor)
    return None if scaled is None else (conv, readers[0][0], affine, scaled)


def _stored(conv: onnx.NodeProto, index: GraphIndex, constant: ConstantReader) -> StoredConstant | None:
    """The weights, with one scale per output channel at most."""
    maker = index.producer(conv.input[1])
    if maker is None or maker.op_type != "DequantizeLinear" or attribute_of(maker, "block_size", 0):
        return None
    if conv.op_type == "ConvTranspose" and attribute_of(conv, "group", 1) != 1:
        return None
    integers, scale, zero = (constant(input_of(maker, at)) for at in range(3))
    if integers is None or scale is None or scale.dtype != np.float32 or integer_limits(integers.dtype) is None:
        return None
    try:
        stored = read_constant(integers, scale, zero, axis_of(maker) % integers.ndim)
    except UnreadableError:
        return None
    axis = _CONVOLUTIONS[conv.op_type]
    return replace(stored, axis=axis) if stored.scale.ndim == 0 or stored.axis == axis else None


def _affine(node: onnx.NodeProto, position: int, size: tuple[int, int], constant: ConstantReader) -> _Affine | None:
    """What the node does to each channel.

    Args:
        node: The convolution's reader.
        position: Of the convolution's result among its inputs.
        size: Channels, and rank of the result.
        constant: Reads constants.
    """
    channels, rank = size
    if node.op_type == "BatchNormalization":
        return _normalization(node, channels, constant) if position == 0 else None
    if position == 1 and node.op_type in ("Div", "Sub"):
        return None
    operand = constant(input_of(node, 1 - position))
    vector = None if operand is None else _per_channel(operand, channels, rank)
    if vector is None:
        return None
    zeros, ones = np.zeros(channels), np.ones(channels)
    match node.op_type:
        case "Mul":
            return _Affine(vector, zeros)
        case "Div":
            return _Affine(1 / vector, zeros) if vector.all() else None
        case "Add":
            return _Affine(ones, vector)
        case _:
            return _Affine(ones, -vector)


def _per_channel(operand: Array, channels: int, rank: int) -> Vector | None:
    """A constant that broadcasts over [N, C, ...] as one number per channel; None where it is not that."""
    values = operand.astype(np.float64)
    if values.size == 1 and values.ndim <= rank:
        return np.full(channels, float(values.reshape(-1)[0]))
    if values.ndim > rank or values.ndim < rank - 1 or values.size != channels or values.shape[1 - rank] != channels:
        return None
    return values.reshape(-1)


def _normalization(node: onnx.NodeProto, channels: int, constant: ConstantReader) -> _Affine | None:
    values = [constant(input_of(node, at)) for at in range(1, 5)]
    if len(node.output) > 1 or attribute_of(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (None if value is None else value.astype(np.float64) for value in values)
    if gamma is None or beta is None or mean is None or variance is None or gamma.shape != (channels,):
        return None
    factor = gamma / np.sqrt(variance + float(str(attribute_of(node, "epsilon", 1e-5))))
    return _Affine(factor, beta - mean * factor)


def _scaled(stored: StoredConstant, factor: Vector) -> StoredConstant | None:
    """The weights times a factor per channel, its sign in the integers; None where they cannot hold it."""
    channels = (factor.size,)
    scale = np.broadcast_to(stored.scale.astype(np.float64), channels) * np.abs(factor)
    zero = np.broadcast_to(stored.zero.astype(np.int64), channels)
    signs = spread(np.sign(factor).astype(np.int64), stored.integers.shape, stored.axis)
    offset = spread(zero, stored.integers.shape, stored.axis).astype(np.int64)
    integers = offset + signs * (stored.integers.astype(np.int64) - offset)
    limits = integer_limits(stored.integers.dtype)
    steps = np.where(factor == 0, 1, scale).astype(np.float32)
    if limits is None or integers.min(initial=0) < limits[0] or integers.max(initial=0) > limits[1]:
        return None
    if not (np.isfinite(steps) & (steps > 0)).all():
        return None
    dtype = stored.integers.dtype
    if (factor == factor[0]).all() and stored.scale.ndim == 0:
        return replace(stored, integers=integers.astype(dtype), scale=np.asarray(steps[0]))
    return replace(stored, integers=integers.astype(dtype), scale=steps, zero=zero.astype(np.int32).astype(dtype))


def _write(
    writer: GraphWriter,
    index: GraphIndex,
    nodes: tuple[onnx.NodeProto, onnx.NodeProto],
    affine: _Affine,
    stored: StoredConstant,
) -> None:
    conv, follower = writer.nodes[nodes[0].name], nodes[1]
    weights = writer.tensor(f"{conv.input[1]}_scaled")
    inputs = [
        writer.constant(f"{weights}_{part}", value)
        for part, value in (("integers", stored.integers), ("scale", stored.scale), ("zero_point", stored.zero))
    ]
    writer.before(conv.name, writer.made("DequantizeLinear", inputs, weights, **stored.attributes))
    bias = affine.addend
    if input_of(conv, 2):
        old = ConstantReader(index)(conv.input[2])
        bias = bias + (0 if old is None else old.astype(np.float64) * affine.factor)
    added = [writer.constant(f"{conv.name}_bias", bias.astype(np.float32))] if bias.any() or input_of(conv, 2) else []
    conv.input[:] = [conv.input[0], weights, *added]
    conv.output[:] = follower.output
    writer.remove(follower.name)


def _without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out, in place, the nodes that nothing reads any more."""
    kept = read_nodes(model.graph.node, [value.name for value in model.graph.output])
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unread(model)
    return model
