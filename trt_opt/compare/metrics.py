"""What a candidate can be judged by: named metrics, and functions of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from trt_opt.compare.intervals import Floats, mean_interval
from trt_opt.compare.measured import Measured, PairedRows
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.user_metric import Scorer, require_metric, scorer_of
from trt_opt.datasets.checks import closest_hint
from trt_opt.datasets.generator import is_function_reference
from trt_opt.datasets.named_code import NamedCode, named_code
from trt_opt.errors import RequestError
from trt_opt.values.metric import Interval, MetricAccuracy, wilson_interval


@dataclass(frozen=True, slots=True)
class NamedMetric:
    """A metric that follows from what every comparison measures.

    Attributes:
        name: "top1".
        text: What it is called in a sentence: "top-1 accuracy".
        accuracy: Its value; None where the data or the outputs give none.
        missing: Why there is none.
        has_drop: Whether a drop can be told in points.
        is_count: Whether it counts rows, so that few of them tell nothing.
        chance_answers: How many classes a guess may name: 1 for top-1, 5 for top-5; 0 where there are no guesses.
    """

    name: str
    text: str
    accuracy: Callable[[Measured], MetricAccuracy | None]
    missing: str
    has_drop: bool = True
    is_count: bool = True
    chance_answers: int = 0

    any_labels = False
    """Labels are class numbers."""


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A metric of the user's own.

    Attributes:
        name: "package.module:function".
        code: The function or class.
    """

    name: str
    code: NamedCode

    @property
    def text(self) -> str:
        """What it is called in a sentence."""
        return self.name

    @property
    def missing(self) -> str:
        """Why there is no value."""
        return f"{self.name} scored nothing"

    has_drop = True
    is_count = True
    chance_answers = 0

    any_labels = True
    """What labels are is between the data and the code."""

    def scorer(self) -> Scorer:
        """A scorer for one side.

        Raises:
            DataError: The class cannot be instantiated.
        """
        return scorer_of(self.code)

    def accuracy(self, measured: Measured) -> MetricAccuracy | None:
        """Its value for both sides."""
        scores = measured.scores
        if scores is None or not measured.samples:
            return None
        reference, candidate = scores.reference.value(), scores.candidate.value()
        interval, drop = None, None
        if scores.reference.per_sample is not None and scores.candidate.per_sample is not None:
            interval, drop = _score_intervals(
                np.array(scores.reference.per_sample), np.array(scores.candidate.per_sample)
            )
        return MetricAccuracy(
            name=self.name,
            unit="share",
            reference=reference,
            candidate=candidate,
            interval=interval,
            drop_points=100 * (reference - candidate),
            drop_interval_points=drop,
            rows=measured.samples,
            samples=measured.samples,
        )


Metric = NamedMetric | UserMetric


def metric_from_text(text: str) -> Metric:
    """Reads what the user wrote after --metric.

    Args:
        text: A name of `METRICS`, or "package.module:function"; the current folder is searched first.

    Raises:
        RequestError: There is no such metric, or the code cannot be called as one.
    """
    if text in METRICS:
        return METRICS[text]
    if not is_function_reference(text):
        known = ", ".join(METRICS)
        near = closest_hint(text, METRICS)
        raise RequestError(
            f"there is no metric {text!r}", hint=f"{near + ' ' if near else ''}{known}, or package.module:function"
        )
    metric = UserMetric(text, named_code(text))
    require_metric(metric.code)
    return metric


def _score_intervals(reference: Floats, candidate: Floats) -> tuple[Interval | None, Interval | None]:
    """Of the candidate's mean and of the drop in points; scores that are all 0 or 1 are counted, not resampled."""
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        return None, None
    if np.isin(reference, (0, 1)).all() and np.isin(candidate, (0, 1)).all():
        rows = PairedRows()
        rows.add(reference > 0, candidate > 0)
        return wilson_interval(float(candidate.mean()), rows.rows), rows.drop_interval_points()
    return mean_interval(candidate), mean_interval(100 * (reference - candidate))


def _top1(measured: Measured) -> MetricAccuracy | None:
    right = measured.reference_task.top1_right, measured.candidate_task.top1_right
    return _answers("top1", measured, right, measured.answers.top1)


def _top5(measured: Measured) -> MetricAccuracy | None:
    if not (measured.reference_task.has_top5 and measured.candidate_task.has_top5):
        return None
    right = measured.reference_task.top5_right, measured.candidate_task.top5_right
    return _answers("top5", measured, right, measured.answers.top5)


def _answers(name: str, measured: Measured, right: tuple[int, int], paired: PairedRows) -> MetricAccuracy | None:
    rows = measured.candidate_task.rows
    if not rows or rows != measured.reference_task.rows:
        return None
    reference, candidate = right[0] / rows, right[1] / rows
    return MetricAccuracy(
        name=name,
        unit="share",
        reference=reference,
        candidate=candidate,
        interval=wilson_interval(candidate, rows),
        # From the counts: the difference of two rounded shares can miss a limit that is met exactly.
        drop_points=100 * (right[0] - right[1]) / rows,
        drop_interval_points=paired.drop_interval_points(),
        rows=rows,
        samples=measured.samples,
    )


def _agreement(measured: Measured) -> MetricAccuracy | None:
    answering = [output for output in measured.outputs if output.rows]
    if not answering:
        return None
    worst = min(answering, key=lambda output: output.rows_agreeing / output.rows)
    share = worst.rows_agreeing / worst.rows
    interval = wilson_interval(share, worst.rows)
    return MetricAccuracy(
        name="agreement",
        unit="share",
        reference=1.0,
        candidate=share,
        interval=interval,
        drop_points=100 * (worst.rows - worst.rows_agreeing) / worst.rows,
        drop_interval_points=(100 * (1 - interval[1]), 100 * (1 - interval[0])),
        rows=worst.rows,
        samples=measured.samples,
    )


def _sqnr(measured: Measured) -> MetricAccuracy | None:
    floats = [output for output in measured.outputs if output.is_float and output.elements]
    if not floats:
        return None
    worst = min(floats, key=_sqnr_order)
    value = worst.sqnr_db
    if value is None and worst.error_energy:
        value = -math.inf
    known = value is not None and math.isfinite(value) and worst.name in measured.energies
    interval = measured.energies[worst.name].sqnr_interval_db() if known else None
    return MetricAccuracy("sqnr", "dB", None, value, interval, None, None, measured.samples, measured.samples)


def _sqnr_order(output: OutputTotals) -> float:
    value = output.sqnr_db
    if value is None:
        return -math.inf if output.error_energy else math.inf
    return -math.inf if math.isnan(value) else value


def _cosine(measured: Measured) -> MetricAccuracy | None:
    found = [(output, output.cosine) for output in measured.outputs if output.is_float]
    known = [(output, value) for output, value in found if value is not None]
    if not known:
        return None
    worst, value = min(known, key=lambda entry: -math.inf if math.isnan(entry[1]) else entry[1])
    can_tell = not math.isnan(value) and worst.name in measured.energies
    interval = measured.energies[worst.name].cosine_interval() if can_tell else None
    return MetricAccuracy(
        name="cosine",
        unit="share",
        reference=1.0,
        candidate=value,
        interval=interval,
        drop_points=100 * (1 - value),
        drop_interval_points=None if interval is None else (100 * (1 - interval[1]), 100 * (1 - interval[0])),
        rows=measured.samples,
        samples=measured.samples,
    )


_NO_LABELS = "the data have no labels, so the drop in {} is unknown"

TOP1 = NamedMetric("top1", "top-1 accuracy", _top1, _NO_LABELS.format("top-1 accuracy"), chance_answers=1)

METRICS: Mapping[str, NamedMetric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            TOP1,
            NamedMetric(
                "top5",
                "top-5 accuracy",
                _top5,
                "the drop in top-5 accuracy is unknown: it takes labels, and scores of at least six classes",
                chance_answers=5,
            ),
            NamedMetric(
                "agreement",
                "top-1 agreement",
                _agreement,
                "no output looks like class scores or class numbers, so there is no top-1 agreement",
            ),
            NamedMetric(
                "sqnr",
                "SQNR",
                _sqnr,
                "no floating-point output was compared, so there is no SQNR",
                has_drop=False,
                is_count=False,
            ),
            NamedMetric(
                "cosine", "cosine similarity", _cosine, "no floating-point output has a cosine", is_count=False
            ),
        )
    }
)
"""The metrics that --metric knows by name."""
