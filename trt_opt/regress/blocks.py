"""Rounds of two sides as independent log-ratios: one per launch, or per stretch of neighbouring rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trt_opt.regress.location import Floats

FEWEST_BLOCKS = 5
"""With fewer, a bound at 99 % is wider than four standard deviations and tells nothing."""


def why_unusable(side: str, values: Sequence[float]) -> str | None:
    """Why figures cannot be judged with; None where they can."""
    if not values:
        return f"{side} has no rounds"
    wrong = [value for value in values if not (math.isfinite(value) and value > 0)]
    if wrong:
        return f"{side} has rounds that are no times: {wrong[0]:g} in {len(wrong)} of {len(values)}"
    return None


def why_not_paired(sides: Sequence[tuple[str, Sequence[float]]]) -> str | None:
    """Why sides cannot be compared round by round; None where they can.

    Args:
        sides: What each is called, and its rounds in order.
    """
    for side, values in sides:
        if (reason := why_unusable(side, values)) is not None:
            return reason
    counts = {len(values) for _, values in sides}
    if len(counts) > 1:
        return "the sides have different numbers of rounds: " + ", ".join(f"{name} {len(v)}" for name, v in sides)
    if min(counts) < FEWEST_BLOCKS:
        return f"{min(counts)} rounds are too few: at least {FEWEST_BLOCKS} are needed, and 50 are the default"
    return None


def log_ratios(reference: Sequence[float], values: Sequence[float]) -> Floats:
    """log(value / reference), round by round."""
    return np.log(np.asarray(values, np.float64)) - np.log(np.asarray(reference, np.float64))


def block_medians(ratios: Floats, blocks: int) -> Floats:
    """The median log-ratio of each of so many stretches of neighbouring rounds, as equal in length as can be.

    Rounds of one launch share what its processes were dealt (memory layout, page colours, a clock that stays), and
    neighbouring rounds share the weather; their medians do not.

    Source: T. Kalibera and R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013, 63-74.

    Args:
        ratios: [rounds] or [pairs, rounds]; pairs are two bases against one candidate.
        blocks: The launches, where a launch is a stretch.

    Returns:
        [blocks], or one per round where there are fewer rounds.
    """
    stretches = np.array_split(np.atleast_2d(ratios), min(blocks, ratios.shape[-1]), axis=-1)
    return np.array([float(np.median(stretch)) for stretch in stretches])
