"""From figures to PASS, FAIL or INCONCLUSIVE; every bound is written so that NaN misses it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trt_opt.compare.limits import Limits
from trt_opt.compare.measured import Measured
from trt_opt.compare.metrics import TOP1, Metric, UserMetric
from trt_opt.values.accuracy import WORST_FIRST, Verdict
from trt_opt.values.metric import MetricAccuracy, wilson_interval

Finding = tuple[Verdict, str]


SMALLEST_SAMPLE = 20
"""Rows below which a share says nothing of a budget.

Of 20 rows that all stay right, Tango's interval of the drop still reaches to 16 points; a row more or less decides.
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, why, and the metric that was asked for."""

    verdict: Verdict
    reason: str
    metric: MetricAccuracy | None


def verdict_of(measured: Measured, limits: Limits) -> tuple[Verdict, str]:
    """The verdict and why: FAIL if anything failed, else INCONCLUSIVE if anything could not be told, else PASS."""
    judgement = judgement_of(measured, limits)
    return judgement.verdict, judgement.reason


def judgement_of(measured: Measured, limits: Limits) -> Judgement:
    """The verdict, why, and the metric; see `verdict_of`."""
    metric = limits.metric or TOP1
    accuracy = metric.accuracy(measured)
    findings = [*_coverage(measured), *_finiteness(measured), *_metric_is_number(metric, accuracy)]
    findings += _drop(measured, limits, metric, accuracy)
    findings += [finding for check in BOUNDS for finding in check(measured, limits)]
    if not limits.any:
        findings.append(("INCONCLUSIVE", "no limit was given; figures only"))
    verdict = next(level for level in WORST_FIRST if any(found == level for found, _ in findings))
    notes = _notes(measured, limits, accuracy)
    return Judgement(verdict, "; ".join([text for found, text in findings if found == verdict] + notes), accuracy)


def _notes(measured: Measured, limits: Limits, accuracy: MetricAccuracy | None) -> list[str]:
    """What the reader should know, whatever the verdict."""
    notes = ["outputs were matched by position"] if measured.matching and measured.matching.by_position else []
    budgets = [] if accuracy is None or limits.max_drop is None else [(limits.max_drop, accuracy.rows)]
    for output in measured.outputs:
        least = limits.of(output.name).min_agreement
        if least is not None and output.rows:
            budgets.append((100 - least, output.rows))
    coarse = [rows for budget, rows in budgets if 0 < budget < 100 / rows]
    if coarse:
        notes.append(f"one row is {100 / min(coarse):.2f} points")
    labels = measured.reference_task.labels_seen
    if limits.max_drop is not None and labels is not None and labels[0] == labels[1] and measured.samples > 1:
        notes.append(f"every label is {labels[0]}, so other classes were not judged")
    return notes


def _coverage(measured: Measured) -> Iterator[Finding]:
    """Whether everything there is was compared."""
    if not measured.samples:
        yield "INCONCLUSIVE", "nothing was compared: there is no sample"
        return
    if measured.matching is not None:
        for side, names in (
            ("reference", measured.matching.reference_only),
            ("candidate", measured.matching.candidate_only),
        ):
            if names:
                yield "INCONCLUSIVE", f"only the {side} has the output {', '.join(names)}"
    if not measured.outputs:
        yield "INCONCLUSIVE", "nothing was compared: there is no output in common"
    for output in measured.outputs:
        if output.shapes_differ:
            yield (
                "INCONCLUSIVE",
                f"{output.name} has another shape in {output.shapes_differ} of {output.samples} samples",
            )
        elif not output.elements:
            yield "INCONCLUSIVE", f"nothing was compared: {output.name} has no element in any sample"


def _finiteness(measured: Measured) -> Iterator[Finding]:
    """Whether both sides gave numbers."""
    for output in measured.outputs:
        if output.candidate_not_finite:
            yield (
                "FAIL",
                f"{output.name} is NaN or infinite in {output.candidate_not_finite} of {output.elements} elements "
                "where the reference is not",
            )
        if output.reference_not_finite:
            yield (
                "INCONCLUSIVE",
                f"the reference's {output.name} is NaN or infinite in {output.reference_not_finite} of "
                f"{output.elements} elements",
            )


def _own_limits(measured: Measured, limits: Limits) -> Iterator[Finding]:
    """Whether there is anything to hold the bounds of single outputs against."""
    found = {output.name: output for output in measured.outputs}
    for name, own in limits.outputs:
        output = found.get(name)
        if output is None:
            yield "INCONCLUSIVE", f"the output {name} was not compared, and there is a limit for it"
        elif own.min_sqnr_db is not None and not (output.is_float and output.elements):
            yield "INCONCLUSIVE", f"{name} holds no floating-point numbers, so it has no SQNR"
        elif own.min_agreement is not None and not output.rows:
            yield "INCONCLUSIVE", f"{name} looks like neither class scores nor class numbers: no top-1 agreement"


def _sqnr(measured: Measured, limits: Limits) -> Iterator[Finding]:
    floats = [output for output in measured.outputs if output.is_float and output.elements]
    if limits.min_sqnr_db is not None and not floats:
        yield "INCONCLUSIVE", "no floating-point output was compared, so there is no SQNR"
    for output in floats:
        limit, value = limits.of(output.name).min_sqnr_db, output.sqnr_db
        if limit is None:
            continue
        if value is None and output.error_energy:
            yield "FAIL", f"{output.name} is all zero in the reference and not in the candidate"
        elif value is None:
            yield "PASS", f"{output.name} has no error"
        elif not (value >= limit):
            yield "FAIL", f"the SQNR of {output.name}, {value:.2f} dB, is not at least {limit:g} dB"
        else:
            yield "PASS", f"the SQNR of {output.name}, {value:.2f} dB, is at least {limit:g} dB"


def _agreement(measured: Measured, limits: Limits) -> Iterator[Finding]:
    answering = [output for output in measured.outputs if output.rows]
    if limits.min_agreement is not None and not answering:
        yield "INCONCLUSIVE", "no output looks like class scores or class numbers, so there is no top-1 agreement"
    for output in answering:
        limit = limits.of(output.name).min_agreement
        if limit is None:
            continue
        text = f"the top-1 answers of {output.name} agree in {output.rows_agreeing} of {output.rows} rows"
        if output.rows < SMALLEST_SAMPLE:
            few = _count(output.rows, "row")
            yield "INCONCLUSIVE", f"{few} cannot tell an agreement of {limit:g} %: give at least {SMALLEST_SAMPLE}"
        elif not (100 * output.rows_agreeing >= limit * output.rows):
            yield "FAIL", f"{text}, not in at least {limit:g} %"
        else:
            yield "PASS", f"{text}, at least {limit:g} %"


def _tolerance(measured: Measured, limits: Limits) -> Iterator[Finding]:
    for output in measured.outputs:
        tolerances = limits.of(output.name).tolerances
        if tolerances is None:
            continue
        bounds = f"atol {tolerances.atol:g} or rtol {tolerances.rtol:g}"
        refused = output.checked - output.accepted
        if refused:
            yield "FAIL", f"{output.name} is beyond {bounds} in {refused} of {output.checked} samples"
        elif output.checked:
            yield "PASS", f"{output.name} is within {bounds} in {output.checked} samples"


def _metric_is_number(metric: Metric, accuracy: MetricAccuracy | None) -> Iterator[Finding]:
    """Whether the user's own metric gave numbers; NaN and infinity in named ones come from outputs, told apart."""
    if accuracy is None or not isinstance(metric, UserMetric):
        return
    if math.isnan(accuracy.reference or 0.0):
        yield "INCONCLUSIVE", f"{metric.text} is NaN for the reference itself"
    elif math.isnan(accuracy.candidate or 0.0):
        yield "FAIL", f"{metric.text} is NaN for the candidate, and {accuracy.reference:.4g} for the reference"


def _drop(measured: Measured, limits: Limits, metric: Metric, accuracy: MetricAccuracy | None) -> Iterator[Finding]:
    limit = limits.max_drop
    if limit is None:
        return
    if accuracy is None or accuracy.drop_points is None:
        yield "INCONCLUSIVE", metric.missing
        return
    doubts = list(_doubts(measured, limit, metric, accuracy.rows))
    yield from (("INCONCLUSIVE", doubt) for doubt in doubts)
    if doubts or (isinstance(metric, UserMetric) and math.isnan(accuracy.drop_points)):
        return
    drop = accuracy.drop_points
    if not (drop <= limit):
        yield "FAIL", f"{metric.text} drops by {drop:.2f} points, not by at most {limit:g}"
    else:
        yield "PASS", f"{metric.text} drops by {drop:.2f} points, at most {limit:g}"


def _doubts(measured: Measured, limit: float, metric: Metric, rows: int) -> Iterator[str]:
    """Why a drop would say nothing, however small or large it is."""
    if metric.is_count and rows < SMALLEST_SAMPLE:
        unit = "row" if metric.chance_answers or metric.name == "agreement" else "sample"
        yield f"{_count(rows, unit)} cannot tell a drop of {limit:g} points: give at least {SMALLEST_SAMPLE}"
        return
    task = measured.reference_task
    if not metric.chance_answers or not task.fewest_classes:
        return
    chance = metric.chance_answers / task.fewest_classes
    right = (task.top1_right if metric.chance_answers == 1 else task.top5_right) / task.rows
    if wilson_interval(right, task.rows)[0] <= chance:
        yield (
            f"the reference itself is right in {100 * right:.1f} % of {task.rows} rows, and chance is "
            f"{100 * chance:.3g} %: the labels or the preprocessing do not fit"
        )


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"


BOUNDS: tuple[Callable[[Measured, Limits], Iterator[Finding]], ...] = (
    _own_limits,
    _agreement,
    _sqnr,
    _tolerance,
)
