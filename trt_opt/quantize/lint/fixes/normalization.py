"""BatchNormalization into the convolution before it, whose weights are quantised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import attribute_of
from trt_opt.quantize.lint.fixes.constants import evaluated
from trt_opt.quantize.lint.fixes.mender import Mender

SCALES_PER_CHANNEL_SINCE = 13
"""The opset in which DequantizeLinear has an axis."""

LOWEST = -128

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Affine:
    """y · gain + shift, each float64 [channels]."""

    gain: Floats
    shift: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """Stored weights: integers INT8 [channels, …], scales [channels]."""

    integers: NDArray[np.int8]
    scales: NDArray[np.floating]


def folded_normalizations(mender: Mender) -> None:
    """The gain goes into the weights' scales, its sign into their integers, the shift into the bias.

    Weights w = s · q become |gain| · s · (sign(gain) · q): the same products, rounded once more where the scale is
    rounded to its type.
    """
    for node in mender.graph.nodes:
        layer = mender.index.producer(node.input[0]) if node.op_type == "BatchNormalization" else None
        if layer is None or layer.op_type != "Conv" or mender.graph.opset < SCALES_PER_CHANNEL_SINCE:
            continue
        affine = _affine(node, mender)
        weights = _weights(layer, mender)
        bias = _bias(layer, mender)
        if affine is None or weights is None or bias is None or weights.scales.size != affine.gain.size:
            continue
        scaled = _scaled(weights, affine.gain)
        alone = len(mender.index.readers(layer.output[0])) == 1 and not mender.index.is_read_elsewhere(layer.output[0])
        if scaled is not None and alone and mender.may_edit(node, layer):
            _write(mender, node, layer, scaled, bias * affine.gain + affine.shift)


def _affine(node: onnx.NodeProto, mender: Mender) -> _Affine | None:
    """None where it is not one gain and shift per channel."""
    arrays = [mender.graph.constant(name) for name in node.input[1:5]]
    constants = [np.asarray(array, np.float64) for array in arrays if array is not None]
    if len(constants) < 4 or attribute_of(node, "training_mode", 0) or len([name for name in node.output if name]) > 1:
        return None
    weight, bias, mean, variance = constants
    epsilon = attribute_of(node, "epsilon", 1e-5)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = weight / np.sqrt(variance + (epsilon if isinstance(epsilon, float) else 1e-5))
    shift = bias - gain * mean
    return _Affine(gain, shift) if np.isfinite(gain).all() and np.isfinite(shift).all() else None


def _weights(layer: onnx.NodeProto, mender: Mender) -> _Weights | None:
    """None where they are not constant INT8 around zero, one scale per output channel or one for all."""
    graph = mender.graph
    dequantizer = graph.dequantizer_of(layer.input[1])
    if dequantizer is None or not graph.is_symmetric(dequantizer):
        return None
    quantizer = mender.index.producer(dequantizer.input[0])
    if quantizer is not None and (not graph.is_q(quantizer) or graph.grid(quantizer) != graph.grid(dequantizer)):
        return None
    integers = mender.graph.constant(dequantizer.input[0]) if quantizer is None else evaluated(quantizer, mender)
    scales = mender.graph.constant(dequantizer.input[1])
    if integers is None or scales is None or integers.dtype != np.int8 or attribute_of(dequantizer, "block_size", 0):
        return None
    axis = attribute_of(dequantizer, "axis", 1)
    if scales.size not in (1, integers.shape[0]) or (scales.size > 1 and axis not in (0, -integers.ndim)):
        return None
    return _Weights(integers.astype(np.int8), np.broadcast_to(scales.ravel(), integers.shape[:1]).astype(scales.dtype))


def _bias(layer: onnx.NodeProto, mender: Mender) -> Floats | None:
    """0 where there is none; None where it is not constant."""
    if len(layer.input) < 3 or not layer.input[2]:
        return np.zeros(1)
    found = mender.graph.constant(layer.input[2])
    return None if found is None else np.asarray(found, np.float64)


def _scaled(weights: _Weights, gain: Floats) -> _Weights | None:
    """None where the result does not fit: -128 has no opposite, scales must stay normal numbers."""
    along = (slice(None), *(None,) * (weights.integers.ndim - 1))
    signs = np.sign(gain).astype(np.int16)
    if np.any((weights.integers == LOWEST) & (signs[along] < 0)):
        return None
    integers = (weights.integers * signs[along]).astype(np.int8)
    kind = weights.scales.dtype
    scales = np.where(gain == 0, weights.scales, weights.scales * np.abs(gain)).astype(kind)
    fits = np.isfinite(scales) & (scales >= np.finfo(kind).tiny)
    return _Weights(integers, scales) if fits.all() else None


def _write(mender: Mender, node: onnx.NodeProto, layer: onnx.NodeProto, weights: _Weights, bias: Floats) -> None:
    writer, name = mender.writer, layer.input[1]
    inputs = [
        writer.constant(f"{name}_int8", weights.integers),
        writer.constant(f"{name}_scale", weights.scales),
        writer.constant("zero_point", np.zeros(weights.scales.shape, np.int8)),
    ]
    dequantized = writer.tensor(f"{name}_folded")
    writer.before(layer.name, writer.made("DequantizeLinear", inputs, dequantized, axis=0))
    kind = mender.index.element_type(name) or TensorProto.FLOAT
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if weights.scales.dtype != dtype:
        cast = writer.tensor(f"{name}_cast")
        writer.before(layer.name, writer.made("Cast", [dequantized], cast, to=kind))
        dequantized = cast
    edited = writer.nodes[layer.name]
    edited.input[:] = [edited.input[0], dequantized, writer.constant(f"{name}_bias", bias.astype(dtype))]
    edited.output[0] = node.output[0]
    writer.remove(node.name)
    mender.did(node.name, f"folded into the scales and the bias of {layer.name!r}: the same products")
