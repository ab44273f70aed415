"""Sums of products of 8-bit integers in FLOAT, in pieces small enough to be exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError
from trt_opt.passes.quantised.exact_integers import EXACT_BELOW, RANGES, integer_type, integers, minus, zero_point

MOST_PIECES = 64
"""Above this the graph would grow beyond use."""

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Factor:
    """Integers of a product, their zero-point subtracted.

    Attributes:
        values: In FLOAT; an array where they are constant. 8-bit integers less a zero-point have at most 8 bits and a
            sign, so that the shorter significands of TF32 and FP16 (11 bits) hold them too.
        largest: The largest magnitude, of every element where they are constant.
        shape: Of the tensor, None for sizes not known.
    """

    values: Operand
    largest: NDArray[np.float64]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Accumulated:
    """A sum of products: in FLOAT where one piece was enough, in INT32 otherwise."""

    tensor: gs.Variable
    is_float: bool

    def as_float(self, emit: Emitter) -> gs.Variable:
        """In FLOAT, rounded above 2^24 as ONNX Runtime rounds its INT32 sums."""
        return _whole(self.tensor, emit) if self.is_float else emit.cast(self.tensor, "float32")

    def as_int32(self, emit: Emitter) -> gs.Variable:
        """In INT32."""
        return _int32_from_float(self.tensor, emit) if self.is_float else self.tensor


def factor(tensor: gs.Tensor, offset: gs.Tensor | None, vector_shape: Sequence[int], emit: Emitter) -> Factor:
    """A factor from an INT8 or UINT8 input and its zero-point, whose vectors take `vector_shape`.

    Raises:
        DeclinedError: Rank or type are not known.
    """
    low, high = RANGES[integer_type(emit, tensor)]
    shape = emit.edit.shape(tensor)
    if shape is None:
        raise DeclinedError(f"the rank of {tensor.name!r} is not known")
    shift = zero_point(offset, vector_shape, emit)
    values = minus(integers(tensor, emit), shift, emit)
    if not isinstance(values, gs.Tensor):
        return Factor(values, np.abs(np.asarray(values)).astype(np.float64), shape)
    if isinstance(shift, gs.Tensor):
        return Factor(values, np.asarray(float(high - low)), shape)
    known = np.zeros(1) if shift is None else np.asarray(shift)
    return Factor(values, np.asarray(max(high - float(known.min()), float(known.max()) - low)), shape)


def matmul(left: Factor, right: Factor, emit: Emitter) -> Accumulated:
    """The exact product of [..., M, K] and [..., K, N], or of vectors.

    Raises:
        DeclinedError: Neither factor tells K, or too many pieces would be needed.
    """
    rows = -2 if len(right.shape) > 1 else -1
    length = left.shape[-1] if left.shape[-1] is not None else right.shape[rows]
    if length is None:
        raise DeclinedError("the number of products in a sum is not static")
    # A sum per column is bounded by the column's own weights where these are known.
    left_costs, right_costs = _terms(left, -1, length), _terms(right, rows, length)
    if right_costs.shape[1] > 1:
        left_costs = left_costs.max(axis=1, keepdims=True)
    pieces = _pieces(left_costs * right_costs)
    if len(pieces) == 1:
        return Accumulated(emit("MatMul", left.values, right.values), is_float=True)
    cuts = ((_cut(left.values, -1, piece, emit), _cut(right.values, rows, piece, emit)) for piece in pieces)
    return _added([emit("MatMul", *both) for both in cuts], emit)


def conv(
    image: Factor, weights: Factor, bias: gs.Tensor | None, attributes: Mapping[str, Any], emit: Emitter
) -> Accumulated:
    """The exact convolution of integers, with an INT32 bias.

    Raises:
        DeclinedError: The weights have no static shape, or one channel alone sums too many products.
    """
    shape = [size for size in weights.shape if size is not None]
    if len(shape) != len(weights.shape):
        raise DeclinedError("the shape of its weights is not static")
    taps = float(np.prod(shape[2:], dtype=np.int64))
    largest = float(image.largest.max(initial=0))
    if weights.largest.ndim:
        costs = weights.largest.reshape(shape[0], shape[1], -1).sum(axis=2).T * largest
    else:
        costs = np.full((shape[1], 1), taps * largest * float(weights.largest))
    known = None if bias is None else emit.edit.value(bias)
    added = 0.0 if known is None else float(np.abs(known.astype(np.float64)).max(initial=0))
    if (bias is None or known is not None) and costs.sum(axis=0).max(initial=0) + added < EXACT_BELOW:
        read = () if known is None else (known.astype(np.float32),)
        return Accumulated(emit("Conv", image.values, weights.values, *read, **attributes), is_float=True)
    groups = int(attributes.get("group", 1))
    parts = [
        emit(
            "Conv",
            _channels(image.values, groups, shape[1], piece, emit),
            _cut(weights.values, 1, piece, emit),
            **attributes,
        )
        for piece in _pieces(costs)
    ]
    total = _added(parts, emit)
    if bias is None:
        return total
    per_channel = emit.reshape(bias, [-1, *(1 for _ in shape[2:])])
    return Accumulated(emit("Add", total.as_int32(emit), per_channel), is_float=False)


def _terms(value: Factor, axis: int, length: int) -> NDArray[np.float64]:
    """The largest magnitudes along the axis of summation, [K, everything else or 1]."""
    if not value.largest.ndim:
        return np.full((length, 1), float(value.largest))
    return np.moveaxis(value.largest, axis, 0).reshape(length, -1)


def _pieces(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Runs of terms whose sums stay below 2^24, as (start, stop).

    Args:
        costs: The largest magnitude of each term, [terms, sums].
    """
    found, start = [], 0
    while start < len(costs):
        sums = np.cumsum(costs[start:], axis=0).max(axis=1, initial=0)
        count = int(np.searchsorted(sums, EXACT_BELOW))
        if not count:
            raise DeclinedError("a single channel sums more products than FLOAT holds exactly")
        found.append((start, start + count))
        start += count
        if len(found) > MOST_PIECES:
            raise DeclinedError(f"exact sums would take more than {MOST_PIECES} pieces")
    return found or [(0, 0)]


def _cut(values: Operand, axis: int, piece: tuple[int, int], emit: Emitter) -> Operand:
    if isinstance(values, gs.Tensor):
        return emit.slice(values, [piece[0]], [piece[1]], [axis], [1])
    array = np.asarray(values)
    return np.take(array, np.arange(*piece), axis)


def _channels(values: Operand, groups: int, per_group: int, piece: tuple[int, int], emit: Emitter) -> Operand:
    """The same channels of every group."""
    if piece == (0, per_group):
        return values
    if groups == 1:
        return _cut(values, 1, piece, emit)
    chosen = np.arange(groups)[:, None] * per_group + np.arange(*piece)
    picked: gs.Variable = emit("Gather", values, chosen.reshape(-1), axis=1)
    return picked


def _added(parts: Sequence[gs.Variable], emit: Emitter) -> Accumulated:
    if len(parts) == 1:
        return Accumulated(parts[0], is_float=True)
    total = _int32_from_float(parts[0], emit)
    for part in parts[1:]:
        total = emit("Add", total, _int32_from_float(part, emit))
    return Accumulated(total, is_float=False)


def _int32_from_float(tensor: gs.Variable, emit: Emitter) -> gs.Variable:
    return emit.cast(_whole(tensor, emit), "int32")


def _whole(tensor: gs.Variable, emit: Emitter) -> gs.Variable:
    """The sums without the fractions that Winograd's and other fast algorithms leave, which a Cast would cut off.

    It also keeps a scale that follows from being folded into the weights, which would no longer be integers.
    """
    whole: gs.Variable = emit("Round", tensor)
    return whole
