"""What a machine can tell: the base timed against itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_opt.errors import DataError
from trt_opt.regress.blocks import block_medians, log_ratios, why_not_paired
from trt_opt.regress.location import bootstrap_interval, robust_sigma
from trt_opt.values.regression import PilotNoise


def pilot_noise(base: Sequence[float], again: Sequence[float], *, blocks: int, confidence: float) -> PilotNoise:
    """What two sides that are the same differ by.

    The floor is how far the bounds of their difference reach: the shift that they show, and what the scatter from
    launch to launch leaves open on top. A candidate that differs by less differs by no more than the base from itself.

    Args:
        base: A figure per round, in order.
        again: The same model in a process of its own, timed in the same turns.
        blocks: The launches.
        confidence: Of each bound, 0.5 … 1.

    Raises:
        DataError: The figures are no times, or too few.
    """
    if (reason := why_not_paired((("the base", base), ("the base again", again)))) is not None:
        raise DataError(reason)
    ratios = log_ratios(base, again)
    shift, (low, high) = bootstrap_interval(block_medians(ratios, blocks), confidence)
    return PilotNoise(
        rounds=len(base),
        spread=robust_sigma(np.asarray(ratios)),
        shift=shift,
        floor=max(abs(low), abs(high)),
    )
