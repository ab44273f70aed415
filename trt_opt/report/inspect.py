"""A survey of a model, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.show import size_text
from trt_opt.values.precision import LABELS, Precision
from trt_opt.values.rewriting import Acceptance, RewriteReport
from trt_opt.values.summary import ModelSummary, RefusedNode
from trt_opt.values.survey import ModelSurvey

MOST = 20
"""Refused nodes shown per target; --json has all."""

_ANSWERS: dict[Precision, str] = {"int8": "yes", "fp32": "no", "fp16": "no"}
"""To whether a layer runs in INT8; others are what a model came with."""


def show_survey(survey: ModelSurvey, console: Console) -> None:
    """Prints the file, what the targets refuse, what a rewrite would do about it, and what INT8 could do."""
    for line in (*_summary(survey.summary), *_rewrites(survey), *_refused(survey.unreadable)):
        console.print(line, markup=False, soft_wrap=True)
    if survey.layers:
        console.print(_layers(survey))
    for note in survey.notes:
        console.print(f"note: {note}", markup=False)


def _summary(summary: ModelSummary) -> Iterator[str]:
    sizes = ", ".join(f"{size_text(count)} in {name.upper()}" for name, count in summary.weight_bytes.items())
    operators = ", ".join(f"{count} {name}" for name, count in summary.operators.items())
    yield f"model      {summary.path}"
    yield f"from       {summary.producer}, opset {summary.opset}, IR {summary.ir_version}"
    yield from (f"input      {spec}" for spec in summary.inputs)
    yield from (f"output     {spec}" for spec in summary.outputs)
    if summary.dynamic_axes:
        yield f"dynamic    {', '.join(summary.dynamic_axes)}"
    yield f"nodes      {summary.nodes}: {operators}"
    yield f"weights    {summary.parameters:,} parameters: {sizes}"
    if summary.custom_domains:
        yield f"custom     operators of {', '.join(summary.custom_domains)}"


def _rewrites(survey: ModelSurvey) -> Iterator[str]:
    for report in survey.rewrites:
        if report.before is not None and report.after is not None:
            yield from _target(report, report.before, report.after)


def _target(report: RewriteReport, before: Acceptance, after: Acceptance) -> Iterator[str]:
    yield f"target     {before.target}: {before.asked} {_told(before)}"
    yield from _refused(before.refused)
    changes = Counter({entry.name: len(entry.changed) for entry in report.passes if entry.changed})
    if changes:
        told = ", ".join(f"{name} ({count})" for name, count in changes.most_common())
        yield f"rewrite    would make {report.nodes_before} nodes {report.nodes_after}: {told}"
    if before.refused:
        yield f"then       {after.asked} {_told(after)}"
    for entry in after.refused[:MOST]:
        if entry.hint:
            yield f"           {entry.title}: try {entry.hint}"
    yield from (f"note       {note}" for note in after.notes)


def _told(found: Acceptance) -> str:
    count = len(found.refused)
    several = " and " in found.asked
    refuses, accepts = ("refuse", "accept") if several else ("refuses", "accepts")
    return f"{refuses} {count} node{'s' * (count != 1)}" if count else f"{accepts} every node"


def _refused(entries: tuple[RefusedNode, ...]) -> Iterator[str]:
    told: set[str] = set()
    for entry in entries[:MOST]:
        yield f"           {entry.title}: {'the same' if entry.reason in told else entry.reason}"
        told.add(entry.reason)
    if len(entries) > MOST:
        yield f"           and {len(entries) - MOST} more: --json lists them"


def _layers(survey: ModelSurvey) -> Table:
    table = Table(title="INT8 by the placement policy", title_justify="left")
    for heading in ("layer", "operator", "INT8", "why"):
        table.add_column(heading)
    for layer in survey.layers:
        cells = (layer.node, layer.op_type, _ANSWERS.get(layer.precision, LABELS[layer.precision]), layer.reason)
        table.add_row(*map(Text, cells))  # names in brackets would be read as markup
    return table
