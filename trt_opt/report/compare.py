"""A comparison, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.values.accuracy import Comparison, OutputAccuracy, TaskAccuracy

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the figures of every output, the task's if there are labels, and the verdict."""
    title = Text(f"{comparison.candidate} against {comparison.reference}", style="table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("output")
    for heading in ("max error", "mean error", "cosine", "SQNR", "top-1 same"):
        table.add_column(heading, justify="right")
    for output in comparison.outputs:
        table.add_row(Text(output.name), *_figures(output))
    console.print(table)
    for side, task in (
        (comparison.reference, comparison.reference_task),
        (comparison.candidate, comparison.candidate_task),
    ):
        if task is not None:
            console.print(f"{_task(task)}  {side}", markup=False)
    colour = COLOURS[comparison.verdict]
    told = f" on {comparison.samples} sample{'s' * (comparison.samples != 1)}: {comparison.reason}"
    console.print(Text.assemble((comparison.verdict, colour), told))


def _figures(output: OutputAccuracy) -> tuple[str, ...]:
    sqnr = "identical" if output.identical else "-" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB"
    cosine = "-" if output.cosine is None else f"{output.cosine:.6f}"
    agreement = "-" if output.top1_agreement is None else f"{100 * output.top1_agreement:.2f} %"
    return f"{output.max_abs_error:.3g}", f"{output.mean_abs_error:.3g}", cosine, sqnr, agreement


def _task(task: TaskAccuracy) -> str:
    top5 = "" if task.top5 is None else f", top-5 {100 * task.top5:.2f} %"
    return f"top-1 {100 * task.top1:.2f} %{top5} of {task.rows}"
