"""Whether a method is accurate enough: yes, no, or not to be told from these data."""

from __future__ import annotations

import math

from trt_opt.values.accuracy import TaskAccuracy
from trt_opt.values.advice import AdviceFacts, MethodFigures, SimulatedAccuracy

LEAST_SQNR_DB = 20.0
"""Asked for where no output looks like classes: an error of 1 % of the signal's energy. A rule of thumb: how much a
task bears, the task alone can tell."""


def meets_target(figures: MethodFigures | None, facts: AdviceFacts) -> bool | None:
    """Whether a method is accurate enough; None where that was not measured, as on random data, or is not clear."""
    accuracy = figures.accuracy if figures is not None else None
    if accuracy is None or facts.evaluation is None or facts.evaluation.random:
        return None
    return is_accurate(accuracy, facts.request.target_drop)


def is_accurate(accuracy: SimulatedAccuracy, target_drop: float) -> bool | None:
    """Whether at most so many points of top-1 are lost; None where so few samples cannot tell.

    More points lost than that count as a miss if the lower end of Wilson's 95 % interval of the loss is beyond the
    target too. Without labels an answer that changed need not have been right before: changed answers are a miss only
    if the SQNR is low as well.
    """
    lost, sqnr = accuracy.points_lost, accuracy.sqnr_db
    is_clean = None if sqnr is None else sqnr >= LEAST_SQNR_DB
    if accuracy.identical:
        return True
    if lost is None:
        return is_clean
    if lost <= target_drop:
        return True
    surely_lost = 100 * TaskAccuracy(max(accuracy.samples, 1), lost / 100, None).top1_interval[0]
    has_labels = accuracy.top1 is not None
    return False if surely_lost > target_drop and (has_labels or not is_clean) else None


def goodness(accuracy: SimulatedAccuracy | None) -> tuple[float, float]:
    """What to sort by: the fewest points lost first, then the highest SQNR; nothing measured is the least."""
    if accuracy is None:
        return -math.inf, -math.inf
    if accuracy.identical:
        return 0.0, math.inf
    sqnr = accuracy.sqnr_db
    lost = 0.0 if accuracy.points_lost is None else accuracy.points_lost
    return -lost, -math.inf if sqnr is None or math.isnan(sqnr) else sqnr


def accuracy_text(accuracy: SimulatedAccuracy) -> str:
    """What was simulated, in words."""
    if accuracy.identical:
        return f"the same numbers on all {accuracy.samples} samples"
    if accuracy.top1 is not None and accuracy.reference_top1 is not None:
        before, after = 100 * accuracy.reference_top1, 100 * accuracy.top1
        return f"top-1 goes from {before:.2f} % to {after:.2f} % on {accuracy.samples} samples"
    if accuracy.agreement is not None:
        return f"{100 * accuracy.agreement:.2f} % of the answers on {accuracy.samples} samples are the model's own"
    if accuracy.sqnr_db is None:
        return f"no output of {accuracy.samples} samples can be judged"
    return f"SQNR {accuracy.sqnr_db:.1f} dB on {accuracy.samples} samples"
