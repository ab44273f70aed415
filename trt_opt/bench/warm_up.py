"""Running a side until its times stop changing."""

from __future__ import annotations

import math
import time
from statistics import median

from trt_opt.values.timing import TimedRunner, WarmUp

PIECES = 5
"""Pieces of the warm-up that must agree."""

PIECE_S = 0.05
"""A piece lasts at least so long: shorter ones say more of the scheduler than of the model."""

ALIKE = 0.05
"""Relative width within which the medians of the pieces must lie.

Two busy cores scatter by some per cent whatever runs on them; first runs, which allocate, and clocks that rise from
idle make steps of ten per cent and more.
"""


def warm_up(runner: TimedRunner, limit_s: float) -> tuple[WarmUp, float]:
    """Runs a prepared side until the medians of the last pieces agree, or the time is over.

    Args:
        runner: Prepared.
        limit_s: How long it may take, seconds.

    Returns:
        What was done, and how long one request takes now, milliseconds.
    """
    start = time.perf_counter()
    medians: list[float] = []
    total, requests = 0, 1
    while True:
        samples = runner.run_round(requests)
        total += len(samples.latency_ms)
        medians.append(median(samples.latency_ms))
        spent = time.perf_counter() - start
        last = medians[-PIECES:]
        stable = len(last) == PIECES and max(last) - min(last) <= ALIKE * min(last)
        if stable or spent >= limit_s:
            return WarmUp(total, spent, stable), medians[-1]
        requests = requests_for(PIECE_S, medians[-1])


def requests_for(seconds: float, latency_ms: float, least: int = 1) -> int:
    """How many requests fill so many seconds."""
    return max(least, math.ceil(1e3 * seconds / max(latency_ms, 1e-3)))
