"""Sides timed in turns, so that whatever happens to the machine happens to all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trt_opt.bench.summary import round_of, summary_of
from trt_opt.bench.warm_up import requests_for, warm_up
from trt_opt.errors import StageError
from trt_opt.values.engine import FileRecord
from trt_opt.values.progress import Progress
from trt_opt.values.timing import RoundSamples, RoundTiming, TimedRunner, Timing, TimingSettings, WarmUp

PROFILED = 20
"""Requests under the profiler, whose medians are shown."""

LEAST_REQUESTS = 3
"""Of a round, so that its median is not a single request."""


class Watch(Protocol):
    """Reads the machine's state between rounds."""

    def read(self) -> None:
        """A state in the middle of the measurement."""


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A side to be timed, and what is known of it.

    Attributes:
        name: What results call it.
        runner: Runs it.
        feed: What every request is fed with.
        file: The model or engine.
        precision: "FP32", …; empty where nobody knows.
        device: What it runs on.
        build_s: How long the engine's build took; None where nobody knows.
    """

    name: str
    runner: TimedRunner
    feed: Mapping[str, NDArray[np.generic]]
    file: FileRecord
    precision: str = ""
    device: str = ""
    build_s: float | None = None


def timed(
    contenders: Sequence[Contender], settings: TimingSettings, watch: Watch, progress: Progress
) -> tuple[Timing, ...]:
    """Times sides in turns: every round runs all of them, each time in another order.

    All are loaded at the same time and warmed up one after another. A side that waits costs nothing but memory.

    Args:
        contenders: The sides; runners that are entered and left here.
        settings: How they are timed.
        watch: Asked for the machine's state after every round.
        progress: Told of warm-ups and rounds.

    Returns:
        One timing per side, in their order.

    Raises:
        TrtOptError: A side cannot be loaded or run.
    """
    with ExitStack() as stack:
        for contender in contenders:
            stack.enter_context(contender.runner)
        sides = _warmed_up(contenders, settings, progress)
        progress.start("time", settings.rounds * len(sides), "rounds")
        for number in range(settings.rounds):
            for side in in_turn(sides, number):
                side.run()
                progress.advance()
            watch.read()
        progress.finish()
        return tuple(side.timing() for side in sides)


def in_turn(sides: Sequence[_Side], number: int) -> list[_Side]:
    """The order of one round: each side is first equally often, and each neighbour comes from both sides.

    Two sides alternate as AB BA AB BA, which cancels a linear drift.
    """
    first = (number // 2) % len(sides)
    order = [*sides[first:], *sides[:first]]
    return order[::-1] if number % 2 else order


def _warmed_up(contenders: Sequence[Contender], settings: TimingSettings, progress: Progress) -> list[_Side]:
    progress.start("warm up", len(contenders), "models")
    sides = []
    for contender in contenders:
        contender.runner.prepare(contender.feed, settings)
        done, latency_ms = warm_up(contender.runner, settings.warm_up_s)
        sides.append(_Side(contender, settings, done, requests_for(settings.round_s, latency_ms, LEAST_REQUESTS)))
        progress.advance()
    progress.finish()
    return sides


@dataclass(slots=True, eq=False)
class _Side:
    """A side while it is timed."""

    contender: Contender
    settings: TimingSettings
    warm_up: WarmUp
    requests: int
    rounds: list[RoundTiming] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    enqueue_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0

    def run(self) -> None:
        """One round."""
        samples = self.contender.runner.run_round(self.requests)
        if not samples.latency_ms or not samples.wall_s > 0 or not min(samples.latency_ms) > 0:
            raise StageError("a round took no time, so nothing was measured", where=self.contender.name)
        self.rounds.append(round_of(samples, self._batch))
        self._keep(samples)

    def timing(self) -> Timing:
        """What the rounds add up to."""
        contender = self.contender
        latency = summary_of(self.latency_ms)
        if latency is None:
            raise StageError("no request was timed", where=contender.name)
        return Timing(
            name=contender.name,
            kind=contender.runner.kind,
            library=contender.runner.library,
            device=contender.device,
            precision=contender.precision,
            file=contender.file,
            shapes={name: tuple(array.shape) for name, array in contender.feed.items()},
            batch=self._batch,
            settings=self.settings,
            warm_up=self.warm_up,
            rounds=tuple(self.rounds),
            latency=latency,
            compute=summary_of(self.compute_ms),
            enqueue=summary_of(self.enqueue_ms),
            throughput_per_s=self._batch * latency.count / self.wall_s,
            memory=contender.runner.memory(),
            build_s=contender.build_s,
            problems=tuple(self._problems()),
            layers=contender.runner.layer_times(PROFILED) if self.settings.layers else (),
        )

    def _keep(self, samples: RoundSamples) -> None:
        self.latency_ms += samples.latency_ms
        self.compute_ms += samples.compute_ms
        self.enqueue_ms += samples.enqueue_ms
        self.wall_s += samples.wall_s

    @property
    def _batch(self) -> int:
        return batch_of(self.contender.feed)

    def _problems(self) -> list[str]:
        if self.warm_up.stable:
            return []
        return [f"its times were still changing after {self.warm_up.seconds:.1f} s of warm-up (--warm-up-s)"]


def batch_of(feed: Mapping[str, NDArray[np.generic]]) -> int:
    """Rows per request: the first dimension of the inputs, where all that have one agree on it; else 1."""
    firsts = {array.shape[0] for array in feed.values() if array.ndim}
    return firsts.pop() if len(firsts) == 1 else 1
