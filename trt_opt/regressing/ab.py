"""A candidate against a base, both timed here and now, in turns, launch after launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from trt_opt.bench import Contender
from trt_opt.benching import BenchRequest, Feed, contender, feed_of, named_apart
from trt_opt.errors import RequestError
from trt_opt.regress.ab import ABLimits, judge_ab
from trt_opt.regress.blocks import FEWEST_BLOCKS
from trt_opt.regress.pilot import pilot_noise
from trt_opt.regressing.launches import Launches
from trt_opt.runnables import Runnable, runnable
from trt_opt.telemetry import Telemetry
from trt_opt.values.accuracy import Verdict
from trt_opt.values.machine_state import Environment
from trt_opt.values.progress import Progress, Silent
from trt_opt.values.regression import ABResult, Effect, PilotNoise
from trt_opt.values.shapes import Shape
from trt_opt.values.timing import RoundTiming, Timing, TimingSettings

LAUNCH = TimingSettings(rounds=5, round_s=0.1, warm_up_s=1.0)
"""How one launch is timed; a short warm-up, as what it leaves over is the same for both sides of a round."""


@dataclass(frozen=True, slots=True)
class ABRequest:
    """What is to be compared, and how.

    Attributes:
        base: An ONNX file or an engine.
        candidate: Likewise.
        data: Whose first sample is fed; None makes random numbers up.
        preprocess: How images become the input.
        shapes: Of inputs with dynamic dimensions.
        batch: Rows per request; None leaves them as data and shapes say.
        python: The interpreter that has TensorRT.
        launches: How often the sides are started before there is a verdict.
        most_launches: How often they may be started in all while the verdict is INCONCLUSIVE.
        settings: How a launch is timed; `rounds` are those of a launch.
        pilot: Whether the base runs against itself in the same turns.
        limits: Floor and confidence; its blocks are the launches.
        allow_invalid: Whether a machine that was not quiet, or sides that were not stable, leave the verdict alone.
    """

    base: str
    candidate: str
    data: str | None = None
    preprocess: str | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    batch: int | None = None
    python: str | None = None
    launches: int = 10
    most_launches: int = 30
    settings: TimingSettings = LAUNCH
    pilot: bool = True
    limits: ABLimits = field(default_factory=ABLimits)
    allow_invalid: bool = False

    def __post_init__(self) -> None:
        if self.launches < FEWEST_BLOCKS:
            raise RequestError(f"at least {FEWEST_BLOCKS} launches are needed, not {self.launches}", hint="--launches")


def ab_result(request: ABRequest, progress: Progress | None = None) -> ABResult:
    """Times both sides, and the base against itself, and judges the candidate.

    While it cannot be told, more launches follow, up to `most_launches`. That looks at the figures more than once; the
    simulation in scripts/benchmarks/regression_statistics.py looks as often and counts the false alarms of it.

    Args:
        request: What is asked.
        progress: Told of warm-ups and rounds.

    Raises:
        TrtOptError: A side cannot be read, loaded, fed or run.
    """
    told = progress or Silent()
    sides = _sides(request)
    with Telemetry(on_gpu=any(side.kind != "onnxruntime" for side, _ in sides)) as watch:
        launches = Launches(lambda: _contenders(sides, request, watch), request.settings, watch, told)
        for _ in range(request.launches):
            launches.add()
        judged = _judged(launches, request)
        while judged.verdict == "INCONCLUSIVE" and launches.count < request.most_launches:
            told.note(f"not told yet after {launches.count} launches: {judged.reason}")
            for _ in range(min(request.launches, request.most_launches - launches.count)):
                launches.add()
            judged = _judged(launches, request)
    return _result(launches.timings(), judged, watch.environment(), request)


@dataclass(frozen=True, slots=True)
class _Judged:
    metric: str
    effect: Effect | None
    pilot: PilotNoise | None
    verdict: Verdict
    reason: str


def _sides(request: ABRequest) -> list[tuple[Runnable, Feed]]:
    """The base and the candidate, and what they are fed with."""
    files = (request.base, request.candidate)
    asked = BenchRequest(files, data=request.data, preprocess=request.preprocess, shapes=request.shapes)
    sides = named_apart([runnable(file, request.python) for file in files])
    return [(side, feed_of(side, asked, request.batch)) for side in sides]


def _contenders(sides: Sequence[tuple[Runnable, Feed]], request: ABRequest, watch: Telemetry) -> list[Contender]:
    """Both sides with runners of their own, and the base again where there is a pilot."""
    base, feed = sides[0]
    again = [(replace(base, name=f"{base.name} again"), feed)] if request.pilot else []
    return [contender(side, fed, (request.settings, None), watch) for side, fed in (*sides, *again)]


def _judged(launches: Launches, request: ABRequest) -> _Judged:
    timings = launches.timings()
    metric = "compute_ms" if all(timing.compute is not None for timing in timings) else "latency_ms"
    base, candidate, *again = ([_figure(entry, metric) for entry in timing.rounds] for timing in timings)
    limits = replace(request.limits, blocks=launches.count)
    pilot = None
    if again:
        pilot = pilot_noise(base, again[0], blocks=limits.blocks, confidence=limits.confidence)
    effect, verdict, reason = judge_ab(base, candidate, pilot, limits, again=again[0] if again else ())
    return _Judged(metric, effect, pilot, verdict, reason)


def _figure(entry: RoundTiming, metric: str) -> float:
    return entry.latency_ms if metric == "latency_ms" or entry.compute_ms is None else entry.compute_ms


def _result(timings: Sequence[Timing], judged: _Judged, environment: Environment, request: ABRequest) -> ABResult:
    verdict, reason = judged.verdict, judged.reason
    problems = [*environment.problems, *(f"{side.name}: {problem}" for side in timings for problem in side.problems)]
    if problems and verdict != "INCONCLUSIVE":
        told = "; ".join(problems)
        if request.allow_invalid:
            reason = f"{reason} (not a quiet run: {told})"
        else:
            verdict, reason = "INCONCLUSIVE", f"the run is invalid: {told}; as it is: {judged.reason}"
    return ABResult(
        base=timings[0],
        candidate=timings[1],
        metric=judged.metric,
        effect=judged.effect,
        pilot=judged.pilot,
        verdict=verdict,
        reason=reason,
        environment=environment,
    )
