"""Walks through an array in pieces that stay in the processor's cache."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrators.errors import CalibratorError

FloatArray = NDArray[np.floating[Any]]

CHUNK = 1 << 17
"""Elements per piece: its copies fill 1.5 MiB, about what a second-level cache holds.

Smaller pieces are no slower by themselves, but each NumPy call lets go of the interpreter lock, and taking it back
from a thread that runs the model costs more than the cache gives."""


class Workspace(threading.local):
    """Scratch arrays of `CHUNK` elements, one set per thread, so that threads never share one."""

    def __init__(self) -> None:
        self._floats = {np.dtype(kind): np.empty(CHUNK, kind) for kind in (np.float32, np.float64)}
        self._converted = {np.dtype(kind): np.empty(CHUNK, kind) for kind in (np.float32, np.float64)}
        self._indices = np.empty(CHUNK, np.intp)
        self._flags = np.empty(CHUNK, np.bool_)

    def floats(self, size: int, kind: np.dtype[Any]) -> FloatArray:
        """Scratch for magnitudes, float32 or float64 [size]."""
        return self._floats[kind][:size]

    def converted(self, size: int, kind: np.dtype[Any]) -> FloatArray:
        """Scratch for a chunk converted to float32 or float64 [size]."""
        return self._converted[kind][:size]

    def indices(self, size: int) -> NDArray[np.intp]:
        """Scratch for bin numbers, intp [size]."""
        return self._indices[:size]

    def flags(self, size: int) -> NDArray[np.bool_]:
        """Scratch for a mask, bool [size]."""
        return self._flags[:size]


WORKSPACE = Workspace()


def float_chunks(array: ArrayLike) -> Iterator[FloatArray]:
    """The elements of an array as float32 or float64 pieces of at most `CHUNK` elements, in memory order.

    Float16, small integers and booleans come as float32, larger integers as float64 (beyond 2**53 rounded). A piece may
    live in this thread's workspace and is valid until the next one is asked for.

    Args:
        array: Numbers, any shape, 0-d and empty ones included.

    Raises:
        CalibratorError: The elements are no real numbers of at most 64 bits.
    """
    flat = np.asarray(array).ravel(order="K")
    if flat.dtype.kind not in "fiub" or flat.dtype.itemsize > 8:
        raise CalibratorError(f"ranges are taken of real numbers of at most 64 bits, not of {flat.dtype}")
    kind = np.result_type(flat.dtype, np.float32)
    for start in range(0, flat.size, CHUNK):
        piece = flat[start : start + CHUNK]
        if piece.dtype != kind:
            piece, source = WORKSPACE.converted(piece.size, kind), piece
            np.copyto(piece, source)
        yield piece


def chunk_extremes(chunk: FloatArray) -> tuple[float, float]:
    """The smallest and the largest element of a chunk that is not empty; -0.0 reads as 0.0.

    Raises:
        CalibratorError: The chunk holds NaN or infinity; both survive min and max, so this costs no pass of its own.
    """
    low, high = float(chunk.min()), float(chunk.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CalibratorError("the data hold NaN or infinity: no range can be taken")
    return low + 0.0, high + 0.0
