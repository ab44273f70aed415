"""Where a series changed its level: change-points of figures that scatter."""

from __future__ import annotations

import math

import numpy as np

from trt_opt.regress.location import Floats, robust_sigma

SHORTEST = 5
"""Figures in a segment of a series that scatters."""

SHORTEST_EXACT = 3
"""Figures in a segment of a series that repeats itself."""

EXACT_SHARE = 0.1
"""A scatter below this share of the floor counts as none."""

DECISIVE = 4.5
"""How many standard errors apart two neighbouring segments must be, the place being chosen by the data."""


def scatter_of(values: Floats) -> float:
    """The standard deviation of neighbours around a level that may jump: from the differences of neighbours."""
    return robust_sigma(np.diff(values)) / math.sqrt(2)


def shortest_level(values: Floats, floor: float) -> int:
    """How many figures make a level: fewer where they repeat themselves."""
    return SHORTEST_EXACT if scatter_of(values) < EXACT_SHARE * floor else SHORTEST


def memory_of(values: Floats) -> float:
    """How much of itself a series remembers from one figure to the next, 0 … 0.9: the lag-one correlation.

    Its bias of about -(1 + 3r)/n for a correlation r is taken off; what `n` figures show by chance counts
    as none, and what is more is taken for a standard error more: too little of it raises false alarms.

    Source: M. G. Kendall, "Note on bias in the estimation of autocorrelation", Biometrika 41 (1954), 403-404.
    """
    count = len(values)
    if count < 8:
        return 0.0
    middle = float(np.median(values))
    reach = 3 * robust_sigma(values)
    centred = np.clip(values - middle, -reach, reach)
    energy = float(centred @ centred)
    if energy == 0:
        return 0.0
    found = float(centred[1:] @ centred[:-1]) / energy
    found += (1 + 3 * found) / count
    error = 1 / math.sqrt(count)
    return min(0.9, found + error) if found > 0.6 * error else 0.0


def change_points(values: Floats, floor: float) -> tuple[int, ...]:
    """The indexes at which a new level begins, in order.

    Binary segmentation by the difference of the two means over its standard error; single figures far from their
    neighbours are no level and are replaced by the median around them. Each place is found anew between its neighbours
    at the end, because the first cut is made before the others are known.

    Source: A. Sen and M. S. Srivastava, "On tests for detecting change in mean", Annals of Statistics 3 (1975), 98-108.

    Args:
        values: [n], finite; positive is worse.
        floor: The least change that matters.
    """
    shortest = shortest_level(values, floor)
    scale = max(scatter_of(values), EXACT_SHARE * floor)
    calm = _without_spikes(values, 4 * scale)
    found: list[int] = []
    pending = [(0, len(values))]
    while pending:
        begin, end = pending.pop()
        at = _best_cut(calm[begin:end], shortest, scale, floor)
        if at is not None:
            found.append(begin + at)
            pending += [(begin, begin + at), (begin + at, end)]
    return _found_again(calm, sorted(found), shortest, scale, floor)


def _found_again(calm: Floats, found: list[int], shortest: int, scale: float, floor: float) -> tuple[int, ...]:
    ends = [0, *found, len(calm)]
    again = []
    for index in range(1, len(ends) - 1):
        begin, end = ends[index - 1], ends[index + 1]
        at = _best_cut(calm[begin:end], shortest, scale, floor)
        if at is not None:
            again.append(begin + at)
    return tuple(sorted(set(again)))


def _without_spikes(values: Floats, reach: float) -> Floats:
    if len(values) < 5:
        return values
    padded = np.concatenate([values[2:0:-1], values, values[-2:-4:-1]])
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=-1)
    return np.asarray(np.where(np.abs(values - around) > reach, around, values), np.float64)


def _best_cut(values: Floats, shortest: int, scale: float, floor: float) -> int | None:
    count = len(values)
    if count < 2 * shortest:
        return None
    left = np.arange(shortest, count - shortest + 1)
    sums = np.cumsum(values)
    difference = (sums[-1] - sums[left - 1]) / (count - left) - sums[left - 1] / left
    errors = scale * np.sqrt(1 / left + 1 / (count - left))
    score = np.abs(difference) / errors
    best = int(np.argmax(score))
    level = np.where(np.arange(count) < left[best], 0.0, difference[best])
    remembered = memory_of(values - level)
    needed = DECISIVE * math.sqrt((1 + remembered) / (1 - remembered))
    # The least that a double can lose in a sum must not decide about a change of exactly the floor.
    is_change = score[best] > needed and abs(difference[best]) >= floor * (1 - 1e-9)
    at = int(left[best])
    return at if is_change and _begins_there(values, at, shortest) else None


def _begins_there(values: Floats, at: int, shortest: int) -> bool:
    """Whether the figure at a cut is of the new level; a younger one is cut too early, where a cut is first allowed."""
    if at not in (shortest, len(values) - shortest):
        return True
    before, after = np.mean(values[:at]), np.mean(values[at:])
    return bool(abs(values[at] - after) < abs(values[at] - before))
