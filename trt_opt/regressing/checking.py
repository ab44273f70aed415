"""A run against its history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trt_opt.errors import RequestError
from trt_opt.regress.history import Entry, History
from trt_opt.regress.metrics import metric_of
from trt_opt.regress.rows import Acceptance
from trt_opt.regress.series import SeriesLimits, judge_series
from trt_opt.values.accuracy import WORST_FIRST
from trt_opt.values.history import Observation, Run
from trt_opt.values.regression import RegressionReport, SeriesCheck, SeriesPoint

MACHINE_BOUND = frozenset({"latency_ms", "compute_ms", "throughput_per_s", "build_s", "memory_bytes"})
"""What hangs on the machine around the device; accuracies and sizes are compared from wherever they come."""


PARTS = ("host", "cores", "driver", "power_mode", "clocks_locked", "governor")
"""The environment's parts, as `recording.environment_of` writes them."""

_Accepted = tuple[Acceptance, tuple[str, str]]
"""An acceptance, and its run's place in time."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is checked, and how strictly.

    Attributes:
        run: The run's id, or its beginning; None is the newest.
        model: Only this model's series; None is every one.
        floors: Metric → the least change that matters.
        confidence: How sure a FAIL must be.
        across: Parts of the environment that may differ.
        allow_invalid: Whether figures are judged with though the machine was in no state to measure.
    """

    run: str | None = None
    model: str | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 0.99
    across: tuple[str, ...] = ()
    allow_invalid: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A series as a history holds it.

    Attributes:
        key: "model · precision · …".
        metric: Its name.
        points: In order of time, the newest last.
    """

    key: str
    metric: str
    unit: str
    points: tuple[SeriesPoint, ...]


@dataclass(frozen=True, slots=True)
class SeriesListing:
    """What `trt-opt regress show` shows."""

    history: str
    series: tuple[Series, ...]


def floors_from_text(texts: Sequence[str]) -> dict[str, float]:
    """Floors as they are typed: "latency_ms=3%", "sqnr_db=1".

    Raises:
        RequestError: No such metric, or no such number.
    """
    floors = {}
    for text in texts:
        name, equals, digits = text.rpartition("=")
        if not equals:
            raise RequestError(f"{text!r} is no floor", hint="--floor latency_ms=3%")
        kind = metric_of(name.strip())
        number = digits.strip()
        is_share = number.endswith("%")
        if is_share and kind.unit == "dB":
            raise RequestError(f"the floor of {kind.name} is in dB, not percent", hint=f"--floor {kind.name}=1")
        floors[kind.name] = _number(number.removesuffix("%"), text) / (100 if is_share else 1)
        if kind.relative and floors[kind.name] >= 1:
            raise RequestError(f"{text!r}: the floor of {kind.name} is a share", hint="3% or 0.03")
    return floors


def check_run(history: History, request: CheckRequest = CheckRequest()) -> RegressionReport:
    """Judges every figure of a run against the figures before it.

    Raises:
        RequestError: There is no such run, or it has nothing of that model.
    """
    run = history.run(request.run)
    mine = [one for one in run.observations if request.model in (None, one.key.model)]
    if not mine:
        raise RequestError(f"run {run.id} has no figure of {request.model!r}", hint="trt-opt regress show")
    times = {name: (at, name) for name, at in history.times().items()}
    accepted = [(one, times[one.run]) for one in history.acceptances() if times[one.run] <= times[run.id]]
    checks = [_check(one, run, history, accepted, request) for one in mine]
    checks.sort(
        key=lambda check: (WORST_FIRST.index(check.verdict), -_severity(check), str(check.key), check.metric.name)
    )
    verdict = checks[0].verdict
    return RegressionReport(
        run=run.id,
        recorded_at=run.recorded_at,
        label=run.label,
        checks=tuple(checks),
        verdict=verdict,
        reason=_reason(checks),
        history=str(history.path),
    )


def latest_report(path: Path) -> RegressionReport:
    """The newest run of a history's file, checked.

    Raises:
        RequestError: There is no history, or nothing in it.
    """
    with History(path, writable=False) as history:
        return check_run(history)


def listing(history: History, *, model: str | None = None, metric: str | None = None) -> SeriesListing:
    """Every series, or those of a model or metric.

    Raises:
        RequestError: There is none.
    """
    found = []
    for key, name in history.names():
        if model in (None, key.model) and metric in (None, name):
            points = tuple(_point(entry, is_valid=entry.observation.is_valid) for entry in history.series(key, name))
            found.append(Series(str(key), name, metric_of(name).unit, points))
    if not found and (model is not None or metric is not None):
        known = sorted({key.model if model is not None else name for key, name in history.names()})
        raise RequestError("there is no such series", where=str(history.path), hint=f"one of {', '.join(known)[:500]}")
    return SeriesListing(str(history.path), tuple(found))


def _check(
    one: Observation, run: Run, history: History, accepted: Sequence[_Accepted], request: CheckRequest
) -> SeriesCheck:
    metric = metric_of(one.metric)
    before = [entry for entry in history.series(one.key, one.metric) if _is_before(entry, run)]
    parts = set(request.across) if one.metric in MACHINE_BOUND else None
    same = [entry for entry in before if _differing(entry, run, parts) == ()]
    judged_with = [_is_usable(entry.observation, request) for entry in same]
    points = [_point(entry, is_valid=usable) for entry, usable in zip(same, judged_with, strict=True)]
    if not _is_usable(one, request):
        reason = f"the figure is invalid: {'; '.join(one.problems)}"
        return SeriesCheck(one.key, metric, "INCONCLUSIVE", reason, math.nan, None, None, tuple(points))
    valid = [place for place, usable in enumerate(judged_with) if usable]
    values = [same[place].observation.value for place in valid]
    limits = SeriesLimits(floor=request.floors.get(one.metric), confidence=request.confidence)
    begin = _accepted_from([same[place] for place in valid], one, accepted)
    judged = judge_series(values, metric, limits, accepted=begin)
    for change in judged.change_points:
        points[valid[change]] = replace(points[valid[change]], is_change=True)
    reason = judged.reason
    elsewhere = [entry for entry in before if _differing(entry, run, parts)]
    if judged.baseline is None and elsewhere:
        different = ", ".join(_differing(elsewhere[-1], run, parts))
        reason += f"; {len(elsewhere)} more were measured under other conditions ({different})"
    return SeriesCheck(
        one.key, metric, judged.verdict, reason, one.value, judged.baseline, judged.effect, tuple(points)
    )


def _is_before(entry: Entry, run: Run) -> bool:
    return (entry.recorded_at, entry.run) <= (run.recorded_at, run.id)


def _differing(entry: Entry, run: Run, across: set[str] | None) -> tuple[str, ...]:
    """Parts of the environment that are not equal, though they ought to be; None where nothing ought to."""
    if across is None:
        return ()
    names = sorted({*entry.environment, *run.environment} - across)
    pairs = ((name, entry.environment.get(name, "unknown"), run.environment.get(name, "unknown")) for name in names)
    return tuple(f"{name} {there}, now {here}" for name, there, here in pairs if there != here)


def _accepted_from(entries: Sequence[Entry], one: Observation, accepted: Sequence[_Accepted]) -> int:
    """Where the judged part begins: at the first figure from the newest accepted run on, if that has happened."""
    since = max((begin for acceptance, begin in accepted if acceptance.covers(one.key, one.metric)), default=None)
    if since is None:
        return 0
    return sum((entry.recorded_at, entry.run) < since for entry in entries)


def _is_usable(one: Observation, request: CheckRequest) -> bool:
    return one.is_valid or (request.allow_invalid and math.isfinite(one.value))


def _point(entry: Entry, *, is_valid: bool) -> SeriesPoint:
    return SeriesPoint(entry.run, entry.recorded_at, entry.label, entry.observation.value, is_valid)


def _rank(check: SeriesCheck) -> tuple[int, float, str, str]:
    """The worst first, and always in the same order."""
    return WORST_FIRST.index(check.verdict), -_severity(check), str(check.key), check.metric.name


def _severity(check: SeriesCheck) -> float:
    return -math.inf if check.effect is None else check.effect.worse / check.effect.floor


def _reason(checks: Sequence[SeriesCheck]) -> str:
    worst = checks[0]
    alike = sum(check.verdict == worst.verdict for check in checks)
    if worst.verdict == "PASS":
        return f"none of {len(checks)} series became worse"
    told = f"{worst.metric.title} of {worst.key}: {worst.reason}"
    return f"{alike} of {len(checks)} series {'became worse' if worst.verdict == 'FAIL' else 'cannot tell'}; {told}"


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise RequestError(f"{whole!r} holds no number", hint="--floor latency_ms=3%") from error
    if not 0 < value < math.inf:
        raise RequestError(f"{whole!r}: a floor is above 0", hint="--floor latency_ms=3%")
    return value
