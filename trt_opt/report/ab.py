"""Two sides timed in turns, for people."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.values.regression import ABResult, Effect, PilotNoise
from trt_opt.values.timing import Timing

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}

WHAT = {"latency_ms": "latency", "compute_ms": "GPU time"}


def show_ab(result: ABResult, console: Console) -> None:
    """Prints both sides, by how much the candidate is slower, what this machine can tell, and the verdict."""
    table = Table(title="Timed in turns", title_justify="left", title_style="table.title")
    table.add_column("side", overflow="fold")
    for heading in ("precision", "library", "median", "p95", "p99", "per second", "rounds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for timing in (result.base, result.candidate):
        table.add_row(*_row(timing, result.metric))
    console.print(table)
    for name, text in (("candidate", _effect(result)), ("base against itself", _pilot(result.pilot))):
        if text:
            console.print(f"{name}: {text}", markup=False, soft_wrap=True)
    for note in (*result.environment.problems, *result.environment.notes):
        console.print(f"machine: {note}", markup=False, soft_wrap=True)
    console.print(Text.assemble((result.verdict, COLOURS[result.verdict]), f" {result.reason}"), soft_wrap=True)


def _row(timing: Timing, metric: str) -> tuple[str | Text, ...]:
    summary = timing.compute if metric == "compute_ms" and timing.compute is not None else timing.latency
    figures = (f"{value:.4g} ms" for value in (summary.median_ms, summary.p95_ms, summary.p99_ms))
    throughput = f"{timing.throughput_per_s:.4g}"
    return Text(timing.name), timing.precision, timing.library, *figures, throughput, str(len(timing.rounds))


def _effect(result: ABResult) -> str:
    if result.effect is None:
        return ""
    effect: Effect = result.effect
    low, high = (change_text(end) for end in effect.interval)
    bounds = f"{low} … {high}, each bound with {100 * effect.confidence:.4g} % confidence"
    return f"{WHAT.get(result.metric, result.metric)} {change_text(effect.worse)} ({bounds})"


def _pilot(pilot: PilotNoise | None) -> str:
    if pilot is None:
        return ""
    told = f"this machine tells {100 * math.expm1(pilot.floor):.1f} % or more apart"
    return f"{change_text(pilot.shift)}, rounds scatter by {100 * pilot.spread:.1f} %; {told}"


def change_text(worse: float) -> str:
    """A log-ratio as a change: "+3.1 %"; never "-0.0 %"."""
    return f"{round(100 * math.expm1(worse), 1) + 0:+.1f} %"
