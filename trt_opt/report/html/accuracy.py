"""How accurate every precision is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from trt_opt.report.compare import agreement_text, metric_value_text, sqnr_text
from trt_opt.report.html.charts import interval_chart
from trt_opt.report.html.open_verdict import is_open
from trt_opt.report.html.page import Cell, Chart, Section, Table, columns, number, words
from trt_opt.values.accuracy import Comparison
from trt_opt.values.report_content import ReportContent

MISSING = "No accuracy was measured: give `--eval-data` to `trt-opt build`, or a result of `trt-opt compare`."


@dataclass(frozen=True, slots=True)
class _Judged:
    """A precision or a file, and how far it is from its reference."""

    name: str
    where: str
    accuracy: Comparison


def accuracy_section(content: ReportContent) -> Section:
    """The metric and the SQNR of every precision, with intervals."""
    found = _named_apart([*_of_manifests(content), *_of_comparisons(content)])
    if not found:
        return Section("accuracy", "Accuracy", missing=(MISSING,))
    charts = [chart for chart in (_metric_chart(found), _sqnr_chart(found)) if chart is not None]
    text = "Points are what was measured, lines are 95 % intervals: what a data set of this size can tell."
    tables = (_table(found), *_layerwise(content))
    return Section("accuracy", "Accuracy", (text,) if charts else (), tuple(charts), tables)


def _named_apart(found: list[_Judged]) -> list[_Judged]:
    """No two of one name, which a chart would draw on one line."""
    seen: Counter[str] = Counter()
    apart = []
    for one in found:
        seen[one.name] += 1
        apart.append(replace(one, name=f"{one.name} ({seen[one.name]})") if seen[one.name] > 1 else one)
    return apart


def _of_manifests(content: ReportContent) -> Iterator[_Judged]:
    several = len(content.manifests) > 1
    for manifest in content.manifests:
        prefix = f"{manifest.model.name} " if several else ""
        for variant in manifest.variants:
            if variant.accuracy is not None:
                yield _Judged(prefix + variant.name, "simulated", variant.accuracy)
            if variant.on_gpu is not None:
                yield _Judged(f"{prefix}{variant.name} on the GPU", "on the GPU", variant.on_gpu)


def _of_comparisons(content: ReportContent) -> Iterator[_Judged]:
    for comparison in content.comparisons:
        for side, accuracy in zip(comparison.sides[1:], comparison.comparisons, strict=True):
            where = "on ONNX Runtime" if side.simulated else "on the GPU"
            yield _Judged(side.name, where, accuracy)


def _metric_chart(found: list[_Judged]) -> Chart | None:
    rows = []
    names = set()
    for one in found:
        metric = one.accuracy.metric
        if metric is None or metric.candidate is None or metric.unit != "share":
            continue
        low, high = metric.interval or (metric.candidate, metric.candidate)
        names.add(metric.short_name)
        rows.append(
            {
                "name": one.name,
                "value": 100 * metric.candidate,
                "low": 100 * low,
                "high": 100 * high,
                "tip": f"{one.name}: {metric_value_text(metric)}",
            }
        )
    if not rows:
        return None
    title = f"{', '.join(sorted(names))} in %"
    return Chart(title, interval_chart(rows, title), _alt(rows, "%"))


def _sqnr_chart(found: list[_Judged]) -> Chart | None:
    rows = []
    for one in found:
        worst = one.accuracy.sqnr_db
        if worst is None or worst != worst:  # noqa: PLR0124  NaN
            continue
        ends = next((out.sqnr_interval_db for out in one.accuracy.outputs if out.sqnr_db == worst), None)
        low, high = ends or (worst, worst)
        high = worst if high == float("inf") else high
        tip = f"{one.name}: {sqnr_text(one.accuracy)}"
        rows.append({"name": one.name, "value": worst, "low": low, "high": high, "tip": tip})
    if not rows:
        return None
    title = "SQNR of the worst output in dB"
    return Chart(title, interval_chart(rows, title), _alt(rows, "dB"))


def _alt(rows: list[dict[str, object]], unit: str) -> str:
    return "; ".join(f"{row['name']} {row['value']:.4g} {unit}" for row in rows)


def _table(found: list[_Judged]) -> Table:
    titles = ("what", "where", "metric", "same top-1", "SQNR", "max error", "samples", "verdict")
    numeric = ("metric", "same top-1", "SQNR", "max error", "samples")
    return Table("Accuracy against the reference", columns(*titles, numeric=numeric), tuple(map(_row, found)))


def _row(one: _Judged) -> tuple[Cell, ...]:
    accuracy = one.accuracy
    metric = accuracy.metric
    errors = [output.max_abs_error for output in accuracy.outputs]
    return (
        words(one.name),
        words(one.where),
        Cell("\N{EN DASH}") if metric is None else Cell(metric_value_text(metric), metric.candidate),
        Cell(agreement_text(accuracy).replace("-", "\N{EN DASH}"), accuracy.top1_agreement),
        Cell(sqnr_text(accuracy), accuracy.sqnr_db),
        number(max(errors, default=None), ".3g"),
        number(accuracy.samples, ".0f"),
        words("no limit") if is_open(accuracy) else words(accuracy.verdict, accuracy.verdict.lower()),
    )


def _layerwise(content: ReportContent) -> Iterator[Table]:
    for comparison in content.comparisons:
        for found in comparison.layerwise:
            titles = ("tensor", "made by", "SQNR", "its inputs'", "drop")
            rows = tuple(
                (
                    words(tensor.partner),
                    words(f"{tensor.operator} {tensor.node}"),
                    Cell("identical", 1e9) if tensor.identical else number(tensor.sqnr_db, ".1f", " dB"),
                    number(tensor.inputs_sqnr_db, ".1f", " dB"),
                    number(tensor.drop_db, ".1f", " dB"),
                )
                for tensor in found.tensors
            )
            heads = columns(*titles, numeric=titles[2:])
            yield Table(f"{found.candidate}, tensor by tensor: {found.finding}", heads, rows, filterable=True)
