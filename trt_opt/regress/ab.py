"""Whether a candidate is slower than a base, from the rounds of both, timed in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trt_opt.errors import RequestError
from trt_opt.regress.blocks import block_medians, log_ratios, why_not_paired
from trt_opt.regress.location import bootstrap_interval
from trt_opt.values.accuracy import Verdict
from trt_opt.values.regression import Effect, PilotNoise


@dataclass(frozen=True, slots=True)
class ABLimits:
    """What is asked of a candidate.

    Attributes:
        floor: The least slowdown that matters, as a share: 0.02 is 2 %.
        confidence: How sure a FAIL and a PASS each must be.
        blocks: Into how many stretches the rounds are cut, each of which counts once: the launches.
    """

    floor: float = 0.02
    confidence: float = 0.99
    blocks: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise RequestError(f"the floor must be a share between 0 and 1, not {self.floor}", hint="2%")
        if not 0.5 < self.confidence < 1:
            raise RequestError(f"the confidence must be between 50 and 100 %, not {self.confidence:.0%}", hint="99")
        if self.blocks < 5:
            raise RequestError(f"at least 5 blocks are needed, not {self.blocks}")


def judge_ab(
    base: Sequence[float],
    candidate: Sequence[float],
    pilot: PilotNoise | None,
    limits: ABLimits,
    *,
    again: Sequence[float] = (),
) -> tuple[Effect | None, Verdict, str]:
    """By how much a candidate is slower, the verdict, and why.

    FAIL needs both: a slowdown of at least the floor (and of at least what this machine can tell), and the confidence
    that there is a slowdown at all. PASS needs the confidence that a slowdown of the floor or more is excluded.
    Anything else is INCONCLUSIVE.

    Args:
        base: A time per round, in order: the round's median.
        candidate: Likewise, timed in the same turns.
        pilot: The base against itself.
        limits: Floor, confidence and launches.
        again: The base's second side in the pilot, which tells of the base as well as the first.
    """
    sides = [("the base", base), ("the candidate", candidate)] + ([("the base again", again)] if len(again) else [])
    if (reason := why_not_paired(sides)) is not None:
        return None, "INCONCLUSIVE", reason
    pairs = [log_ratios(one, candidate) for one in (base, again) if len(one)]
    worse, interval = bootstrap_interval(block_medians(np.array(pairs), limits.blocks), limits.confidence)
    effect = Effect(worse, interval, limits.confidence, math.log1p(limits.floor))
    return effect, *verdict_of(effect, pilot)


def verdict_of(effect: Effect, pilot: PilotNoise | None) -> tuple[Verdict, str]:
    """What an effect comes to, and why."""
    low, high = effect.interval
    told = max(effect.floor, pilot.floor if pilot else 0.0)
    sure = f"with {100 * effect.confidence:.4g} % confidence"
    if effect.worse >= told and low > 0:
        return "FAIL", f"slower by {as_percent(effect.worse)}, by at least {as_percent(low)} {sure}"
    if high < effect.floor:
        return "PASS", f"a slowdown of {as_percent(effect.floor)} or more is excluded {sure} ({between(effect)})"
    if effect.worse >= effect.floor:
        limit = f"this machine tells {as_percent(told)} or more apart" if low > 0 else "that may be chance"
        return "INCONCLUSIVE", f"slower by {as_percent(effect.worse)} ({between(effect)}), but {limit}"
    return "INCONCLUSIVE", (
        f"a slowdown of {as_percent(high)} cannot be excluded {sure} ({between(effect)}): "
        "more launches, a quieter machine, or a higher floor"
    )


def between(effect: Effect) -> str:
    """Both bounds, in words: "-0.4 % to +1.2 %"."""
    return " to ".join(f"{100 * math.expm1(end):+.1f} %" for end in effect.interval)


def as_percent(worse: float) -> str:
    """A log-ratio as a change in per cent: "3.1 %"."""
    return f"{100 * math.expm1(worse):.1f} %"


def share_from_text(text: str) -> float:
    """A share as it is typed: "2%" and "0.02" are the same; "2" is taken for neither.

    Raises:
        RequestError: It is no share between 0 and 1.
    """
    digits = text.strip()
    try:
        share = float(digits.removesuffix("%")) / 100 if digits.endswith("%") else float(digits)
    except ValueError as error:
        raise RequestError(f"{text!r} is no share", hint="2% or 0.02") from error
    if not 0 < share < 1:
        raise RequestError(f"{text!r} is no share between 0 and 100 %", hint="2% or 0.02")
    return share
