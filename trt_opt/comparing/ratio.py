"""How many times as fast one side is as another, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trt_opt.regress.ab import ABLimits, judge_ab
from trt_opt.values.metric import Interval
from trt_opt.values.timing import Timing

LIMITS = ABLimits(confidence=0.975)
"""The confidence of each bound, so that both together hold with 95 %; the floor serves no verdict here."""


@dataclass(frozen=True, slots=True)
class SpeedRatio:
    """A candidate's speed over a base's, timed in turns in the same run.

    Attributes:
        times: 1.7 is 1.7 times as fast.
        interval: Its 95 % interval.
        on_gpu: Whether it is the time on the GPU alone; end to end otherwise.
    """

    times: float
    interval: Interval
    on_gpu: bool

    @property
    def is_faster(self) -> bool:
        """Whether that is sure."""
        return self.interval[0] > 1

    @property
    def is_slower(self) -> bool:
        """Whether that is sure."""
        return self.interval[1] < 1


def speed_ratio(base: Timing, candidate: Timing) -> SpeedRatio | str:
    """The ratio, or why there is none.

    Args:
        base: What it is compared with.
        candidate: Timed in the same run.
    """
    if (base.kind == "onnxruntime") != (candidate.kind == "onnxruntime"):
        return "one side ran on a GPU and the other in ONNX Runtime on the processor, so their speeds do not compare"
    if base.batch != candidate.batch:
        return f"one side ran batches of {base.batch} and the other of {candidate.batch}"
    on_gpu = all(one.compute_ms is not None for side in (base, candidate) for one in side.rounds)
    effect, _, reason = judge_ab(_times(base, on_gpu=on_gpu), _times(candidate, on_gpu=on_gpu), None, LIMITS)
    if effect is None:
        return reason
    low, high = effect.interval
    return SpeedRatio(math.exp(-effect.worse), (math.exp(-high), math.exp(-low)), on_gpu)


def why_invalid(*timings: Timing) -> str | None:
    """Why these sides' times must not be told as facts; None where they may."""
    return "; ".join(f"{timing.name}: {problem}" for timing in timings for problem in timing.problems) or None


def _times(timing: Timing, *, on_gpu: bool) -> list[float]:
    """Round by round: milliseconds on the GPU, or seconds per sample."""
    if on_gpu:
        return [one.compute_ms or 0.0 for one in timing.rounds]
    return [1 / one.throughput_per_s if one.throughput_per_s > 0 else math.inf for one in timing.rounds]
