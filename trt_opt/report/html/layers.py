"""Every layer: its precision and why, what INT8 costs there, how much it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trt_opt.report.bench import milliseconds_text
from trt_opt.report.html.charts import bars_chart
from trt_opt.report.html.page import Cell, Chart, Column, Section, Table, number, words
from trt_opt.report.show import short
from trt_opt.values.engine import Manifest
from trt_opt.values.precision import LABELS
from trt_opt.values.report_content import ReportContent
from trt_opt.values.sensitivity import LayerSensitivity, SensitivityReport

NO_PLAN = "No layer's precision is known: give an engine's folder or manifest."
NO_SENSITIVITY = (
    "What INT8 costs in each layer was not measured: give the result of "
    "`trt-opt sensitivity MODEL --calib-data DATA --json`."
)
MOST_BARS = 15

COLUMNS = (
    Column("layer"),
    Column("operator"),
    Column("precision", about="As asked for; in brackets what the engine does where that differs."),
    Column("SQNR alone", True, "It alone in INT8, at the model's worst output: low is bad."),
    Column("own SQNR", True, "It alone in INT8, at its own output."),
    Column("clipped", True, "The largest share of an input's elements beyond the threshold."),
    Column("time", True, "Under the library's profiler, alone or with what it was fused with (bench --layers)."),
    Column("MACs", True, "Multiply-accumulate operations of one run."),
    Column("share", True, "Of the model's MACs."),
    Column("reason", about="Why this precision, and what dominates the error."),
)


TIME = next(place for place, column in enumerate(COLUMNS) if column.title == "time")


def layers_section(content: ReportContent) -> Section:
    """A table per engine, or per sensitivity report that belongs to none."""
    missing = [] if content.manifests or content.sensitivities else [NO_PLAN]
    missing += [] if content.sensitivities else [NO_SENSITIVITY]
    used: list[SensitivityReport] = []
    tables = []
    for manifest in content.manifests:
        report = _belonging(manifest, content.sensitivities)
        used += [] if report is None else [report]
        tables.append(_plan_table(manifest, report, layer_times(manifest, content)))
    tables += [_sensitivity_table(report) for report in content.sensitivities if report not in used]
    charts = tuple(chart for report in content.sensitivities for chart in _charts(report))
    return Section("layers", "Layers", charts=charts, tables=tuple(tables), missing=tuple(missing))


def _belonging(manifest: Manifest, reports: tuple[SensitivityReport, ...]) -> SensitivityReport | None:
    """The report about the engine's model: of the same name, or with layers of the same names."""
    nodes = {layer.node for layer in manifest.precision.layers}
    for report in reports:
        if report.model.replace("\\", "/").rpartition("/")[2] == manifest.model.name:
            return report
        if report.layers and {layer.node for layer in report.layers} <= nodes:
            return report
    return None


def _charts(report: SensitivityReport) -> Iterator[Chart]:
    measured = [layer for layer in report.layers if layer.output.sqnr_db is not None][:MOST_BARS]
    if not measured:
        return
    rows = [
        {"name": layer.node, "value": layer.output.sqnr_db, "tip": f"{layer.node}: {layer.reason}"}
        for layer in measured
    ]
    title = "SQNR in dB with this layer alone in INT8"
    alt = "; ".join(f"{short(layer.node)} {layer.output.sqnr_db:.1f} dB" for layer in measured)
    yield Chart(f"The {len(rows)} layers in which INT8 costs the most", bars_chart(rows, title), alt)


def layer_times(manifest: Manifest, content: ReportContent) -> dict[str, float]:
    """Node → milliseconds of the engine's layer that holds it, or of the same node of its graph in ONNX Runtime.

    A layer of several nodes counts in full for the first of them, and not for the others.
    """
    timings = [timing for benchmark in content.benchmarks for timing in benchmark.timings if timing.layers]
    for timing in timings:
        if timing.file.sha256 == manifest.engine.sha256:
            nodes = {layer.name: layer.nodes for layer in manifest.layers}
            return {(nodes.get(one.name) or (one.name,))[0]: one.median_ms for one in timing.layers}
    for timing in timings:
        if timing.file.sha256 == manifest.graph.sha256:
            return {one.name.removeprefix("fused "): one.median_ms for one in timing.layers}
    return {}


def _plan_table(manifest: Manifest, report: SensitivityReport | None, times: Mapping[str, float]) -> Table:
    known = {} if report is None else {layer.node: layer for layer in report.layers}
    got = {mismatch.node: mismatch for mismatch in manifest.mismatches}
    rows = []
    for layer in manifest.precision.layers:
        other = got.get(layer.node)
        text = LABELS[layer.precision] + (f" (runs in {other.got})" if other else "")
        reason = "; ".join(filter(None, (layer.reason, other.because if other else "")))
        cells = _row((layer.node, layer.op_type), (text, layer.precision), known, reason)
        time_ms = times.get(layer.node)
        rows.append(cells if time_ms is None else (*cells[:TIME], _time(time_ms), *cells[TIME + 1 :]))
    used = [LABELS[kind] for kind in LABELS if manifest.precision.count(kind)]
    title = f"{manifest.model.name}, {manifest.variants[-1].name}"
    return Table(title, COLUMNS, tuple(rows), filterable=True, toggles=tuple(used))


def _time(milliseconds: float) -> Cell:
    return Cell(milliseconds_text(milliseconds), milliseconds)


def _sensitivity_table(report: SensitivityReport) -> Table:
    known = {layer.node: layer for layer in report.layers}
    rows = [_row((layer.node, layer.op_type), ("INT8", "int8"), known, "") for layer in report.layers]
    return Table(f"{report.model}, quantised layers", COLUMNS, tuple(rows), filterable=True)


def _row(
    layer: tuple[str, str], precision: tuple[str, str], known: Mapping[str, LayerSensitivity], reason: str
) -> tuple[Cell, ...]:
    node, operator = layer
    text, kind = precision
    found = known.get(node)
    said = "; ".join(filter(None, (reason, found.reason if found and found.cause != "none" else "")))
    clipped = max((one.saturated for one in found.activations), default=None) if found else None
    share = found.macs_share if found else None
    return (
        words(node),
        words(operator),
        words(text, kind if kind in ("int8", "fp16", "fp32") else ""),
        number(found.output.sqnr_db if found else None, ".1f", " dB"),
        number(found.own.sqnr_db if found else None, ".1f", " dB"),
        number(None if clipped is None else 100 * clipped, ".3g", " %"),
        number(None),
        number(found.macs if found else None, ",.0f"),
        number(None if share is None else 100 * share, ".1f", " %"),
        words(said),
    )
