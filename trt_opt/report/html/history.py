"""Series over their runs, with change-points."""

from __future__ import annotations

import math
from typing import Any

from trt_opt.report.html.charts import history_chart
from trt_opt.report.html.page import Cell, Chart, Section, Table, columns, number, words
from trt_opt.values.regression import RegressionReport, SeriesCheck
from trt_opt.values.report_content import ReportContent

MISSING = "No history was given: `--history history.db`, which `trt-opt regress record` fills."

DOT = "\N{MIDDLE DOT}"

FEWEST_POINTS = 2
MOST_CHARTS = 24
MOST_POINTS = 400

CHANGED = "Dashed lines are change-points, hollow points were not judged with, a red point is a regression."


def history_section(content: ReportContent) -> Section:
    """A chart per series, the worst first, and all of them in a table."""
    checks = [check for report in content.regressions for check in report.checks]
    if not checks:
        return Section("history", "History", missing=(MISSING,))
    shown = [check for check in checks if len(check.points) >= FEWEST_POINTS][:MOST_CHARTS]
    more = len(checks) - len(shown)
    texts = (*((CHANGED,) if shown else ()), *((f"{more} more series are in the table only.",) if more else ()))
    return Section("history", "History", texts, tuple(map(_chart, shown)), tuple(map(_table, content.regressions)))


def _chart(check: SeriesCheck) -> Chart:
    points = check.points[-MOST_POINTS:]
    rows: list[dict[str, Any]] = [
        {
            "place": place + 1,
            "value": point.value if math.isfinite(point.value) else None,
            "valid": point.is_valid,
            "change": point.is_change,
            "verdict": check.verdict if place == len(points) - 1 else "",
            "tip": f"{point.label or point.run}: {point.value:.4g} ({point.recorded_at})",
        }
        for place, point in enumerate(points)
    ]
    title = f"{check.metric.title} ({check.metric.unit})"
    alt = f"{check.verdict}: {check.reason}"
    baseline = check.baseline if check.baseline is not None and math.isfinite(check.baseline) else None
    return Chart(f"{check.key} {DOT} {check.metric.title}", history_chart(rows, baseline, title), alt)


def _table(report: RegressionReport) -> Table:
    numeric = ("newest", "expected", "worse by", "runs")
    rows = tuple(_row(check) for check in report.checks)
    heads = columns("series", "figure", "verdict", *numeric, "why", numeric=numeric)
    return Table(f"Run {report.label or report.run} of {report.recorded_at}", heads, rows, filterable=True)


def _row(check: SeriesCheck) -> tuple[Cell, ...]:
    worse = None if check.effect is None else check.effect.worse
    text = "\N{EN DASH}"
    if worse is not None:
        text = f"{100 * math.expm1(worse):+.1f} %" if check.metric.relative else f"{worse:+.4g}"
    return (
        words(str(check.key)),
        words(check.metric.title),
        words(check.verdict, check.verdict.lower()),
        number(check.value if math.isfinite(check.value) else None),
        number(check.baseline),
        Cell(text, worse),
        number(len(check.points), ".0f"),
        words(check.reason),
    )
