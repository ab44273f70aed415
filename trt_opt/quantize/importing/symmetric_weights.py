"""Quantised weights without zero-points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.writer import GraphWriter
from trt_opt.quantize.importing.constants import fits, spread
from trt_opt.values.importing import ImportedWeights
from trt_opt.values.rewriting import Change, Decline

_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True, slots=True, eq=False)
class SymmetricWeights:
    """A model whose 8-bit weights have no zero-points, as far as that goes."""

    model: onnx.ModelProto
    weights: tuple[ImportedWeights, ...]
    changed: tuple[Change, ...]
    declined: tuple[Decline, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """Integers and scales as they are to be stored: zero-points are zero."""

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    becomes: ImportedWeights
    what: str


def with_symmetric_weights(model: onnx.ModelProto) -> SymmetricWeights:
    """Takes the zero-points out of every 8-bit constant behind a DequantizeLinear.

    Where all q - zero_point fit INT8 that is exact; otherwise each scale becomes one that reaches the largest
    magnitude, and the weights are rounded again. A channel whose scale is 0 holds zeros: its scale becomes 1.

    Args:
        model: Node names unique; comes back itself where nothing changes.
    """
    index = GraphIndex(model)
    weights: list[ImportedWeights] = []
    mended: list[tuple[onnx.NodeProto, _Stored]] = []
    declined: list[Decline] = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or index.element_type(node.input[0]) not in _EIGHT_BITS:
            continue
        if not index.is_constant(node.input[0]):
            continue
        stored = _stored(node, index)
        if isinstance(stored, str):
            declined.append(Decline(node.name, stored))
        elif isinstance(stored, ImportedWeights):
            weights.append(stored)
        else:
            weights.append(stored.becomes)
            mended.append((node, stored))
    changed = tuple(Change(node.name, stored.what) for node, stored in mended)
    return SymmetricWeights(_written(model, mended) if mended else model, tuple(weights), changed, tuple(declined))


def _written(model: onnx.ModelProto, mended: list[tuple[onnx.NodeProto, _Stored]]) -> onnx.ModelProto:
    writer = GraphWriter(model)
    for node, stored in mended:
        _write(writer, node, stored)
    return writer.finished()


def _write(writer: GraphWriter, node: onnx.NodeProto, stored: _Stored) -> None:
    edited = writer.nodes[node.name]
    inputs = [
        writer.constant(f"{node.input[0]}_symmetric", stored.integers),
        writer.constant(f"{node.input[1]}_symmetric", stored.scales),
        writer.constant(f"{node.input[0]}_zero_point", np.zeros(stored.scales.shape, np.int8)),
    ]
    del edited.input[:]
    edited.input.extend(inputs)


def _stored(node: onnx.NodeProto, index: GraphIndex) -> _Stored | ImportedWeights | str:
    """What to store, or that it stays, or why it cannot be."""
    integers, scales = index.constant(node.input[0]), index.constant(node.input[1])
    has_zero = len(node.input) > 2 and bool(node.input[2])
    zeros = index.constant(node.input[2]) if has_zero else np.zeros((), np.int8)
    if integers is None or scales is None or zeros is None:
        return "the scale or zero-point of its weights is only known at run time"
    axis = int(str(attribute_of(node, "axis", 1)))
    block = int(str(attribute_of(node, "block_size", 0)))
    if not fits(scales, integers.shape, axis, block) or not fits(zeros, integers.shape, axis, block):
        return "its scales or zero-points do not fit its weights"
    difference = integers.astype(np.int64) - spread(zeros.astype(np.int64), integers.shape, axis, block)
    dead = _dead_channels(scales, difference, axis, block)
    if isinstance(dead, str):
        return dead
    if scales.dtype != np.float32 and (integers.dtype != np.int8 or zeros.any() or dead.any()):
        return "the scale of its weights is not FLOAT"
    tidy = np.where(dead, np.float32(1), scales).astype(np.float32)
    if integers.dtype == np.int8 and not zeros.any():
        kept = ImportedWeights(node.output[0], "kept")
        mended = ImportedWeights(node.output[0], "folded")
        return _Stored(integers.astype(np.int8), tidy, mended, "scale 0 of zeros became 1") if dead.any() else kept
    if difference.min(initial=0) >= -128 and difference.max(initial=0) <= 127:
        folded = ImportedWeights(node.output[0], "folded")
        return _Stored(difference.astype(np.int8), tidy, folded, "zero-points subtracted from the weights")
    if block:
        return "weights in blocks with zero-points do not fit INT8"
    return _regridded(node.output[0], difference, tidy, axis)


def _regridded(tensor: str, difference: NDArray[np.int64], scales: NDArray[np.float32], axis: int) -> _Stored:
    exact = difference * spread(scales.astype(np.float64), difference.shape, axis)
    others = tuple(at for at in range(exact.ndim) if scales.size == 1 or at != axis % exact.ndim)
    largest = np.maximum(exact.max(others) / 127, -exact.min(others) / 128).reshape(scales.shape)
    wider = np.maximum(scales, largest.astype(np.float32))
    step = spread(wider.astype(np.float64), exact.shape, axis)
    integers = np.clip(np.round(exact / step), -128, 127)
    noise, signal = np.square(exact - integers * step).sum(), np.square(exact).sum()
    sqnr_db = float(10 * np.log10(signal / noise)) if noise else None
    cost = "exactly" if sqnr_db is None else f"at {sqnr_db:.1f} dB"
    found = ImportedWeights(tensor, "regridded", sqnr_db)
    return _Stored(integers.astype(np.int8), wider, found, f"weights rounded to symmetric grids {cost}")


def _dead_channels(
    scales: NDArray[np.generic], difference: NDArray[np.int64], axis: int, block: int
) -> NDArray[np.bool_] | str:
    """Which scales are zero before zeros alone; the text says which scale is none at all."""
    wide = scales.astype(np.float32)
    zero = np.asarray(wide == 0)
    if not (np.isfinite(wide).all() and np.greater_equal(wide, 0).all()):
        return "a scale of its weights is negative, NaN or infinite"
    if zero.any() and (block or (difference * spread(zero, difference.shape, axis)).any()):
        return "a scale of its weights is zero"
    return zero
