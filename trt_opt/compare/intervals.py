"""How sure a figure is: 95 % confidence intervals of differences, means and ratios."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trt_opt.values.metric import Interval, Z

Floats = NDArray[np.float64]

REPLICATES = 1000
"""Resampled data sets of a bootstrap; 25 of them lie beyond each end of the interval."""

SEED = 0
"""The same data give the same interval."""

INDICES_AT_A_TIME = 1 << 20

STEPS = 60
"""Halvings until the end of a score interval is exact to rounding."""


def paired_interval(lost: int, gained: int, rows: int) -> Interval:
    """Tango's 95 % score interval of the difference of two shares that were found on the same rows, -1 … 1.

    It holds all differences that the score test does not reject. Without any discordant row it still has a width,
    z²/(rows + z²) to either side.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998), 891-908.

    Args:
        lost: Rows that the first was right about and the second was not.
        gained: The reverse.
        rows: All rows, at least 1.

    Returns:
        The interval of (lost - gained) / rows.
    """
    difference = (lost - gained) / rows

    def rejected(delta: float) -> bool:
        return abs(lost - gained - rows * delta) > Z * math.sqrt(_tango_variance(lost, gained, rows, delta))

    return _last_kept(difference, -1.0, rejected), _last_kept(difference, 1.0, rejected)


def _tango_variance(lost: int, gained: int, rows: int, delta: float) -> float:
    """The variance of `lost - gained` if the true difference is `delta`, with the likeliest share of gained rows."""
    b = (2 * rows - lost + gained) * delta - lost - gained
    c = -gained * delta * (1 - delta)
    share = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    return max(0.0, rows * (2 * share + delta * (1 - delta)))


def _last_kept(inside: float, outside: float, rejected: Callable[[float], bool]) -> float:
    if not rejected(outside):
        return outside
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return inside


def bootstrap_interval(figures: Floats, statistic: Callable[[Floats], Floats]) -> Interval | None:
    """Percentile bootstrap: the middle 95 % of what a statistic is on resampled data sets.

    Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3. With few samples it is
    too narrow: it cannot know of samples unlike those seen.

    Args:
        figures: [samples, k]: what the statistic needs of every sample, such as its energies.
        statistic: From the sums of all samples, [replicates, k], to [replicates].

    Returns:
        None with fewer than two samples, or where something is not finite.
    """
    samples = len(figures)
    if samples < 2 or not np.isfinite(figures).all():
        return None
    generator = np.random.default_rng(SEED)
    at_a_time = max(1, INDICES_AT_A_TIME // samples)
    found = []
    for start in range(0, REPLICATES, at_a_time):
        drawn = generator.integers(0, samples, (min(at_a_time, REPLICATES - start), samples))
        sums = np.stack([column[drawn].sum(1) for column in figures.T], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(statistic(sums))
    values = np.concatenate(found)
    if np.isnan(values).any():
        return None
    # No interpolation: between a number and infinity there is nothing.
    low, high = np.quantile(values, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def mean_interval(scores: Floats) -> Interval | None:
    """Of the mean of one score per sample, [samples]."""
    return bootstrap_interval(scores[:, None], lambda sums: sums[:, 0] / len(scores))
