"""What a level of a series leads to expect of the figures that come next, by chance alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from trt_opt.regress.location import SEED, Floats, pseudo_median, robust_sigma, student_quantile
from trt_opt.regress.segments import EXACT_SHARE, memory_of

WINDOWS = (1, 3, 5)
"""How many of the newest figures are held together against the level."""

CHANCE_SHARES: Mapping[int, float] = {1: 0.1, 3: 0.2, 5: 0.7}
"""How a check's chance of a false alarm is shared among the windows: most where a small lasting shift is found."""

FEWEST_AVERAGED = 5
"""One outlier among fewer figures than these would move their pseudo-median."""

AVERAGED_SHARE = 0.75
"""Of a window's share, what its pseudo-median gets; its median has the rest."""

CAUTION = 1.08
"""What is drawn again from figures has thinner tails than where they came from; found by simulation
(scripts/benchmarks/regression_statistics.py) as what keeps every kind of noise below the chance that was asked for."""

DRAWS = 2000

KNOWN_TAIL = 60
"""With so many figures, chance lets the next go beyond a rare outlier that none of them was in at most one check of
100: the worst case of p·(1 - p)^n over all rates p of outliers is 1 / (e·(n + 1))."""

TAIL_FACTOR = 2.0
"""A figure alone must be so many times farther from the level than any of those before it."""

PLAIN_FLOORS = 15
"""A figure alone that is worse by so many floors needs no such history."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far chance alone takes the middle of a few new figures from the level, upwards and downwards.

    Attributes:
        above: On the worse side.
        below: On the better side, as a positive number.
    """

    above: float
    below: float


@dataclass(frozen=True, slots=True)
class Shift:
    """What a few new figures are worse by, by one way of taking their middle.

    Attributes:
        count: How many figures.
        worse: Their middle less the level.
        chance: What chance alone does.
    """

    count: int
    worse: float
    chance: Reach

    @property
    def is_up(self) -> bool:
        """Whether chance does not explain that they are worse."""
        return self.worse > self.chance.above

    @property
    def is_down(self) -> bool:
        """Whether chance does not explain that they are better."""
        return -self.worse > self.chance.below


@dataclass(frozen=True, slots=True)
class Expectation:
    """A level and what chance adds to it; all in the unit of the level, positive is worse.

    Attributes:
        level: The pseudo-median.
        count: How many figures it is drawn from.
        worst: How far the worst of them lies above it.
        is_exact: Whether they repeat themselves.
        hidden: The lasting change that could pass for chance in five figures.
        medians: Window → what chance does to the median of so many new figures.
        pseudo_medians: Window → what it does to their pseudo-median, which sees smaller shifts and fewer outliers.
    """

    level: float
    count: int
    worst: float
    is_exact: bool
    hidden: float
    medians: Mapping[int, Reach]
    pseudo_medians: Mapping[int, Reach]

    def shifts(self, worse: Floats) -> tuple[Shift, ...]:
        """By how much the newest figures of a series are worse, the longest window first.

        Args:
            worse: The series, the newest last.
        """
        ways = ((self.pseudo_medians, pseudo_median), (self.medians, np.median))
        found = [
            Shift(count, float(middle(worse[-count:])) - self.level, chance)
            for reaches, middle in ways
            for count, chance in reaches.items()
        ]
        return tuple(sorted(found, key=lambda shift: -shift.count))

    def tells_alone(self, shift: float, floor: float) -> bool:
        """Whether one figure is enough to call this a change, and not one of the outliers that a series has."""
        if self.is_exact:
            return True
        is_known = self.count >= KNOWN_TAIL or shift >= PLAIN_FLOORS * floor
        return is_known and shift > TAIL_FACTOR * self.worst


def expectation_of(level: Floats, windows: Sequence[int], floor: float, confidence: float) -> Expectation:
    """What a level's own figures, drawn again and again, say of the next few.

    New figures are drawn from the level (with replacement, blurred by its scatter, so that a few figures have tails);
    the distances are widened for the level's own uncertainty, for few figures (Student's quantile over the normal one),
    and for what the series remembers from one figure to the next, which makes neighbours agree.

    Args:
        level: [n], positive is worse.
        windows: How many new figures are held together: those of `WINDOWS`, or more.
        floor: The least change that matters.
        confidence: Of a whole check.
    """
    middle = float(pseudo_median(level))
    scatter = robust_sigma(level)
    least = EXACT_SHARE * floor
    worst = float(np.max(level)) - middle
    long = [count for count in windows if count >= FEWEST_AVERAGED]
    if scatter < least and float(np.ptp(level)) < floor / 2:
        nothing = Reach(least, least)
        return Expectation(middle, len(level), worst, True, least, dict.fromkeys(windows, nothing), {})
    drawn = _drawn(level - middle, max(scatter, least))
    remembered = memory_of(level)

    def reach(count: int, middles: Floats, share: float) -> Reach:
        chance = (1 - confidence) * CHANCE_SHARES.get(count, CHANCE_SHARES[max(WINDOWS)]) * share
        low, high = np.quantile(middles, (chance, 1 - chance))
        widened = _widening(len(level), count, remembered, chance)
        return Reach(float(high) * widened, -float(low) * widened)

    medians = {
        count: reach(count, np.median(drawn[:, :count], axis=-1), 1 - AVERAGED_SHARE if count in long else 1.0)
        for count in windows
    }
    averaged = {count: reach(count, pseudo_median(drawn[:, :count]), AVERAGED_SHARE) for count in long}
    reached = float(np.quantile(np.median(drawn, axis=-1), confidence))
    hidden = reached * _widening(len(level), FEWEST_AVERAGED, remembered, 1 - confidence)
    return Expectation(middle, len(level), worst, False, hidden, medians, averaged)


def _drawn(deviations: Floats, scatter: float) -> Floats:
    rng = np.random.default_rng(SEED)
    shape = (DRAWS, max(WINDOWS))
    # Silverman's bandwidth, and the variance left as it was.
    blur = 1.06 * scatter * len(deviations) ** -0.2
    variance = float(np.var(deviations))
    picked = deviations[rng.integers(0, len(deviations), shape)] + rng.normal(0, blur, shape)
    shrunk = math.sqrt(variance / (variance + blur**2)) if variance > scatter**2 / 4 else 1.0
    return np.asarray(picked * shrunk, np.float64)


def _widening(figures: int, window: int, remembered: float, chance: float) -> float:
    uncertainty = math.sqrt(1 + window / figures)
    few = student_quantile(1 - chance, figures - 1) / NormalDist().inv_cdf(1 - chance) if figures > 1 else 1.0
    lags = np.arange(1, window)
    agreement = math.sqrt(1 + 2 * float(np.sum((1 - lags / window) * remembered**lags)))
    return CAUTION * uncertainty * few * agreement
