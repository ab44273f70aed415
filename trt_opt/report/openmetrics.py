"""A check as OpenMetrics text, which Prometheus and its relatives collect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from trt_opt.values.regression import RegressionReport, SeriesCheck

KEY = ("model", "precision", "target", "device", "library", "flags")
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family of OpenMetrics.

    Attributes:
        name: Ends in the unit, as the format asks.
        unit: A base unit.
        factor: What a figure is multiplied with to be in it.
    """

    name: str
    unit: str
    factor: float = 1.0


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "latency_ms": Family("trt_opt_latency_seconds", "seconds", 1e-3),
        "compute_ms": Family("trt_opt_gpu_time_seconds", "seconds", 1e-3),
        "throughput_per_s": Family("trt_opt_throughput_samples_per_second", "samples_per_second"),
        "top1": Family("trt_opt_top1_ratio", "ratio"),
        "agreement": Family("trt_opt_top1_agreement_ratio", "ratio"),
        "sqnr_db": Family("trt_opt_sqnr_decibels", "decibels"),
        "engine_bytes": Family("trt_opt_engine_size_bytes", "bytes"),
        "onnx_bytes": Family("trt_opt_model_size_bytes", "bytes"),
        "build_s": Family("trt_opt_build_seconds", "seconds"),
        "memory_bytes": Family("trt_opt_memory_bytes", "bytes"),
    }
)
"""The family of every metric; the user's own share `OWN`, told apart by a label."""

OWN = Family("trt_opt_metric_ratio", "ratio")


def openmetrics_text(report: RegressionReport) -> str:
    """The report as OpenMetrics text: the figures, what was expected of them, the verdicts and the run."""
    return "".join(f"{line}\n" for line in (*_figures(report.checks), *_verdicts(report), *_run(report), "# EOF"))


def _figures(checks: Sequence[SeriesCheck]) -> Iterator[str]:
    of: dict[str, list[SeriesCheck]] = {}
    for check in checks:
        of.setdefault(_family(check).name, []).append(check)
    for name in sorted(of):
        first = of[name][0]
        family = _family(first)
        title = "metrics of the user's own" if family is OWN else first.metric.title
        newest = [(check, check.value) for check in of[name]]
        yield from _gauge(family.name, family, f"The newest {title}.", newest)
        expected = [(check, check.baseline) for check in of[name]]
        base = f"{family.name.removesuffix('_' + family.unit)}_expected_{family.unit}"
        yield from _gauge(base, family, f"What the history leads to expect of the {title}.", expected)


def _gauge(name: str, family: Family, text: str, values: Sequence[tuple[SeriesCheck, float | None]]) -> Iterator[str]:
    """A family, or nothing where no series has a value."""
    known = [(check, value) for check, value in values if value is not None and math.isfinite(value)]
    if known:
        yield from _head(name, "gauge", text, family.unit)
    for check, value in known:
        yield _sample(name, _labels(check), value * family.factor)


def _verdicts(report: RegressionReport) -> Iterator[str]:
    name = "trt_opt_series_verdict"
    yield from _head(name, "stateset", "Whether a series became worse.")
    for check in report.checks:
        labels = {**_labels(check), "metric": check.metric.name}
        for verdict in VERDICTS:
            yield _sample(name, {**labels, name: verdict}, int(check.verdict == verdict))
    name = "trt_opt_run_verdict"
    yield from _head(name, "stateset", "The worst verdict of the run.")
    for verdict in VERDICTS:
        yield _sample(name, {name: verdict}, int(report.verdict == verdict))


def _run(report: RegressionReport) -> Iterator[str]:
    yield from _head("trt_opt_run", "info", "The run that was checked.")
    yield _sample("trt_opt_run_info", {"run": report.run, "label": report.label}, 1)
    try:
        at = datetime.fromisoformat(report.recorded_at.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return
    yield from _head("trt_opt_run_recorded_seconds", "gauge", "When it was recorded, since 1970.", "seconds")
    yield _sample("trt_opt_run_recorded_seconds", {}, at)


def _family(check: SeriesCheck) -> Family:
    return FAMILIES.get(check.metric.name, OWN)


def _labels(check: SeriesCheck) -> dict[str, str]:
    labels = {part: getattr(check.key, part) for part in KEY}
    return labels if check.metric.name in FAMILIES else {**labels, "metric": check.metric.name}


def _head(name: str, kind: str, text: str, unit: str = "") -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    if unit:
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {text}"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items() if text)
    return f"{name}{{{told}}} {value!r}" if told else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
