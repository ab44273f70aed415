"""Bit operations as INT32 and INT64 arithmetic, on carried values (see `integer_types`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.integers.integer_arithmetic import (
    LEAST,
    number,
    sign_free,
    signed_from_unsigned,
    unsigned_from_signed,
)
from trt_opt.passes.integers.integer_types import CARRIERS, bits_of, is_signed, limits_of

_BITS_AT_ONCE = 16
"""Sums stay below 2^16: ONNX Runtime adds up INT64 inexactly beyond 2^53."""

Bits: TypeAlias = "gs.Tensor | NDArray[np.generic]"
"""Carried values: a tensor, or an array where they are constant."""


def conjunction(emit: Emitter, one: Bits, other: Bits, dtype: str) -> Bits:
    """The bits that are set in both."""
    if isinstance(one, np.ndarray):
        one, other = other, one
    held = CARRIERS[dtype]
    if not _has_sign(dtype):
        return _conjunction_of_digits(emit, one, other, bits_of(dtype), held)
    digits = _conjunction_of_digits(
        emit, _digits(emit, one, dtype), _digits(emit, other, dtype), bits_of(dtype) - 1, held
    )
    both, below = _below_zero(emit, one, held), _below_zero(emit, other, held)
    if isinstance(below, np.ndarray) and not below.any():
        return digits
    if not (isinstance(below, np.ndarray) and below.all()):
        both = emit("And", both, below)
    least = limits_of(dtype)[0] if is_signed(dtype) else LEAST
    weight: gs.Variable = emit("Where", both, number(least, held), number(0, held))
    return emit("Add", digits, weight)


def disjunction(emit: Emitter, one: Bits, other: Bits, dtype: str) -> Bits:
    """The bits that are set in either: (a - (a AND b)) + b; neither step leaves the range of the type."""
    return emit("Add", emit("Sub", one, conjunction(emit, one, other, dtype)), other)


def exclusive_disjunction(emit: Emitter, one: Bits, other: Bits, dtype: str) -> Bits:
    """The bits that are set in one of both: (a - (a AND b)) + (b - (a AND b)); no step leaves the range of the type."""
    common = conjunction(emit, one, other, dtype)
    return emit("Add", emit("Sub", one, common), emit("Sub", other, common))


def complement(emit: Emitter, one: Bits, dtype: str) -> Bits:
    """NOT a: -1 - a of signed types, the largest number - a of others."""
    return emit("Sub", number(-1 if _has_sign(dtype) else limits_of(dtype)[1], CARRIERS[dtype]), one)


def shifted(emit: Emitter, one: Bits, places: Bits, dtype: str, direction: str) -> Bits:
    """`one` shifted to the "LEFT" or "RIGHT".

    Places below 0 or not below the type's width shift everything out, as of opset 28; older opsets leave them open.
    """
    by = _Places(emit, places, bits_of(dtype), CARRIERS[dtype])
    if direction == "LEFT":
        return _left_64(emit, one, by) if bits_of(dtype) == 64 else _left(emit, one, by, dtype)
    if dtype == "uint64":
        return _right_uint64(emit, one, by)
    return _right_signed(emit, one, by, dtype) if is_signed(dtype) else _right(emit, one, by)


class _Places:
    """How far is shifted: looks up a number per element in a table of one entry for each place and one for the rest."""

    def __init__(self, emit: Emitter, places: Bits, bits: int, held: str) -> None:
        self.emit = emit
        self.bits = bits
        self.held = held
        if isinstance(places, np.ndarray):
            wide = places.astype(np.int64)
            self.index: Bits = np.where((wide >= 0) & (wide < bits), wide, bits)
        else:
            inside = emit(
                "And", emit("GreaterOrEqual", places, number(0, held)), emit("Less", places, number(bits, held))
            )
            self.index = emit("Where", inside, places, number(bits, held))

    def lookup(self, table: Sequence[int], held: str) -> Bits:
        values = np.asarray(table, held)
        if isinstance(self.index, np.ndarray):
            return np.asarray(values[self.index])
        made: gs.Variable = self.emit("Gather", values, self.index, axis=0)
        return made

    def are(self, place: int) -> Bits:
        if isinstance(self.index, np.ndarray):
            return np.asarray(self.index == place)
        made: gs.Variable = self.emit("Equal", self.index, number(place, self.held))
        return made


def _left(emit: Emitter, one: Bits, by: _Places, dtype: str) -> Bits:
    """(a · 2^k) modulo 2^bits, in a type that has room for the product; k out of range multiplies by 0."""
    bits, held = bits_of(dtype), CARRIERS[dtype]
    room = "int64" if bits == 32 else "int32"
    wide = emit.cast(one, room) if held != room else one
    if is_signed(dtype):
        wide = unsigned_from_signed(emit, wide, room, dtype)
    moved = emit("Mul", wide, by.lookup([*(1 << place for place in range(bits)), 0], room))
    found = emit("Mod", moved, number(1 << bits, room))
    if is_signed(dtype):
        found = signed_from_unsigned(emit, found, room, dtype)
    return emit.cast(found, held) if held != room else found


def _left_64(emit: Emitter, one: Bits, by: _Places) -> Bits:
    """The bits below the one that becomes the highest are multiplied, the highest is added; nothing overflows."""
    digits = sign_free(emit, one, "int64", "uint64")
    # For place 0, where 2^63 would be needed, the result is replaced below.
    cut = by.lookup([1, *(1 << (63 - place) for place in range(1, 64)), 1], "int64")
    moved = emit(
        "Mul", emit("Mod", digits, cut), by.lookup([1, *(1 << place for place in range(1, 63)), 0, 0], "int64")
    )
    highest = emit("Mod", emit("Div", digits, cut), number(2, "int64"))
    weight = emit("Mul", highest, by.lookup([0, *[LEAST] * 63, 0], "int64"))
    found = emit("Add", moved, weight)
    unmoved = by.are(0)
    if isinstance(unmoved, np.ndarray) and not unmoved.any():
        return found
    return emit("Where", unmoved, one, found)


def _right(emit: Emitter, one: Bits, by: _Places) -> Bits:
    """Divided by 2^k; k out of range divides by 2^bits, which is more than any a."""
    return emit("Div", one, by.lookup([1 << place for place in range(by.bits + 1)], by.held))


def _right_signed(emit: Emitter, one: Bits, by: _Places, dtype: str) -> Bits:
    """Of negative numbers the complement, which is not negative, is shifted; the highest place shifts out all of it."""
    held = CARRIERS[dtype]
    below = _below_zero(emit, one, held)
    size = emit("Where", below, complement(emit, one, dtype), one)
    last = by.bits - 2
    halved = emit("Div", size, by.lookup([*(1 << place for place in range(last + 1)), 1, 1], held))
    found = emit("Mul", halved, by.lookup([*[1] * (last + 1), 0, 0], held))
    return emit("Where", below, complement(emit, found, dtype), found)


def _right_uint64(emit: Emitter, one: Bits, by: _Places) -> Bits:
    """All bits but the highest are divided, then the highest is put where it belongs."""
    halved = emit(
        "Div",
        sign_free(emit, one, "int64", "uint64"),
        by.lookup([*(1 << place for place in range(63)), 1, 1], "int64"),
    )
    moved = emit("Mul", halved, by.lookup([*[1] * 63, 0, 0], "int64"))
    highest = by.lookup([LEAST, *(1 << (63 - place) for place in range(1, 64)), 0], "int64")
    return emit("Add", moved, emit("Where", _below_zero(emit, one, "int64"), highest, number(0, "int64")))


def _conjunction_of_digits(emit: Emitter, one: Bits, other: Bits, width: int, held: str) -> Bits:
    """The bits that are set in both of numbers in [0, 2^width)."""
    if isinstance(other, np.ndarray) and other.size == 1 and other.ndim == 0:
        return _masked(emit, one, int(other), width, held)
    total: gs.Variable | None = None
    for low in range(0, width, _BITS_AT_ONCE):
        part = _conjunction_of_some_digits(emit, (one, other), (low, min(low + _BITS_AT_ONCE, width), width), held)
        total = part if total is None else emit("Add", total, part)
    return total if total is not None else one


def _conjunction_of_some_digits(
    emit: Emitter, operands: tuple[Bits, Bits], places: tuple[int, int, int], held: str
) -> gs.Variable:
    """The bits from `low` up to `high`, of `width`, of a AND b, where they belong."""
    low, high, width = places
    powers = np.asarray([1 << place for place in range(high - low)], held)
    rows = []
    for operand in operands:
        upper = emit("Div", operand, number(1 << low, held)) if low else operand
        part = emit("Mod", upper, number(1 << (high - low), held)) if high < width else upper
        rows.append(emit("Mod", emit("Div", emit.unsqueeze(part, [-1]), powers), number(2, held)))
    common = emit("Mul", emit("Mul", *rows), powers)
    found = emit.reduce("ReduceSum", common, [-1], keepdims=False)
    moved: gs.Variable = emit("Mul", found, number(1 << low, held)) if low else found
    return moved


def _masked(emit: Emitter, one: Bits, mask: int, width: int, held: str) -> Bits:
    """The bits that are set in a constant too: for each run of ones from l up to h, a modulo 2^h - a modulo 2^l."""
    total: Bits | None = None
    for low, high in _runs_of_ones(mask):
        part = emit("Mod", one, number(1 << high, held)) if high < width else one
        if low:
            part = emit("Sub", part, emit("Mod", one, number(1 << low, held)))
        total = part if total is None else emit("Add", total, part)
    return emit("Mul", one, number(0, held)) if total is None else total


def _runs_of_ones(mask: int) -> list[tuple[int, int]]:
    text = bin(mask)[:1:-1] + "0"
    runs, start = [], None
    for place, digit in enumerate(text):
        if digit == "1" and start is None:
            start = place
        elif digit == "0" and start is not None:
            runs.append((start, place))
            start = None
    return runs


def _has_sign(dtype: str) -> bool:
    """Whether carried values can be negative."""
    return is_signed(dtype) or dtype == "uint64"


def _below_zero(emit: Emitter, one: Bits, held: str) -> Bits:
    if isinstance(one, np.ndarray):
        return np.less(one, 0)
    made: gs.Variable = emit("Less", one, number(0, held))
    return made


def _digits(emit: Emitter, one: Bits, dtype: str) -> Bits:
    """All bits but the highest."""
    if isinstance(one, np.ndarray):
        wide = limits_of(dtype)[1] if is_signed(dtype) else limits_of("int64")[1]
        return np.asarray(np.bitwise_and(one, np.asarray(wide, one.dtype)))
    return sign_free(emit, one, CARRIERS[dtype], dtype)
