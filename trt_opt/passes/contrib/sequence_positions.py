"""Lengths and positions of sequences, constant where they can be."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.operand_facts import known_shape

Length: TypeAlias = "int | gs.Tensor"
"""A length that is known, or an int64 tensor [1] that holds it at run time."""

Positions: TypeAlias = "NDArray[np.int64] | gs.Tensor"
"""Positions that are known, or an int64 tensor of them."""


def length_of(emit: Emitter, tensor: gs.Tensor, axis: int) -> Length:
    """The length of an axis."""
    size = known_shape(emit, tensor)[axis]
    if size is not None:
        return size
    sizes = emit("Shape", tensor)
    found: gs.Tensor = emit("Slice", sizes, np.array([axis]), np.array([axis + 1]), np.array([0]))
    return found


def have_same_length(emit: Emitter, one: tuple[gs.Tensor, int], other: tuple[gs.Tensor, int]) -> bool:
    """Whether two axes, each given as tensor and number, are of one static length or of one dynamic name."""
    sizes = []
    for tensor, axis in (one, other):
        spec = emit.edit.spec(tensor)  # GraphEdit.shape leaves the names of dynamic sizes out
        if spec is None or spec.shape is None or spec.shape[axis] == "?":
            return False
        sizes.append(spec.shape[axis])
    return sizes[0] == sizes[1]


def added_lengths(emit: Emitter, one: Length, other: Length) -> Length:
    """The length of two sequences behind one another."""
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    terms = [np.array([term]) if isinstance(term, int) else term for term in (one, other)]
    total: gs.Tensor = emit("Add", *terms)
    return total


def positions(emit: Emitter, length: Length) -> Positions:
    """0, 1 … up to the length, int64 [length]."""
    if isinstance(length, int):
        return np.arange(length, dtype=np.int64)
    made: gs.Tensor = emit("Range", np.int64(0), emit.squeeze(length, [0]), np.int64(1))
    return made


def causal_mask(emit: Emitter, rows: Length, columns: Length, before: Length, window: int = -1) -> Positions:
    """Which of the columns each row may look at: boolean [rows, columns].

    Args:
        emit: Where the nodes are written.
        rows: How many queries.
        columns: How many keys.
        before: How many keys come before that of the first query.
        window: How many keys, its own and those before it, a query sees at most; negative for all.
    """
    if isinstance(rows, int) and isinstance(columns, int) and isinstance(before, int):
        behind = np.arange(rows)[:, None] + before - np.arange(columns)
        return (behind >= 0) & ((behind < window) | (window < 0))
    shift = np.array([before]) if isinstance(before, int) else before
    own = emit.unsqueeze(emit("Add", positions(emit, rows), shift), [1])
    distance = emit("Sub", own, positions(emit, columns))
    allowed: gs.Tensor = emit("Greater", distance, np.int64(-1))
    if window >= 0:
        allowed = emit("And", allowed, emit("Less", distance, np.int64(window)))
    return allowed
