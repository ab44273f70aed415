"""From figures to PASS, FAIL or INCONCLUSIVE; every bound is written so that NaN misses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trt_opt.compare.limits import Limits
from trt_opt.compare.matching import Matching
from trt_opt.compare.scores import TaskTotals
from trt_opt.compare.totals import OutputTotals
from trt_opt.values.accuracy import Verdict

Finding = tuple[Verdict, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a comparison found out.

    Attributes:
        samples: Samples both sides ran.
        matching: Which outputs were compared; None without samples.
        outputs: The totals of each pair.
        reference_task: The reference's right answers.
        candidate_task: The candidate's, on the same rows.
    """

    samples: int
    matching: Matching | None
    outputs: Sequence[OutputTotals]
    reference_task: TaskTotals
    candidate_task: TaskTotals


def verdict_of(measured: Measured, limits: Limits) -> tuple[Verdict, str]:
    """The verdict and why: FAIL if anything failed, else INCONCLUSIVE if anything could not be told, else PASS."""
    findings = [*_coverage(measured), *_finiteness(measured)]
    findings += [finding for check in BOUNDS for finding in check(measured, limits)]
    notes = ["outputs were matched by position"] if measured.matching and measured.matching.by_position else []
    if not limits.any:
        findings.append(("INCONCLUSIVE", "no limit was given; figures only"))
    worst: Sequence[Verdict] = ("FAIL", "INCONCLUSIVE", "PASS")
    verdict = next(level for level in worst if any(found == level for found, _ in findings))
    return verdict, "; ".join([text for found, text in findings if found == verdict] + notes)


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


def _sqnr(measured: Measured, limits: Limits) -> Iterator[Finding]:
    limit = limits.min_sqnr_db
    if limit is None:
        return
    floats = [output for output in measured.outputs if output.is_float and output.elements]
    if not floats:
        yield "INCONCLUSIVE", "no floating-point output was compared, so there is no SQNR"
    for output in floats:
        value = output.sqnr_db
        if value is None and output.error_energy:
            yield "FAIL", f"{output.name} is all zero in the reference and not in the candidate"
        elif value is None:
            yield "PASS", f"{output.name} has no error"
        elif not (value >= limit):
            yield "FAIL", f"the SQNR of {output.name}, {value:.2f} dB, is not at least {limit:g} dB"
        else:
            yield "PASS", f"the SQNR of {output.name}, {value:.2f} dB, is at least {limit:g} dB"


def _agreement(measured: Measured, limits: Limits) -> Iterator[Finding]:
    limit = limits.min_agreement
    if limit is None:
        return
    answering = [output for output in measured.outputs if output.rows]
    if not answering:
        yield "INCONCLUSIVE", "no output looks like class scores or class numbers, so there is no top-1 agreement"
    for output in answering:
        text = f"the top-1 answers of {output.name} agree in {output.rows_agreeing} of {output.rows} rows"
        if not (100 * output.rows_agreeing >= limit * output.rows):
            yield "FAIL", f"{text}, not in at least {limit:g} %"
        else:
            yield "PASS", f"{text}, at least {limit:g} %"


def _tolerance(measured: Measured, limits: Limits) -> Iterator[Finding]:
    tolerances = limits.tolerances
    if tolerances is None:
        return
    bounds = f"atol {tolerances.atol:g} or rtol {tolerances.rtol:g}"
    for output in measured.outputs:
        refused = output.checked - output.accepted
        if refused:
            yield "FAIL", f"{output.name} is beyond {bounds} in {refused} of {output.checked} samples"
        elif output.checked:
            yield "PASS", f"{output.name} is within {bounds} in {output.checked} samples"


def _drop(measured: Measured, limits: Limits) -> Iterator[Finding]:
    limit = limits.max_drop
    if limit is None:
        return
    rows = measured.candidate_task.rows
    if not rows or rows != measured.reference_task.rows:
        yield "INCONCLUSIVE", "the data have no labels, so the drop in top-1 accuracy is unknown"
        return
    # From the counts: the difference of two rounded shares can miss a limit that is met exactly.
    drop = 100 * (measured.reference_task.top1_right - measured.candidate_task.top1_right) / rows
    if not (drop <= limit):
        yield "FAIL", f"top-1 accuracy drops by {drop:.2f} points, not by at most {limit:g}"
    else:
        yield "PASS", f"top-1 accuracy drops by {drop:.2f} points, at most {limit:g}"


BOUNDS: tuple[Callable[[Measured, Limits], Iterator[Finding]], ...] = (_drop, _agreement, _sqnr, _tolerance)
