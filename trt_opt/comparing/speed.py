"""How fast the sides of a comparison are, timed in turns in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_opt.bench import Contender, timed
from trt_opt.comparing.sides import Participant
from trt_opt.errors import RequestError, StageError, TrtOptError
from trt_opt.telemetry import Telemetry, machine_identity
from trt_opt.values.machine_state import Environment
from trt_opt.values.progress import Progress, Silent
from trt_opt.values.samples import Dataset
from trt_opt.values.timing import Timing, TimingSettings

Arrays = Mapping[str, NDArray[np.generic]]

TRIAL: Mapping[str, Any] = {"rounds": 1, "round_s": 0.01, "warm_up_s": 0.01}
"""Enough to see whether a side can be timed at all."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was timed.

    Attributes:
        timings: Of the sides that could be timed, by the sides' names.
        environment: The machine meanwhile; None where nothing was timed.
        left_out: Why other sides were not timed, one sentence each.
    """

    timings: tuple[Timing, ...] = ()
    environment: Environment | None = None
    left_out: tuple[str, ...] = ()


NOT_TIMED = Speeds()


def speeds_of(sides: Sequence[Participant], data: Dataset, settings: TimingSettings, progress: Progress) -> Speeds:
    """Times every side that can be timed, fed with the first sample.

    Args:
        sides: The reference, then the candidates.
        data: The samples.
        settings: How they are timed.
        progress: Told of warm-ups and rounds.
    """
    first = next(iter(data), None)
    if first is None:
        return Speeds(left_out=("nothing was timed: there is no sample",))
    try:
        return _timed(sides, first.feed, settings, progress)
    except (RequestError, StageError):
        able, left_out = _able(sides, first.feed, settings)
        if not able or not left_out:
            reasons = left_out or ("nothing was timed: all sides together cannot be",)
            return Speeds(left_out=reasons)
        speeds = _timed(able, first.feed, settings, progress)
        return Speeds(speeds.timings, speeds.environment, left_out)


def _timed(sides: Sequence[Participant], feed: Arrays, settings: TimingSettings, progress: Progress) -> Speeds:
    contenders = [_contender(side, feed, settings) for side in sides]
    with Telemetry(on_gpu=any(side.runnable.gpu is not None for side in sides)) as watch:
        timings = timed(contenders, settings, watch, progress)
    return Speeds(timings, watch.environment())


def _able(
    sides: Sequence[Participant], feed: Arrays, settings: TimingSettings
) -> tuple[list[Participant], tuple[str, ...]]:
    """The sides that can be timed by themselves, and why the others cannot."""
    reasons = [(side, _why_not(side, feed, settings)) for side in sides]
    able = [side for side, reason in reasons if reason is None]
    return able, tuple(f"{side.side.name} could not be timed: {reason}" for side, reason in reasons if reason)


def _why_not(side: Participant, feed: Arrays, settings: TimingSettings) -> str | None:
    try:
        timed([_contender(side, feed, settings)], replace(settings, **TRIAL), _Nobody(), Silent())
    except TrtOptError as error:
        return error.what
    return None


def _contender(side: Participant, feed: Arrays, settings: TimingSettings) -> Contender:
    runnable = side.runnable
    manifest = runnable.manifest
    return Contender(
        name=side.side.name,
        runner=runnable.timed_runner(settings),
        feed=side.feeding.feed(feed),
        file=side.side.file,
        precision=side.side.precision,
        device=machine_identity().cpu if runnable.gpu is None else runnable.gpu.name,
        build_s=None if manifest is None else manifest.seconds.get("build"),
    )


class _Nobody:
    """Watches nothing."""

    def read(self) -> None:
        """Reads nothing."""
