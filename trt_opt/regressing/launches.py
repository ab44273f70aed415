"""Sides that are started anew again and again, as every start deals a process a speed of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trt_opt.bench import Contender, Watch, timed
from trt_opt.bench.summary import summary_of
from trt_opt.errors import StageError
from trt_opt.values.progress import Progress
from trt_opt.values.timing import (
    LatencySummary,
    LayerTime,
    MemoryUse,
    RoundSamples,
    RunnerKind,
    TimedRunner,
    Timing,
    TimingSettings,
    WarmUp,
)

Arrays = Mapping[str, NDArray[np.generic]]

MOST_UNSTABLE = 0.5
"""Share of the launches of a side that may still have been warming up: neighbours in a round bear it alike."""


@dataclass(slots=True, eq=False)
class Launches:
    """Sides, and all launches of them so far.

    Attributes:
        fresh: Makes the sides' contenders, each with a runner that was not used yet.
        settings: How one launch is timed; `rounds` are those of a launch.
        watch: Asked for the machine's state after every round.
        progress: Told of warm-ups and rounds.
    """

    fresh: Callable[[], Sequence[Contender]]
    settings: TimingSettings
    watch: Watch
    progress: Progress
    _timings: list[tuple[Timing, ...]] = field(default_factory=list)
    _samples: list[tuple[tuple[RoundSamples, ...], ...]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._timings)

    def add(self) -> None:
        """Starts all sides, times them in turns, and ends them; the first in turn is another one each time."""
        contenders = list(self.fresh())
        kept = [_KeptRunner(contender.runner) for contender in contenders]
        sides = [replace(contender, runner=runner) for contender, runner in zip(contenders, kept, strict=True)]
        turn = self.count % len(sides)
        timings = timed([*sides[turn:], *sides[:turn]], self.settings, self.watch, self.progress)
        back = len(sides) - turn
        self._timings.append((*timings[back:], *timings[:back]))
        # What came before the last rounds was the warm-up.
        self._samples.append(tuple(tuple(runner.samples[-self.settings.rounds :]) for runner in kept))

    def timings(self) -> tuple[Timing, ...]:
        """One per side, over all launches; rounds in order, equally many from each launch."""
        return tuple(self._merged(side) for side in range(len(self._timings[0])))

    def _merged(self, side: int) -> Timing:
        timings = [launch[side] for launch in self._timings]
        samples = [sample for launch in self._samples for sample in launch[side]]
        latency = _summed(samples, "latency_ms")
        if latency is None:
            raise StageError("no request was timed", where=timings[0].name)
        unstable = sum(not timing.warm_up.stable for timing in timings)
        problem = f"its times were still changing in {unstable} of {self.count} launches (--warm-up-s)"
        return replace(
            timings[-1],
            settings=replace(self.settings, rounds=self.settings.rounds * self.count),
            warm_up=WarmUp(
                requests=sum(timing.warm_up.requests for timing in timings),
                seconds=sum(timing.warm_up.seconds for timing in timings),
                stable=unstable == 0,
            ),
            rounds=tuple(entry for timing in timings for entry in timing.rounds),
            latency=latency,
            compute=_summed(samples, "compute_ms"),
            enqueue=_summed(samples, "enqueue_ms"),
            throughput_per_s=timings[-1].batch * latency.count / sum(sample.wall_s for sample in samples),
            problems=(problem,) if unstable > MOST_UNSTABLE * self.count else (),
        )


def _summed(samples: Sequence[RoundSamples], name: str) -> LatencySummary | None:
    return summary_of([value for sample in samples for value in getattr(sample, name)])


class _KeptRunner:
    """Keeps what every round measured, which a timing sums up.

    Args:
        runner: Does the work.
    """

    def __init__(self, runner: TimedRunner) -> None:
        self._runner = runner
        self.samples: list[RoundSamples] = []

    @property
    def name(self) -> str:
        return self._runner.name

    @property
    def kind(self) -> RunnerKind:
        return self._runner.kind

    @property
    def library(self) -> str:
        return self._runner.library

    def infer(self, feed: Arrays, /) -> Arrays:
        return self._runner.infer(feed)

    def prepare(self, feed: Arrays, settings: TimingSettings) -> None:
        self._runner.prepare(feed, settings)

    def run_round(self, requests: int) -> RoundSamples:
        self.samples.append(self._runner.run_round(requests))
        return self.samples[-1]

    def layer_times(self, requests: int) -> tuple[LayerTime, ...]:
        return self._runner.layer_times(requests)

    def memory(self) -> MemoryUse:
        return self._runner.memory()

    def __enter__(self) -> _KeptRunner:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, trace)
