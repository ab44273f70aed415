"""How far a candidate is from the edge of its budget: what a search steers by."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trt_opt.compare.limits import Limits
from trt_opt.values.accuracy import Comparison, OutputAccuracy


def margin(comparison: Comparison, limits: Limits) -> float:
    """The distance of the worst figure from its bound: 0 or more inside the budget, below 0 outside.

    Every bound counts in its own unit: points of the metric's drop, dB, points of agreement, points of the samples
    within tolerance. Where there are several bounds, one dB weighs as much as one point, which is arbitrary; the sign
    is not. Whether there were rows enough to tell is the verdict's to say.

    Args:
        comparison: Made with these limits, or with none but the same metric.
        limits: The budget.

    Returns:
        Minus infinity where an output or the metric is NaN or infinite, or a bound speaks of what is not there; plus
        infinity where nothing is bounded, or the only bound is an SQNR and there is no noise.
    """
    if not comparison.samples or not comparison.outputs or any(map(_is_broken, comparison.outputs)):
        return -math.inf
    distances = list(_distances(comparison, limits))
    if any(math.isnan(distance) for distance in distances):
        return -math.inf
    return min(distances, default=math.inf)


def _is_broken(output: OutputAccuracy) -> bool:
    return bool(output.not_finite) or math.isnan(output.max_abs_error)


def _distances(comparison: Comparison, limits: Limits) -> Iterator[float]:
    """Bound by bound; NaN where there is no figure."""
    metric = comparison.metric
    if metric is not None and metric.drop_points is not None and math.isnan(metric.drop_points):
        yield math.nan
    if limits.max_drop is not None:
        yield math.nan if metric is None or metric.drop_points is None else limits.max_drop - metric.drop_points
    if limits.min_agreement is not None:
        yield from _each([_agreement(output, limits.min_agreement) for output in comparison.outputs if output.rows])
    if limits.min_sqnr_db is not None:
        yield from _each([_sqnr_db(output) - limits.min_sqnr_db for output in comparison.outputs if output.is_float])
    if limits.tolerances is not None:
        shares = [output.within_tolerance for output in comparison.outputs]
        yield from (math.nan if share is None else 100 * (share - 1) for share in shares)


def _each(distances: list[float]) -> list[float]:
    return distances or [math.nan]


def _agreement(output: OutputAccuracy, limit: float) -> float:
    # From the counts, as the verdict: a rounded share can miss a limit that is met exactly.
    agreeing = round((output.top1_agreement or 0.0) * output.rows)
    return (100 * agreeing - limit * output.rows) / output.rows


def _sqnr_db(output: OutputAccuracy) -> float:
    """Infinite without noise, and minus infinity for noise where the reference is silent."""
    if output.sqnr_db is not None:
        return output.sqnr_db
    return math.inf if output.max_abs_error == 0 else -math.inf
