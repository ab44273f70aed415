"""A comparison of models, for people."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.show import short, size_text
from trt_opt.values.accuracy import Comparison, OutputAccuracy, TaskAccuracy
from trt_opt.values.metric import Interval, MetricAccuracy
from trt_opt.values.model_comparison import LayerwiseComparison, MatchedTensor, ModelComparison, Side
from trt_opt.values.timing import Timing

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}

DASH = "\N{EN DASH}"

BULLET = "\N{BULLET}"

NEARLY_ALIKE = 0.15
"""Points or dB that the two sides of an interval may differ by and still be shown as one width."""


MOST_TENSORS = 40
"""Rows of a layerwise table for people; the JSON has all."""


def show_models(result: ModelComparison, console: Console) -> None:
    """Prints every comparison, speeds, where graphs part, and the sentences that matter."""
    for comparison in result.comparisons:
        show_comparison(comparison, console)
    if result.timings:
        console.print(_speeds(result))
    for entry in result.layerwise:
        console.print(_tensors(entry))
    for finding in result.findings:
        console.print(f"{BULLET} {finding}", markup=False, soft_wrap=True)
    if len(result.comparisons) > 1:
        console.print(Text.assemble((result.verdict, COLOURS[result.verdict]), f" {result.reason}"), soft_wrap=True)


def _speeds(result: ModelComparison) -> Table:
    table = Table(title="Speed, timed in turns", title_justify="left", title_style="table.title")
    table.add_column("side", overflow="fold")
    for heading in ("library", "per second", "median", "p99", "on the GPU", "size"):
        table.add_column(heading, justify="right", no_wrap=True)
    timings = {timing.name: timing for timing in result.timings}
    for side in result.sides:
        table.add_row(Text(side.name), side.library, *_speed(timings.get(side.name)), _size(side))
    return table


def _speed(timing: Timing | None) -> tuple[str, ...]:
    if timing is None:
        return ("not timed", "-", "-", "-")
    invalid = " (invalid)" if timing.problems else ""
    compute = "-" if timing.compute is None else f"{timing.compute.median_ms:.3g} ms"
    latency = timing.latency
    return (
        f"{_rate(timing.throughput_per_s)}{invalid}",
        f"{latency.median_ms:.3g} ms",
        f"{latency.p99_ms:.3g} ms",
        compute,
    )


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _size(side: Side) -> str:
    return size_text(side.onnx_bytes if side.engine_bytes is None else side.engine_bytes)


def _tensors(entry: LayerwiseComparison) -> Table:
    """The matched tensors in order; of many, those around the first that parts and those that fall the most."""
    shown = _most_telling(entry)
    left_out = len(entry.tensors) - len(shown)
    more = f", {left_out} more in the JSON" if left_out else ""
    title = f"{entry.candidate} layer by layer on {entry.samples} samples{more}"
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    table.add_column("tensor", overflow="fold")
    table.add_column("made by", overflow="fold")
    for heading in ("SQNR", "of its inputs", "falls by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tensor in shown:
        fall = "" if tensor.drop_db is None else f"{round(tensor.drop_db, 1) + 0.0:.1f} dB"
        name = Text(short(tensor.partner), style="bold red" if tensor.partner == entry.first else "")
        made_by = f"{tensor.operator} {short(tensor.node)}"
        before = decibels_text(tensor.inputs_sqnr_db)
        table.add_row(name, Text(made_by), _tensor_sqnr(tensor), before, fall)
    return table


def _most_telling(entry: LayerwiseComparison) -> list[MatchedTensor]:
    if len(entry.tensors) <= MOST_TENSORS:
        return list(entry.tensors)
    places = {tensor.partner: place for place, tensor in enumerate(entry.tensors)}
    first = places.get(entry.first or "", 0)
    near = {place for place in range(first - 5, first + 6) if 0 <= place < len(entry.tensors)}
    falls = sorted(range(len(entry.tensors)), key=lambda place: -(entry.tensors[place].drop_db or 0.0))
    chosen = near | set(falls[: MOST_TENSORS - len(near)])
    return [entry.tensors[place] for place in sorted(chosen)]


def _tensor_sqnr(tensor: MatchedTensor) -> str:
    if tensor.shapes_differ:
        return "other shape"
    if tensor.not_finite:
        return "NaN or infinite"
    return "identical" if tensor.identical else decibels_text(tensor.sqnr_db)


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the figures of every output, the task's if there are labels, the metric's, and the verdict."""
    title = Text(f"{comparison.candidate} against {comparison.reference}", style="table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("output", overflow="fold")
    for heading in ("max error", "mean error", "cosine", "SQNR", "top-1 same"):
        table.add_column(heading, justify="right", no_wrap=True)
    for output in comparison.outputs:
        table.add_row(Text(output.name), *_figures(output))
    console.print(table)
    for side, task in (
        (comparison.reference, comparison.reference_task),
        (comparison.candidate, comparison.candidate_task),
    ):
        if task is not None:
            console.print(f"{_task(task)}  {side}", markup=False)
    if comparison.metric is not None:
        console.print(metric_text(comparison.metric), markup=False)
    if comparison.samples > 1:
        console.print("± and (…) are 95 % confidence intervals", markup=False)
    colour = COLOURS[comparison.verdict]
    told = f" on {comparison.samples} sample{'s' * (comparison.samples != 1)}: {comparison.reason}"
    console.print(Text.assemble((comparison.verdict, colour), told))


def share_text(share: float | None, interval: Interval | None = None) -> str:
    """A share in percent and how sure it is: "99.56 % (98.4-99.9)", "54.22 % ±4.6"; "-" for None."""
    if share is None:
        return "-"
    ends = None if interval is None else (100 * interval[0], 100 * interval[1])
    return f"{100 * share:.2f} %{_interval(100 * share, ends, '.1f')}"


def decibels_text(value: float | None, interval: Interval | None = None) -> str:
    """An SQNR and how sure it is: "31.2 dB ±0.8", "31.2 dB (28-33)"; "-" for None."""
    return "-" if value is None else f"{value:.1f} dB{_interval(value, interval, '.0f')}"


def sqnr_text(accuracy: Comparison) -> str:
    """The worst output's SQNR; "identical" where nothing differs."""
    if accuracy.outputs and all(output.identical for output in accuracy.outputs):
        return "identical"
    worst = next((output for output in accuracy.outputs if _is(output.sqnr_db, accuracy.sqnr_db)), None)
    return decibels_text(accuracy.sqnr_db, None if worst is None else worst.sqnr_interval_db)


def agreement_text(accuracy: Comparison) -> str:
    """The share of equal top-1 answers of the output that has the fewest."""
    share = accuracy.top1_agreement
    worst = next((output for output in accuracy.outputs if output.top1_agreement == share), None)
    return share_text(share, None if share is None or worst is None else worst.agreement_interval)


def metric_value_text(metric: MetricAccuracy) -> str:
    """The candidate's value by the metric."""
    text = decibels_text if metric.unit == "dB" else share_text
    return text(metric.candidate, metric.interval)


def drop_text(metric: MetricAccuracy) -> str | None:
    """The drop in points and how sure it is: "0.44 points (-0.21 to 1.60)"; None for a metric without one."""
    if metric.drop_points is None:
        return None
    ends = metric.drop_interval_points
    sure = "" if ends is None else f" ({_points(ends[0])} to {_points(ends[1])})"
    return f"{_points(metric.drop_points)} points{sure}"


def metric_text(metric: MetricAccuracy) -> str:
    """Both sides by the metric, and the drop."""
    drop = drop_text(metric)
    if metric.unit == "dB" or drop is None:
        return f"{metric.name}  {metric_value_text(metric)}"
    reference = share_text(metric.reference)
    return f"{metric.name}  {reference} to {metric_value_text(metric)}, a drop of {drop}"


def accuracy_text(accuracy: Comparison) -> str:
    """A comparison in a line: the metric, or what there is without labels, and on how many samples."""
    metric = accuracy.metric
    parts = [] if metric is None else [metric_text(metric)]
    if metric is None and agreement_text(accuracy) != "-":
        parts.append(f"top-1 same {agreement_text(accuracy)}")
    if metric is None or metric.name != "sqnr":
        parts.append(f"SQNR {sqnr_text(accuracy)}")
    return f"{', '.join(parts)} on {accuracy.samples} sample{'s' * (accuracy.samples != 1)}"


def _points(points: float) -> str:
    """Two decimals, and never "-0.00"."""
    return f"{round(points, 2) + 0.0:.2f}"


def _interval(value: float, ends: Interval | None, form: str) -> str:
    """One width where both sides are nearly alike, else both ends."""
    if ends is None or math.isnan(value):
        return ""
    below, above = value - ends[0], ends[1] - value
    if abs(below - above) <= NEARLY_ALIKE:
        return f" ±{max(below, above):.1f}"
    low, high = (f"{end:{form}}".removesuffix(".0") if math.isfinite(end) else "∞" for end in ends)
    return f" ({low}{DASH}{high})"


def _is(value: float | None, other: float | None) -> bool:
    if value is None or other is None:
        return False
    return value == other or (math.isnan(value) and math.isnan(other))


def _figures(output: OutputAccuracy) -> tuple[str, ...]:
    sqnr = "identical" if output.identical else decibels_text(output.sqnr_db, output.sqnr_interval_db)
    cosine = "-" if output.cosine is None else f"{output.cosine:.6f}"
    agreement = share_text(output.top1_agreement, output.agreement_interval)
    return f"{output.max_abs_error:.3g}", f"{output.mean_abs_error:.3g}", cosine, sqnr, agreement


def _task(task: TaskAccuracy) -> str:
    top5 = "" if task.top5 is None else f", top-5 {share_text(task.top5, task.top5_interval)}"
    return f"top-1 {share_text(task.top1, task.top1_interval)}{top5} of {task.rows}"
