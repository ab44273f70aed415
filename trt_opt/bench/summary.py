"""From the requests of all rounds to a distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_opt.values.timing import LatencySummary, RoundSamples, RoundTiming


def summary_of(values: Sequence[float]) -> LatencySummary | None:
    """The distribution of latencies in milliseconds; None without any."""
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    median, p90, p95, p99 = (float(value) for value in np.percentile(array, (50, 90, 95, 99)))
    mean = float(array.mean())
    return LatencySummary(
        count=array.size,
        mean_ms=mean,
        median_ms=median,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        min_ms=float(array.min()),
        max_ms=float(array.max()),
        cv=float(array.std()) / mean if mean else 0.0,
    )


def round_of(samples: RoundSamples, batch: int) -> RoundTiming:
    """One round in four figures.

    Args:
        samples: What the runner measured.
        batch: Rows per request.
    """
    return RoundTiming(
        requests=len(samples.latency_ms),
        latency_ms=float(np.median(samples.latency_ms)),
        compute_ms=float(np.median(samples.compute_ms)) if samples.compute_ms else None,
        throughput_per_s=batch * len(samples.latency_ms) / samples.wall_s,
    )
