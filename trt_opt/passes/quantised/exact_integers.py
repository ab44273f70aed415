"""Integers of 8 and 16 bits, held in FLOAT or INT32 between a Cast that reads them and a Cast that writes them.

TensorRT has no UINT8, INT16 or UINT16 inside a graph: it takes UINT8 from a Cast right after a graph input and gives it
to a Cast right before a graph output. FLOAT holds integers below 2^24 exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError

RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
)
"""Smallest and largest number of the types that are emulated."""

EXACT_BELOW = 1 << 24
"""Integers of smaller magnitude are exact in FLOAT, whose significand has 24 bits."""


def integer_type(emit: Emitter, tensor: gs.Tensor) -> str:
    """The element type of a tensor of integers that can be emulated.

    Raises:
        DeclinedError: It is not known, or another one.
    """
    dtype = emit.edit.dtype(tensor)
    if dtype is None or dtype not in RANGES:
        raise DeclinedError(f"{tensor.name!r} is of type {dtype or 'unknown'}, not of {', '.join(RANGES)}")
    return dtype


def integers(tensor: gs.Tensor, emit: Emitter) -> Operand:
    """The integers in FLOAT: an array where they are constant, else through INT32, as `saturated` writes them."""
    values = emit.edit.value(tensor)
    if values is not None:
        return values.astype(np.float32)
    return emit.cast(emit.cast(tensor, "int32"), "float32")


def zero_point(tensor: gs.Tensor | None, vector_shape: Sequence[int], emit: Emitter) -> Operand:
    """The zero-point in FLOAT, shaped to broadcast; None where it is left out or zero everywhere.

    Args:
        tensor: The input.
        vector_shape: The shape a vector is given; one number becomes a scalar, more dimensions stay.
        emit: Where nodes are written.
    """
    if tensor is None:
        return None
    values = integers(tensor, emit)
    if isinstance(values, np.ndarray) and not values.any():
        return None
    return _laid_out(values, tensor, vector_shape, emit)


def scale(tensor: gs.Tensor, vector_shape: Sequence[int], emit: Emitter) -> Operand:
    """The scale in its own type, shaped to broadcast as in `zero_point`."""
    values = emit.edit.value(tensor)
    return _laid_out(tensor if values is None else values, tensor, vector_shape, emit)


def minus(values: Operand, subtrahend: Operand, emit: Emitter) -> Operand:
    """The difference of two FLOAT operands, computed at once where both are arrays; None subtracts nothing."""
    if subtrahend is None:
        return values
    if isinstance(values, gs.Tensor) or isinstance(subtrahend, gs.Tensor):
        difference: gs.Variable = emit("Sub", values, subtrahend)
        return difference
    return np.asarray(values, np.float32) - np.asarray(subtrahend, np.float32)


def in_type(values: Operand, dtype: str, emit: Emitter) -> Operand:
    """An operand in another floating-point type, converted at once where it is an array."""
    if isinstance(values, gs.Tensor):
        return emit.cast(values, dtype)
    if dtype == "bfloat16":
        return emit.cast(np.asarray(values, np.float32), dtype)
    return np.asarray(values).astype(dtype)


def saturated(quotient: Operand, offset: Operand, dtype: str, emit: Emitter) -> gs.Variable:
    """FLOAT numbers rounded half to even, shifted by the zero-point, clipped and cast to an integer type."""
    low, high = RANGES[dtype]
    rounded = emit("Round", quotient)
    shifted = rounded if offset is None else emit("Add", rounded, offset)
    clipped = emit("Clip", shifted, np.asarray(low, np.float32), np.asarray(high, np.float32))
    return emit.cast(emit.cast(clipped, "int32"), dtype)


def requantized(
    total: gs.Variable, scales: Sequence[Operand], offset: Operand, dtype: str, emit: Emitter
) -> gs.Variable:
    """A FLOAT sum of products as an integer of the output's scale and zero-point.

    Args:
        total: The sum.
        scales: Of the two factors and of the output. Their quotient is taken in their own type.
        offset: The output's zero-point in FLOAT.
        dtype: The output's type.
        emit: Where nodes are written.
    """
    factor = in_type(_quotient_of_scales(scales, emit), "float32", emit)
    return saturated(emit("Mul", total, factor), offset, dtype, emit)


def _quotient_of_scales(scales: Sequence[Operand], emit: Emitter) -> Operand:
    left, right, result = scales
    if any(isinstance(value, gs.Tensor) for value in scales):
        quotient: gs.Variable = emit("Div", emit("Mul", left, right), result)
        return quotient
    return np.asarray(np.divide(np.multiply(np.asarray(left), np.asarray(right)), np.asarray(result)))


def _laid_out(values: Operand, tensor: gs.Tensor, vector_shape: Sequence[int], emit: Emitter) -> Operand:
    shape = emit.edit.shape(tensor)
    if shape is None:
        raise DeclinedError(f"the rank of {tensor.name!r} is not known")
    if len(shape) != 1:
        return values
    wanted = [] if shape == (1,) else list(vector_shape)
    if wanted == [-1]:
        return values
    return emit.reshape(values, wanted) if isinstance(values, gs.Tensor) else np.asarray(values).reshape(wanted)
