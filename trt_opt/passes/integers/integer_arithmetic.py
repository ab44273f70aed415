"""Arithmetic of narrow and unsigned integers on INT32 and INT64 tensors.

All functions take and give carried values (see `integer_types`): numbers of the narrow type held in INT32 or INT64, of
uint64 the same 64 bits held in INT64. Divisions have operands that are not negative wherever that costs little, so that
nothing rests on how a runtime rounds the quotient of negative integers.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.integers.integer_types import CARRIERS, bits_of, is_signed, limits_of

LEAST, LARGEST = limits_of("int64")

_FLOAT_2_64 = 2.0**64
_FLOAT_2_63 = 2.0**63


def number(value: int, dtype: str) -> NDArray[np.generic]:
    """A scalar constant."""
    return np.asarray(value, dtype)


def wrapped(emit: Emitter, tensor: Operand, held: str, dtype: str, reach: tuple[int, int]) -> Operand:
    """Numbers brought into the range of a type by adding or taking away multiples of 2^bits.

    Args:
        emit: Where nodes are written.
        tensor: The numbers.
        held: The type they are held in, int32 or int64.
        dtype: Whose range they are brought into.
        reach: The least and the largest number there can be; nothing is emitted where they are in range.
    """
    least, largest = limits_of(dtype)
    if dtype == "uint64" or (least <= reach[0] and reach[1] <= largest):
        return tensor
    modulus = 1 << bits_of(dtype)
    lift = max(0, -(reach[0] // modulus)) * modulus
    if lift and reach[1] + lift <= limits_of(held)[1]:
        tensor = emit("Add", tensor, number(lift, held))
    reduced = emit("Mod", tensor, number(modulus, held))
    return signed_from_unsigned(emit, reduced, held, dtype) if is_signed(dtype) else reduced


def signed_from_unsigned(emit: Emitter, tensor: Operand, held: str, dtype: str) -> gs.Variable:
    """Numbers in [0, 2^bits) as those of the signed type that have the same bits."""
    beyond = emit("Greater", tensor, number(limits_of(dtype)[1], held))
    return emit("Where", beyond, emit("Sub", tensor, number(1 << bits_of(dtype), held)), tensor)


def unsigned_from_signed(emit: Emitter, tensor: Operand, held: str, dtype: str) -> gs.Variable:
    """Numbers of a signed type as those in [0, 2^bits) that have the same bits; `held` has room for them."""
    below = emit("Less", tensor, number(0, held))
    return emit("Where", below, emit("Add", tensor, number(1 << bits_of(dtype), held)), tensor)


def sign_free(emit: Emitter, tensor: Operand, held: str, dtype: str) -> gs.Variable:
    """All bits but the highest, as a number that is not negative."""
    largest = limits_of(dtype)[1] if dtype != "uint64" else LARGEST
    if largest < limits_of(held)[1]:
        lifted = emit("Add", tensor, number(largest + 1, held))
    else:
        # 2^63 itself is no INT64, nor 2^31 an INT32.
        lifted = emit("Add", emit("Add", tensor, number(largest, held)), number(1, held))
    return emit("Where", emit("Less", tensor, number(0, held)), lifted, tensor)


def ordered_uint64(emit: Emitter, tensor: Operand) -> gs.Variable:
    """uint64 as INT64 of the same order: the highest bit turned over; the function undoes itself."""
    below = emit("Add", tensor, number(LEAST, "int64"))
    above = emit("Add", emit("Add", tensor, number(LARGEST, "int64")), number(1, "int64"))
    return emit("Where", emit("Less", tensor, number(0, "int64")), above, below)


def product(emit: Emitter, one: Operand, other: Operand, dtype: str) -> Operand:
    """The product, modulo 2^bits."""
    match dtype:
        case "uint64":
            # Two's complement: the lower 64 bits of a product do not depend on signs.
            return emit("Mul", one, other)
        case "uint32":
            return _product_uint32(emit, one, other)
        case "uint16":
            wide = emit("Mul", emit.cast(one, "int64"), emit.cast(other, "int64"))
            return emit.cast(emit("Mod", wide, number(1 << 16, "int64")), "int32")
    least, largest = limits_of(dtype)
    reach = (least * largest, max(least * least, largest * largest))
    return wrapped(emit, emit("Mul", one, other), CARRIERS[dtype], dtype, reach)


def quotient(emit: Emitter, one: Operand, other: Operand, dtype: str) -> Operand:
    """The quotient, rounded towards zero."""
    if dtype == "uint64":
        return _division_uint64(emit, one, other)[0]
    if not is_signed(dtype):
        return emit("Div", one, other)
    held = CARRIERS[dtype]
    size = emit("Div", emit("Abs", one), emit("Abs", other))
    zero = number(0, held)
    differ = emit("Xor", emit("Less", one, zero), emit("Less", other, zero))
    found = emit("Where", differ, emit("Sub", zero, size), size)
    least = limits_of(dtype)[0]
    return wrapped(emit, found, held, dtype, (least, -least))


def remainder(emit: Emitter, one: Operand, other: Operand, dtype: str, fmod: int) -> Operand:
    """The remainder with the sign of the divisor, or with fmod of the dividend."""
    if dtype == "uint64":
        return _division_uint64(emit, one, other)[1]
    return emit("Mod", one, other, fmod=fmod if is_signed(dtype) else 0)


def floats_of_uint64(emit: Emitter, tensor: Operand, dtype: str) -> gs.Variable:
    """uint64 as floating point numbers, rounded once."""
    lowest = emit("Mod", sign_free(emit, tensor, "int64", "uint64"), number(2, "int64"))
    half = _half_of_large(emit, tensor)
    # The bit shifted out is kept in the lowest place, so that rounding sees that there was something.
    room = emit("Sub", number(1, "int64"), emit("Mod", half, number(2, "int64")))
    sticky = emit("Add", half, emit("Mul", room, lowest))
    doubled = emit("Mul", emit.cast(sticky, dtype), np.asarray(2, dtype))
    return emit("Where", emit("Less", tensor, number(0, "int64")), doubled, emit.cast(tensor, dtype))


def uint64_of_floats(emit: Emitter, tensor: Operand, dtype: str) -> gs.Variable:
    """Floating point numbers below 2^64 as uint64; those not below 2^63 are moved down by 2^64, which is exact."""
    if dtype not in {"float32", "float64"}:
        tensor, dtype = emit.cast(tensor, "float32"), "float32"
    large = emit("GreaterOrEqual", tensor, np.asarray(_FLOAT_2_63, dtype))
    moved = emit("Sub", tensor, np.asarray(_FLOAT_2_64, dtype))
    return emit.cast(emit("Where", large, moved, tensor), "int64")


def _product_uint32(emit: Emitter, one: Operand, other: Operand) -> gs.Variable:
    """The second factor in halves of 16 bits, so that no product reaches 2^63."""
    half = number(1 << 16, "int64")
    upper = emit("Mod", emit("Mul", one, emit("Div", other, half)), half)
    lower = emit("Mul", one, emit("Mod", other, half))
    return emit("Mod", emit("Add", emit("Mul", upper, half), lower), number(1 << 32, "int64"))


def _half_of_large(emit: Emitter, tensor: Operand) -> gs.Variable:
    """Half of numbers with the highest bit set; of others a number that is not negative."""
    half = emit("Div", sign_free(emit, tensor, "int64", "uint64"), number(2, "int64"))
    return emit("Add", half, number(1 << 62, "int64"))


def _division_uint64(emit: Emitter, one: Operand, other: Operand) -> tuple[gs.Variable, gs.Variable]:
    """Quotient and remainder, by the sizes of the operands.

    A divisor of 2^63 or more goes in at most once. A dividend of 2^63 or more is halved, divided, and doubled again;
    one more divisor may fit into what is left. Otherwise both are plain INT64.
    """
    zero, single = number(0, "int64"), number(1, "int64")
    large_divisor, large_dividend = emit("Less", other, zero), emit("Less", one, zero)
    divisor = emit("Where", large_divisor, single, other)
    half, lowest = _half_of_large(emit, one), emit("Mod", sign_free(emit, one, "int64", "uint64"), number(2, "int64"))
    doubled = emit("Mul", emit("Div", half, divisor), number(2, "int64"))
    left = emit("Mod", half, divisor)
    # 2·left + lowest >= divisor, without the doubling that may overflow.
    missing = emit("Sub", emit("Sub", divisor, left), lowest)
    fits = emit("GreaterOrEqual", left, missing)
    halved_quotient = emit("Add", doubled, emit.cast(fits, "int64"))
    halved_rest = emit("Where", fits, emit("Sub", left, missing), emit("Add", emit("Add", left, left), lowest))
    small = sign_free(emit, one, "int64", "uint64")
    plain_quotient = emit("Where", large_dividend, halved_quotient, emit("Div", small, divisor))
    plain_rest = emit("Where", large_dividend, halved_rest, emit("Mod", small, divisor))
    once = emit("GreaterOrEqual", ordered_uint64(emit, one), ordered_uint64(emit, other))
    large_rest = emit("Where", once, emit("Sub", one, other), one)
    return (
        emit("Where", large_divisor, emit.cast(once, "int64"), plain_quotient),
        emit("Where", large_divisor, large_rest, plain_rest),
    )
