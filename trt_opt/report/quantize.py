"""A precision plan, for people."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.cache_import import show_coverage
from trt_opt.report.calibrate import data_text
from trt_opt.report.compare import accuracy_text
from trt_opt.report.importing import show_import
from trt_opt.report.search import show_search
from trt_opt.values.precision import LABELS, PrecisionPlan, QuantizationReport


def plan_renderer(*, explain: bool) -> Callable[[QuantizationReport, Console], None]:
    """A renderer for reports; with `explain` every node is listed with its rule and reason."""

    def render(report: QuantizationReport, console: Console) -> None:
        if explain:
            console.print(_layers(report.plan))
        console.print(f"layers    {len(report.plan.layers)} nodes: {report.plan.counts}", markup=False)
        if report.imported is not None:
            show_import(report.imported, console)
        if report.cache is not None:
            show_coverage(report.cache, console)
        elif report.data is not None:
            console.print(f"ranges    {data_text(report.data)}", markup=False)
        if report.accuracy is not None:
            told = f"{accuracy_text(report.accuracy)}, simulated on ONNX Runtime"
            console.print(f"accuracy  {told}", markup=False, soft_wrap=True)
        if report.search is not None:
            show_search(report.search, console)
        for warning in report.warnings:
            console.print(f"note      {warning}", markup=False, soft_wrap=True)
        for file in (report.output, *report.beside):
            console.print(f"written   {file}", markup=False, soft_wrap=True)

    return render


def _layers(plan: PrecisionPlan) -> Table:
    table = Table()
    for heading in ("node", "operator", "precision", "rule", "why"):
        table.add_column(heading, overflow="fold")
    for layer in plan.layers:
        cells = (layer.node, layer.op_type, LABELS[layer.precision], layer.rule, layer.reason)
        table.add_row(*map(Text, cells))  # names in brackets would be read as markup
    return table
