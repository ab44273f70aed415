"""The top of the page: verdicts and the plain findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trt_opt.report.compare import accuracy_text
from trt_opt.report.html.open_verdict import is_open
from trt_opt.report.html.page import Table, columns, words
from trt_opt.report.show import size_text
from trt_opt.values.accuracy import WORST_FIRST, Verdict
from trt_opt.values.engine import Manifest
from trt_opt.values.model_comparison import Side
from trt_opt.values.report_content import ReportContent


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict.

    Attributes:
        what: What was judged.
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: Why.
    """

    what: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The top of the page.

    Attributes:
        verdict: The worst of all; None where nothing was judged.
        judged: All verdicts.
        findings: Sentences.
        table: The verdicts as a table; None without any.
    """

    verdict: Verdict | None
    judged: tuple[Judged, ...]
    findings: tuple[str, ...]
    table: Table | None


def summary_of(content: ReportContent) -> Summary:
    """Verdicts, the worst first, and findings."""
    judged = tuple(sorted(_judged(content), key=lambda one: WORST_FIRST.index(one.verdict)))
    rows = tuple((words(one.what), words(one.verdict, one.verdict.lower()), words(one.reason)) for one in judged)
    table = Table("Verdicts", columns("what", "verdict", "why"), rows) if rows else None
    return Summary(judged[0].verdict if judged else None, judged, tuple(_findings(content)), table)


def _judged(content: ReportContent) -> Iterator[Judged]:
    for comparison in content.comparisons:
        if not all(map(is_open, comparison.comparisons)):
            yield Judged(f"accuracy of {_sides(comparison.sides[1:])}", comparison.verdict, comparison.reason)
    for ab in content.ab_results:
        yield Judged(f"speed of {ab.candidate.name} against {ab.base.name}", ab.verdict, ab.reason)
    for report in content.regressions:
        yield Judged(f"run {report.label or report.run} against its history", report.verdict, report.reason)
    for manifest in content.manifests:
        accuracy = manifest.variants[-1].on_gpu or manifest.variants[-1].accuracy
        if accuracy is not None and not is_open(accuracy):
            yield Judged(f"accuracy of {_engine(manifest)}", accuracy.verdict, accuracy.reason)


def _findings(content: ReportContent) -> Iterator[str]:
    for manifest in content.manifests:
        size = size_text(manifest.engine.bytes)
        yield f"{_engine(manifest)}: {size} for {manifest.options.target}, {manifest.precision.counts} nodes."
        last = manifest.variants[-1]
        if last.on_gpu is not None:
            yield f"On the GPU: {accuracy_text(last.on_gpu)}."
        elif last.accuracy is not None:
            yield f"Simulated on ONNX Runtime: {accuracy_text(last.accuracy)}."
    for comparison in content.comparisons:
        yield from (f"{finding[:1].upper()}{finding[1:].rstrip('.')}." for finding in comparison.findings)
    for benchmark in content.benchmarks:
        if not benchmark.is_valid:
            yield f"The benchmark of {benchmark.measured_at} is invalid: {'; '.join(benchmark.problems)}."
    for report in content.sensitivities:
        worst = next((layer for layer in report.layers if layer.output.sqnr_db is not None), None)
        if worst is not None:
            yield f"INT8 costs the most in {worst.node} ({worst.output.sqnr_db:.1f} dB alone): {worst.reason}."


def _engine(manifest: Manifest) -> str:
    return f"{manifest.model.name} in {manifest.variants[-1].name}"


def _sides(sides: Sequence[Side]) -> str:
    return ", ".join(side.name for side in sides)
