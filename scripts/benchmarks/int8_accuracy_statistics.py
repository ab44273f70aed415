"""Pooled figures of int8_accuracy.py, their intervals, and whether two tools differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Draws = NDArray[np.intp]
"""Numbers of samples, [resamples, samples]: bootstrap draws with replacement."""

RESAMPLES = 2000
CONFIDENCE_Z = 1.959964
TOO_FEW_TO_DRAW_FROM = 8
"""Below, a bootstrap says nothing: no interval is shown, and two tools are equal up to the tolerances."""

TOLERANCE_DB = 0.5
TOLERANCE_POINTS = 0.5
"""What another draw of the calibration samples alone easily changes, so that less is no difference whatever the
evaluation samples say."""

PERFECT_DB = 200.0
"""Shown for an output without any error."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; the two ends are None where there are too few samples."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measured:
    """One tool on one model, sums per sample.

    Attributes:
        outputs: Float output → `error` and `signal` energies.
        counts: `float` and `int8` → hits and totals of the task.
        int8_macs: Multiply-accumulates in INT8.
        macs: All of the float model.
        seconds: What quantising took, process included.
    """

    outputs: Mapping[str, Mapping[str, list[float]]]
    counts: Mapping[str, list[tuple[float, float]]]
    int8_macs: int
    macs: int
    seconds: float

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Measured:
        """Of what the judge wrote."""
        return cls(stored["outputs"], stored["counts"], stored["int8_macs"], stored["macs"], stored["seconds"])

    @property
    def share(self) -> float:
        """Multiply-accumulates in INT8, in percent."""
        return 100 * self.int8_macs / self.macs if self.macs else 0.0

    @cached_property
    def samples(self) -> int:
        """Evaluation samples."""
        sizes = [len(sums["error"]) for sums in self.outputs.values()]
        return max([*sizes, len(self.counts["int8"])])

    @cached_property
    def _energies(self) -> tuple[Floats, Floats]:
        """Error and signal, [outputs, samples]."""
        sums = list(self.outputs.values())
        return np.array([entry["error"] for entry in sums]), np.array([entry["signal"] for entry in sums])

    def sqnr_db(self, draws: Draws | None = None) -> Floats | None:
        """Signal to noise of the whole set at the worst output; one figure per draw. None without a float output."""
        if not self.outputs:
            return None
        error, signal = self._energies
        draws = self._all if draws is None else draws
        noise = np.maximum(error[:, draws].sum(axis=-1), 1e-30)
        ratios = np.maximum(signal[:, draws].sum(axis=-1), 1e-30) / noise
        return np.minimum(10 * np.log10(np.maximum(ratios, 1e-30)), PERFECT_DB).min(axis=0)

    def task_pct(self, draws: Draws | None = None, side: str = "int8") -> Floats | None:
        """The task's share in percent, one figure per draw; None without a task."""
        if not self.counts[side]:
            return None
        counts = np.array(self.counts[side])
        draws = self._all if draws is None else draws
        hits, total = counts[draws, 0].sum(axis=-1), counts[draws, 1].sum(axis=-1)
        return 100 * hits / np.maximum(total, 1e-30)

    @property
    def counts_once(self) -> bool:
        """Whether every sample is one right or wrong answer, so that Wilson's interval holds."""
        return all(total == 1 and hits in (0, 1) for hits, total in self.counts["int8"])

    @property
    def _all(self) -> Draws:
        return np.arange(self.samples)[None]


Quantity = Callable[[Measured, Draws | None], Floats | None]


def sqnr(measured: Measured, draws: Draws | None = None) -> Floats | None:
    """The quantity SQNR."""
    return measured.sqnr_db(draws)


def task(measured: Measured, draws: Draws | None = None) -> Floats | None:
    """The quantity of the task."""
    return measured.task_pct(draws)


def figure(measured: Measured, quantity: Quantity) -> Figure | None:
    """The quantity with its interval; Wilson's where samples are right or wrong, else the bootstrap's."""
    value = quantity(measured, None)
    if value is None:
        return None
    if measured.samples < TOO_FEW_TO_DRAW_FROM:
        return Figure(float(value[0]), None, None)
    if quantity is task and measured.counts_once:
        return Figure(float(value[0]), *wilson(float(value[0]) / 100, measured.samples))
    return _with_interval(value, quantity(measured, draws(measured.samples)))


def wilson(share: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion, in percent (Wilson 1927)."""
    z2 = CONFIDENCE_Z**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = CONFIDENCE_Z * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2)) / (1 + z2 / samples)
    return 100 * (centre - half), 100 * (centre + half)


def draws(samples: int) -> Draws:
    """The same draws for every tool, so that two of them are compared on the same samples."""
    return np.random.default_rng(0).integers(0, samples, (RESAMPLES, samples))


def difference(ours: Measured, theirs: Measured, quantity: Quantity) -> Figure | None:
    """Ours minus theirs, paired by sample."""
    one, other = quantity(ours, None), quantity(theirs, None)
    if one is None or other is None:
        return None
    if ours.samples < TOO_FEW_TO_DRAW_FROM:
        return Figure(float(one[0] - other[0]), None, None)
    drawn = draws(ours.samples)
    ones, others = quantity(ours, drawn), quantity(theirs, drawn)
    return _with_interval(one - other, None if ones is None or others is None else ones - others)


def _with_interval(value: Floats, drawn: Floats | None) -> Figure:
    low, high = (None, None) if drawn is None else map(float, np.percentile(drawn, [2.5, 97.5]))
    return Figure(float(value[0]), low, high)


def sign_of(found: Figure | None, tolerance: float) -> int:
    """1 where ours is better by more than chance and the tolerance, -1 where it is worse, else 0."""
    if found is None or abs(found.value) <= tolerance:
        return 0
    if found.low is None or found.high is None or found.low > 0 or found.high < 0:
        return 1 if found.value > 0 else -1
    return 0
