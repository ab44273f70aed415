"""Histograms of chosen layers' inputs, with the threshold where INT8 clips."""

from __future__ import annotations

from trt_opt.report.html.charts import distribution_chart
from trt_opt.report.html.page import Cell, Chart, Section, Table, columns, number, words
from trt_opt.values.report_content import Distribution, ReportContent

MISSING = (
    "No histogram was collected: `--model MODEL --calib-data DATA` runs the data through the float model once and "
    "shows the inputs of the layers in which INT8 costs the most, or of those that `--layers` names."
)


def distributions_section(content: ReportContent) -> Section:
    """A histogram per tensor, and the same in figures."""
    if not content.distributions:
        return Section("ranges", "Ranges", missing=(MISSING,))
    text = (
        "Magnitudes in the float model, the count on a logarithmic axis. What lies beyond the dashed line is clipped."
    )
    charts = tuple(_chart(found) for found in content.distributions)
    numeric = ("lowest", "highest", "threshold", "clipped", "zeros", "elements")
    rows = tuple(_row(found) for found in content.distributions)
    table = Table("Ranges", columns("tensor", "read by", *numeric, numeric=numeric), rows)
    return Section("ranges", "Ranges", (text,), charts, (table,))


def _chart(found: Distribution) -> Chart:
    rows = [
        {"left": place * found.width, "right": (place + 1) * found.width, "count": count}
        for place, count in enumerate(found.counts)
        if count
    ]
    threshold = "no threshold" if found.threshold is None else f"threshold {found.threshold:.4g}"
    alt = f"{found.tensor}: {found.low:.4g} to {found.high:.4g}, {threshold}"
    return Chart(f"{found.tensor} → {found.node}", distribution_chart(rows, found.threshold), alt)


def _row(found: Distribution) -> tuple[Cell, ...]:
    total = found.zeros + sum(found.counts)
    return (
        words(found.tensor),
        words(found.node),
        number(found.low),
        number(found.high),
        number(found.threshold),
        number(None if found.clipped is None else 100 * found.clipped, ".3g", " %"),
        number(100 * found.zeros / total if total else None, ".1f", " %"),
        number(total, ",.0f"),
    )
