"""What a search for the layers that INT8 ruins did, and what it found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.compare import decibels_text
from trt_opt.report.show import percent_text, short
from trt_opt.values.improvement import ImprovementReport
from trt_opt.values.search import CurvePoint, SearchReport, SparedLayer

MOST_POINTS = 12
MOST_LAYERS = 10
MOST_GAINS = 3


def missed(report: SearchReport | None) -> bool:
    """Whether a budget was asked for, and it is not shown to be met."""
    return report is not None and report.kind == "budget" and report.verdict != "PASS"


def show_search(report: SearchReport, console: Console) -> None:
    """Prints the steps, the layers left in float, and the trade-off curve of a budget."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in (*_goal(report), *_steps(report), *_spared(report)):
        facts.add_row(label, Text(text))
    console.print(facts)
    if report.kind == "budget" and len(report.curve) > 1:
        console.print(_curve(report.curve))


def _goal(report: SearchReport) -> Iterator[tuple[str, str]]:
    if report.kind == "floor":
        yield "floor", f"{report.goal}: {report.reason}"
        return
    yield "budget", report.goal
    yield report.verdict, report.reason
    yield (
        "searched",
        (
            f"on {report.samples_searched} samples with {report.checks} check{'s' * (report.checks != 1)}"
            + (f" ({report.recalled} known from an interrupted search)" if report.recalled else "")
            + f"; judged on {report.samples_reported} others"
        ),
    )


def _steps(report: SearchReport) -> Iterator[tuple[str, str]]:
    share, before = percent_text(report.int8_share), percent_text(report.placed_share)
    yield "INT8", f"{share} of the multiply-accumulates ({before} as placed)"
    if report.ranges != report.ranges_before:
        told = "chosen per tensor by measured error" if report.ranges == "auto" else f"by {report.ranges}"
        yield "ranges", f"{told} instead of {report.ranges_before}"
    for entry in report.improvements:
        yield "rewrite", _improvement(entry)


def _improvement(entry: ImprovementReport) -> str:
    if not entry.gains:
        return f"{entry.name}: found nothing to gain"
    figures = f"{decibels_text(entry.before_db)} to {decibels_text(entry.after_db)}"
    fate = "kept" if entry.kept else "not kept: the model as a whole became no better"
    layers = "; ".join(
        f"{short(gain.node)}: {gain.what}, {decibels_text(gain.before_db)} to {decibels_text(gain.after_db)}"
        for gain in entry.gains[:MOST_GAINS]
    )
    more = f" and {len(entry.gains) - MOST_GAINS} more" if len(entry.gains) > MOST_GAINS else ""
    return f"{entry.name}: {figures}, {fate} ({layers}{more})"


def _spared(report: SearchReport) -> Iterator[tuple[str, str]]:
    for layer in report.spared[:MOST_LAYERS]:
        yield "float", _layer(layer)
    if len(report.spared) > MOST_LAYERS:
        yield "", f"and {len(report.spared) - MOST_LAYERS} more: see --json"


def _layer(layer: SparedLayer) -> str:
    share = f", {percent_text(layer.macs_share)} of MACs" if layer.macs_share is not None else ""
    return f"{short(layer.node)} ({layer.op_type}{share}): {layer.reason}"


def _curve(points: tuple[CurvePoint, ...]) -> Table:
    """The trade-off, most INT8 first; of many points some."""
    table = Table(title="trade-off on the samples searched with", title_justify="left")
    for heading in ("INT8 MACs", "float", "drop", "same", "SQNR"):
        table.add_column(heading, justify="right")
    table.add_column("budget")
    table.add_column("step")
    for point in _selected(points):
        table.add_row(
            percent_text(point.int8_share),
            str(point.spared),
            "-" if point.drop is None else f"{point.drop:.2f}",
            "-" if point.agreement is None else f"{point.agreement:.2f} %",
            decibels_text(point.sqnr_db),
            "met" if point.met else "missed",
            point.step,
        )
    return table


def _selected(points: tuple[CurvePoint, ...]) -> list[CurvePoint]:
    """Not more than fit a screen: first and last, and some evenly spread between them."""
    unique = list(dict.fromkeys(points))
    if len(unique) <= MOST_POINTS:
        return unique
    step = (len(unique) - 1) / (MOST_POINTS - 1)
    return [unique[round(number * step)] for number in range(MOST_POINTS)]
