"""Histories and checks, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.regress.exchange import Exported
from trt_opt.regress.history import Imported
from trt_opt.regress.rows import Acceptance
from trt_opt.regressing.checking import SeriesListing
from trt_opt.regressing.recording import Recorded
from trt_opt.report.sparkline import change_text, printable, sparkline, value_text
from trt_opt.values.regression import RegressionReport

COLOURS = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}

LONGEST_NAME = 90


def show_recorded(recorded: Recorded, console: Console) -> None:
    """Prints the run's id, and nothing else: scripts read it."""
    console.print(recorded.run.id, markup=False)


def show_recording_notes(recorded: Recorded, console: Console) -> None:
    """Prints what there is to know of it."""
    for file in recorded.skipped:
        text = f"skipped: {printable(file)} is recorded already; --force records it once more"
        console.print(text, markup=False, soft_wrap=True)
    if recorded.is_new and recorded.invalid:
        count = len(recorded.run.observations)
        text = f"{recorded.invalid} of {count} figures are invalid: kept, and judged with only by --allow-invalid"
        console.print(text, markup=False, soft_wrap=True)


def show_check(report: RegressionReport, console: Console) -> None:
    """Prints a row per series, the reasons of those that did not pass, and the verdict."""
    label = f" ({printable(report.label, LONGEST_NAME)})" if report.label else ""
    table = Table(title=Text(f"Run {report.run}{label}"), title_justify="left")
    table.add_column("verdict", no_wrap=True)
    table.add_column("series", overflow="fold")
    table.add_column("figure", no_wrap=True)
    for heading in ("now", "expected", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("history", no_wrap=True)
    for check in report.checks:
        table.add_row(
            Text(check.verdict, COLOURS[check.verdict]),
            Text(printable(str(check.key), LONGEST_NAME)),
            Text(printable(check.metric.title, LONGEST_NAME)),
            value_text(check.value, check.metric.unit),
            value_text(check.baseline, check.metric.unit),
            change_text(check.effect, check.metric),
            sparkline(check.points),
        )
    console.print(table)
    for check in report.checks:
        if check.verdict != "PASS":
            name = f" {check.metric.title} of {printable(str(check.key), LONGEST_NAME)}: {check.reason}"
            console.print(Text.assemble((check.verdict, COLOURS[check.verdict]), printable(name)), soft_wrap=True)
    verdict = (report.verdict, COLOURS[report.verdict])
    console.print(Text.assemble(verdict, " ", printable(report.reason, 1000)), soft_wrap=True)


def show_listing(listing: SeriesListing, console: Console) -> None:
    """Prints a row per series."""
    if not listing.series:
        console.print("nothing is recorded yet")
        return
    table = Table()
    table.add_column("series", overflow="fold")
    table.add_column("figure", no_wrap=True)
    table.add_column("runs", justify="right", no_wrap=True)
    table.add_column("history", no_wrap=True)
    table.add_column("the last", justify="right", no_wrap=True)
    for series in listing.series:
        last = [
            value_text(point.value, series.unit) + ("" if point.is_valid else " (invalid)")
            for point in series.points[-3:]
        ]
        table.add_row(
            Text(printable(series.key, LONGEST_NAME)),
            Text(printable(series.metric, LONGEST_NAME)),
            str(len(series.points)),
            sparkline(series.points),
            ", ".join(last),
        )
    console.print(table)


def show_acceptance(accepted: Acceptance, console: Console) -> None:
    """Prints what is accepted."""
    what = " of ".join(filter(None, (accepted.metric or "everything", accepted.model)))
    text = f"{printable(what, LONGEST_NAME)}: run {accepted.run} begins a new level"
    console.print(text, markup=False, soft_wrap=True)


def show_exported(exported: Exported, console: Console) -> None:
    """Prints how many runs were written."""
    console.print(f"{exported.runs} runs written to {exported.file}", markup=False, soft_wrap=True)


def show_imported(imported: Imported, console: Console) -> None:
    """Prints how many runs came."""
    console.print(f"{len(imported.added)} runs taken, {len(imported.known)} were here already", markup=False)
