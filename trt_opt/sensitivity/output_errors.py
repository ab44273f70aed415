"""How far a graph's outputs are from the float model's: sums over samples, and the worst output.

Added up once for every layer and sample, so only what an SQNR takes and in float32 where that is exact enough: a
comparison's `compare.totals`, all figures of one output in float64, takes 7 to 50 times as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[Any]
"""Of any floating-point type."""

PIECE_ELEMENTS = 1 << 13
"""Elements squared and summed in float32 before they count in float64; larger pieces would make the BLAS start threads,
which wait for those of ONNX Runtime."""

UNDERFLOW = 1e-30
"""A sum of squares below this may have lost some to float32, whose smallest number is 1e-38."""


@dataclass(slots=True)
class OutputSums:
    """One floating-point output against the float model's, summed over samples.

    Elements that are NaN in the float model, or the same infinity in both, say nothing and are left out.

    Attributes:
        error: Sum of squared differences; where the shapes differ, everything in both counts as error.
        signal: Sum of squares of the float model's output.
        elements: Elements compared.
        not_finite: Elements that are NaN or infinite on one side alone, or infinite on both and not equal.
    """

    error: float = 0.0
    signal: float = 0.0
    elements: int = 0
    not_finite: int = 0

    def add(self, reference: Array, candidate: Array) -> None:
        """Adds one sample."""
        if reference.shape != candidate.shape:
            self._add_unlike(reference, candidate)
            return
        expected, found = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, expected.size, PIECE_ELEMENTS):
            piece = slice(start, start + PIECE_ELEMENTS)
            self._add_piece(expected[piece], found[piece])

    def merge(self, other: OutputSums) -> None:
        """Adds what another part of the data gave."""
        self.error += other.error
        self.signal += other.signal
        self.elements += other.elements
        self.not_finite += other.not_finite

    @property
    def relative(self) -> float | None:
        """Error over signal: 0 without error, infinity where something is not finite or the signal is zero.

        None where no element could be compared.
        """
        if self.not_finite:
            return math.inf
        if not self.elements:
            return None
        if self.error == 0.0:
            return 0.0
        return self.error / self.signal if self.signal else math.inf

    def _add_piece(self, expected: Floats, found: Floats) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.subtract(found, expected)
            error, signal = float(np.dot(difference, difference)), float(np.dot(expected, expected))
        self.elements += expected.size
        if not math.isfinite(error) or not math.isfinite(signal) or min(error, signal) < UNDERFLOW:
            self._add_awkward(expected.astype(np.float64), found.astype(np.float64))
            return
        self.error += error
        self.signal += signal

    def _add_awkward(self, expected: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        """Adds elements that are counted already, among them such as are not finite, or whose squares are not."""
        told = ~np.isnan(expected) & ~(np.isinf(expected) & (expected == found))
        sound = np.isfinite(expected) & np.isfinite(found)
        self.elements -= int(np.count_nonzero(~told))
        self.not_finite += int(np.count_nonzero(told & ~sound))
        expected, difference = expected[sound], found[sound] - expected[sound]
        self.error += float(np.square(difference).sum())
        self.signal += float(np.square(expected).sum())

    def _add_unlike(self, reference: Array, candidate: Array) -> None:
        for array, is_signal in ((reference, True), (candidate, False)):
            values = array.reshape(-1).astype(np.float64)
            finite = values[np.isfinite(values)]
            energy = float(np.square(finite).sum())
            self.error += energy
            self.signal += energy if is_signal else 0.0
            self.elements += values.size
            self.not_finite += 0 if is_signal else values.size - finite.size


@dataclass(slots=True)
class GraphSums:
    """All floating-point outputs of a graph; integer outputs are left out."""

    outputs: dict[str, OutputSums] = field(default_factory=dict)

    def add(self, reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Adds one sample's outputs by name."""
        for name, expected in reference.items():
            if expected.dtype.kind == "f":
                self.outputs.setdefault(name, OutputSums()).add(expected, candidate[name])

    def worst(self) -> tuple[str, float] | None:
        """The output with the largest relative error energy, and that; None without a floating-point output."""
        told = [(name, sums.relative) for name, sums in self.outputs.items()]
        found = [(name, relative) for name, relative in told if relative is not None]
        return max(found, key=lambda entry: entry[1], default=None)


def decibels(relative: float | None) -> float | None:
    """-10·log10 of a relative error energy: SQNR in dB.

    None where there is no error or nothing was compared; minus infinity where the error is infinite.
    """
    if relative is None or relative == 0.0:
        return None
    return -10 * math.log10(relative) if math.isfinite(relative) else -math.inf
