"""Whether something became worse, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from trt_opt.values.accuracy import Verdict
from trt_opt.values.history import Better, SeriesKey
from trt_opt.values.machine_state import Environment
from trt_opt.values.metric import Interval
from trt_opt.values.timing import Timing


@dataclass(frozen=True, slots=True)
class MetricKind:
    """A figure that can become worse.

    Attributes:
        name: "latency_ms".
        title: "latency", for headings.
        unit: "ms", "per s", "share", "dB", "bytes", "s".
        better: Whether less is better or more.
        relative: Whether a change is told as a ratio (time, size) or as a difference (accuracy).
        floor: The least change that matters: a share of the value where relative (0.02 is 2 %), else in the unit.
    """

    name: str
    title: str
    unit: str
    better: Better
    relative: bool
    floor: float


@dataclass(frozen=True, slots=True)
class Effect:
    """By how much a candidate is worse than a base.

    Attributes:
        worse: Positive is worse: log(candidate / base) of a latency, its negative of a throughput; base - candidate of
            an accuracy.
        interval: Its confidence interval.
        confidence: Of the interval: 0.99.
        floor: The effect below which nothing is called a regression, in the same unit.
    """

    worse: float
    interval: Interval
    confidence: float
    floor: float


@dataclass(frozen=True, slots=True)
class PilotNoise:
    """What the A/A pilot learnt of this machine: the base against itself.

    Attributes:
        rounds: Rounds on each of the two sides.
        spread: Standard deviation of a round's log-ratio, robustly estimated.
        shift: The log-ratio of the two sides, which ought to be 0.
        floor: The least effect this machine can tell, from both.
    """

    rounds: int
    spread: float
    shift: float
    floor: float


@dataclass(frozen=True, slots=True)
class ABResult:
    """Two sides timed in turns.

    Attributes:
        base: What it was.
        candidate: What it is now.
        metric: What is judged: "latency_ms" or "compute_ms".
        effect: By how much the candidate is slower; None where nothing could be compared.
        pilot: The base against itself; None where it was left out.
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: Why.
        environment: The machine meanwhile.
    """

    base: Timing
    candidate: Timing
    metric: str
    effect: Effect | None
    pilot: PilotNoise | None
    verdict: Verdict
    reason: str
    environment: Environment


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """A figure in its series.

    Attributes:
        run: The run's id.
        recorded_at: UTC, ISO 8601.
        label: The run's label.
        value: The figure.
        is_valid: Whether it was judged with.
        is_change: Whether a change-point lies right before it.
    """

    run: str
    recorded_at: str
    label: str
    value: float
    is_valid: bool = True
    is_change: bool = False


@dataclass(frozen=True, slots=True)
class SeriesCheck:
    """The newest figure of a series against its history.

    Attributes:
        key: The series.
        metric: What it is.
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: Why, in words and figures.
        value: The newest figure; NaN where it is invalid.
        baseline: What the history leads to expect; None without enough of it.
        effect: By how much it is worse; None likewise.
        points: The series in order of time, the newest last; only what was measured in the same environment.
    """

    key: SeriesKey
    metric: MetricKind
    verdict: Verdict
    reason: str
    value: float
    baseline: float | None
    effect: Effect | None
    points: tuple[SeriesPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class RegressionReport:
    """All series that a run touched.

    Attributes:
        run: The run that was checked.
        recorded_at: UTC, ISO 8601.
        label: The run's label.
        checks: One per series and metric, the worst first.
        verdict: The worst of them; INCONCLUSIVE where there is none.
        reason: What decided it.
        history: The history's file.
    """

    run: str
    recorded_at: str
    label: str
    checks: tuple[SeriesCheck, ...]
    verdict: Verdict
    reason: str
    history: str
