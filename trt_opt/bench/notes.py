"""What a reader of a timing should know although it is valid: too few requests, two speeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_opt.values.timing import Timing

LEAST_FOR_P99 = 100
"""Below so many requests the 99th percentile is the largest or next to it."""

LEAST_ROUNDS = 10
"""Fewer medians say nothing of a shape."""

LEAST_SHARE = 0.2
"""Of the rounds in the smaller group: less are outliers."""

APART = 0.05
"""Relative distance of the groups below which nobody cares."""

SPREADS_APART = 6.0
"""Distance of the groups in their own standard deviations; halves of one normal distribution lie 2.6 apart."""


def notes_on(timing: Timing) -> tuple[str, ...]:
    """One sentence for each thing to know, the timing's name in front."""
    notes = []
    if timing.latency.count < LEAST_FOR_P99:
        notes.append(f"{timing.latency.count} requests are too few for p99, which is about the slowest of them")
    speeds = two_speeds([entry.latency_ms for entry in timing.rounds])
    if speeds is not None:
        low, high = speeds
        notes.append(f"its rounds have two speeds, {low:.3g} and {high:.3g} ms: the median lies at one or between them")
    return tuple(f"{timing.name}, batch {timing.batch}: {note}" for note in notes)


def two_speeds(medians: Sequence[float]) -> tuple[float, float] | None:
    """The centres of two groups that the rounds' medians fall into; None if they are one group.

    The ascending medians are cut where the squares within both parts add up to least (Fisher's natural break).

    Args:
        medians: Milliseconds, one per round, in any order.
    """
    if len(medians) < LEAST_ROUNDS:
        return None
    ordered = np.sort(np.asarray(medians, dtype=np.float64))
    least = max(2, round(LEAST_SHARE * ordered.size))
    cuts = range(least, ordered.size - least + 1)
    within = {cut: ordered[:cut].var() * cut + ordered[cut:].var() * (ordered.size - cut) for cut in cuts}
    cut = min(within, key=within.__getitem__)
    low, high = float(ordered[:cut].mean()), float(ordered[cut:].mean())
    spread = float(np.sqrt(within[cut] / ordered.size))
    return (low, high) if high - low > max(APART * low, SPREADS_APART * spread) else None
