"""Whether the newest figures of a series are worse than its past leads to expect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trt_opt.errors import RequestError
from trt_opt.regress.expectation import WINDOWS, Expectation, Shift, expectation_of
from trt_opt.regress.location import Floats
from trt_opt.regress.segments import SHORTEST, change_points, shortest_level
from trt_opt.values.accuracy import Verdict
from trt_opt.values.regression import Effect, MetricKind

JUST = 1 - 1e-9
"""A change of exactly the floor counts, whatever rounding makes of it."""

MOST_HIDDEN_FLOORS = 7.5
"""A series in which a lasting change of so many floors would not show tells nothing."""


@dataclass(frozen=True, slots=True)
class SeriesLimits:
    """What is asked of a series.

    Attributes:
        floor: The least change that matters, a share where the metric is told as a ratio, else in its unit; None takes
            the metric's own.
        confidence: How sure a FAIL must be, over all windows of one check.
        settled: After so many figures a change for the worse is the new level, and no longer an alarm.
        memory: How many figures of the current level make the baseline at most.
    """

    floor: float | None = None
    confidence: float = 0.99
    settled: int = 10
    memory: int = 90

    def __post_init__(self) -> None:
        if self.floor is not None and not (self.floor > 0 and math.isfinite(self.floor)):
            raise RequestError(f"the floor must be above 0, not {self.floor}")
        if not 0.5 < self.confidence < 1:
            raise RequestError(f"the confidence must be between 50 and 100 %, not {self.confidence:.0%}", hint="99")
        if self.settled <= max(WINDOWS) or self.memory < SHORTEST:
            raise RequestError(f"settled must be above {max(WINDOWS)}, and memory at least {SHORTEST}")


@dataclass(frozen=True, slots=True)
class SeriesJudgement:
    """What follows from a series.

    Attributes:
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: Why, in words and figures.
        baseline: What the history leads to expect, in the metric's unit; None without enough of it.
        effect: By how much the newest figures are worse; None likewise. `interval` holds one-sided bounds.
        change_points: Where a new level begins, as indexes, in order.
    """

    verdict: Verdict
    reason: str
    baseline: float | None = None
    effect: Effect | None = None
    change_points: tuple[int, ...] = ()


def judge_series(
    values: Sequence[float], metric: MetricKind, limits: SeriesLimits = SeriesLimits(), *, accepted: int = 0
) -> SeriesJudgement:
    """Judges the newest figure, and the newest few together, against the level before them.

    Args:
        values: In order of time, the newest last; all measured in the same environment.
        metric: What they are.
        limits: What is asked.
        accepted: The index of the first figure after the last change that the user accepted; what is before it is not
            judged with.
    """
    if (reason := _why_unusable(values, metric)) is not None:
        return SeriesJudgement("INCONCLUSIVE", reason)
    scale = _Scale(metric, limits.floor)
    worse = scale.worse(values[accepted:])
    changes = change_points(worse, scale.floor)
    told = tuple(accepted + index for index in changes)
    level, windows = _level_and_windows(worse, changes, limits, scale.floor)
    if len(level) < shortest_level(level, scale.floor):
        where = " at this level" if len(level) < len(values) - 1 else ""
        reason = f"not enough history: {len(level)} earlier figures{where}, and {SHORTEST} are needed"
        return SeriesJudgement("INCONCLUSIVE", reason, change_points=told)
    expected = expectation_of(level, windows, scale.floor, limits.confidence)
    effect, verdict, reason = _Check(worse, expected, scale, limits.confidence).outcome()
    return SeriesJudgement(verdict, reason, scale.value(expected.level), effect, told)


def _why_unusable(values: Sequence[float], metric: MetricKind) -> str | None:
    if not len(values):
        return "the series is empty"
    wrong = [
        index for index, value in enumerate(values) if not math.isfinite(value) or (metric.relative and not value > 0)
    ]
    if not wrong:
        return None
    which = "the newest figure" if wrong[-1] == len(values) - 1 else f"figure {wrong[-1] + 1} of {len(values)}"
    return f"{which} is no {metric.title}: {values[wrong[-1]]:g}"


def _level_and_windows(
    worse: Floats, changes: tuple[int, ...], limits: SeriesLimits, floor: float
) -> tuple[Floats, tuple[int, ...]]:
    """The level that the newest figures are held against, and how many of them are held together.

    A change for the better is the new level as soon as there is enough of it; a change for the worse stays an alarm
    until it has settled, and what came after it is not part of the level meanwhile.
    """
    begin, count = 0, len(worse)
    ends = [0, *changes, count]
    for index, at in enumerate(changes, start=1):
        after = worse[at : ends[index + 1]]
        if np.median(after) > np.median(worse[ends[index - 1] : at]) and count - at <= limits.settled:
            windows = {window for window in WINDOWS if window <= count - at} | {count - at}
            return worse[begin:at][-limits.memory :], tuple(sorted(windows))
        if count - 1 - at >= shortest_level(worse[at:-1], floor):
            begin = at
    # A window has a level of three times its length before it, but for the newest figure alone.
    held = tuple(window for window in WINDOWS if window == 1 or count - begin >= 4 * window)
    return worse[begin : count - held[-1]][-limits.memory :], held


@dataclass(frozen=True, slots=True)
class _Scale:
    metric: MetricKind
    asked: float | None

    @property
    def sign(self) -> int:
        return 1 if self.metric.better == "lower" else -1

    @property
    def floor(self) -> float:
        floor = self.metric.floor if self.asked is None else self.asked
        return math.log1p(floor) if self.metric.relative else floor

    def worse(self, values: Sequence[float]) -> Floats:
        figures = np.asarray(values, np.float64)
        return self.sign * (np.log(figures) if self.metric.relative else figures)

    def value(self, worse: float) -> float:
        return math.exp(self.sign * worse) if self.metric.relative else self.sign * worse

    def size(self, worse: float) -> str:
        """A change without its direction: "1.2 %"."""
        return self.change(abs(worse)).lstrip("+-")

    def change(self, worse: float) -> str:
        """A change of the figure as it is read: "+3.1 %", "-0.8 points", "-1.5 dB"."""
        # Rounded before it is written, and 0 added: no "-0.0".
        if self.metric.relative:
            return f"{round(100 * math.expm1(self.sign * worse), 1) + 0:+.1f} %"
        if self.metric.unit == "share":
            return f"{round(100 * self.sign * worse, 2) + 0:+.2f} points"
        return f"{round(self.sign * worse, 2) + 0:+.2f} {self.metric.unit}"


@dataclass(frozen=True, slots=True)
class _Check:
    worse: Floats
    expected: Expectation
    scale: _Scale
    confidence: float

    def outcome(self) -> tuple[Effect, Verdict, str]:
        """The effect that decides, the verdict and why."""
        shifts = self.expected.shifts(self.worse)
        alone = shifts[-1]
        up = [shift for shift in shifts if shift.worse >= self.scale.floor * JUST and shift.is_up]
        sure = [shift for shift in up if shift.count > 1 or self.expected.tells_alone(shift.worse, self.scale.floor)]
        if sure:
            return self._effect(sure[0]), "FAIL", self._told(sure[0])
        if up:
            return (
                self._effect(up[0]),
                "INCONCLUSIVE",
                f"{self._told(up[0])}; one figure may be an outlier: measure again",
            )
        if self.expected.hidden > MOST_HIDDEN_FLOORS * self.scale.floor:
            told = self.scale.change(self.expected.hidden)
            return self._effect(alone), "INCONCLUSIVE", f"too much scatter: a lasting {told} would not show"
        better = [shift for shift in shifts if -shift.worse >= self.scale.floor * JUST and shift.is_down]
        if better:
            return self._effect(better[0]), "PASS", f"better: {self._told(better[0])}"
        return self._effect(alone), "PASS", f"as before: {self._told(alone)}"

    def _effect(self, shift: Shift) -> Effect:
        # Turned around: the shift that is there is what was seen, less what chance adds to it.
        interval = (shift.worse - shift.chance.above, shift.worse + shift.chance.below)
        return Effect(shift.worse, interval, self.confidence, self.scale.floor)

    def _told(self, shift: Shift) -> str:
        over = "" if shift.count == 1 else f" over the last {shift.count}"
        chance = self.scale.size(shift.chance.above if shift.worse > 0 else shift.chance.below)
        seen = f"{self.scale.change(shift.worse)}{over}"
        return f"{seen} against {self.expected.count} before; chance alone reaches {chance}"
