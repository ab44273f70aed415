"""A sensitivity report, for people."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.calibrate import data_text
from trt_opt.report.show import percent_text, short
from trt_opt.values.sensitivity import LayerSensitivity, Loss, SensitivityReport

LONGEST_NAME = 32

POOR_DB, BAD_DB = 20.0, 10.0
"""Below these an SQNR is shown in yellow and in red."""


def sensitivity_renderer(*, top: int) -> Callable[[SensitivityReport, Console], None]:
    """A renderer for reports whose table holds at most `top` layers."""

    def render(report: SensitivityReport, console: Console) -> None:
        console.print(_layers(report.layers[:top]))
        left = len(report.layers) - top
        if left > 0:
            console.print(f"and {left} more, better ones: --top {len(report.layers)}, or --json", markup=False)
        _print_basis(report, console)

    return render


def _layers(layers: tuple[LayerSensitivity, ...]) -> Table:
    table = Table(title="SQNR in dB, worst layer first", title_justify="left")
    table.add_column("layer", no_wrap=True)
    table.add_column("operator")
    for heading in ("MACs", "alone,\nat output", "alone,\nat its own", "up to it,\nat output", "up to it,\nat its own"):
        table.add_column(heading, justify="right")
    table.add_column("clipped", justify="right")
    table.add_column("max/rms", justify="right")
    table.add_column("why", overflow="fold")
    for layer in layers:
        losses = (layer.output, layer.own, layer.output_cumulative, layer.own_cumulative)
        saturated = max((entry.saturated for entry in layer.activations), default=0.0)
        ratio = max((entry.outlier_ratio for entry in layer.activations), default=0.0)
        table.add_row(
            Text(short(layer.node, LONGEST_NAME)),
            layer.op_type,
            percent_text(layer.macs_share),
            *map(loss_text, losses),
            f"{100 * saturated:.2g} %" if saturated else "-",
            f"{ratio:.3g}",
            Text(layer.reason),
        )
    return table


def loss_text(loss: Loss) -> Text:
    """A loss in a cell: dB, "exact", "ruined", or "-" where it was not measured."""
    match loss.kind:
        case "none":
            return Text("exact")
        case "ruined":
            return Text("ruined", "red")
        case "unmeasured":
            return Text("-")
    value = loss.sqnr_db if loss.sqnr_db is not None else 0.0
    style = "red" if value < BAD_DB else "yellow" if value < POOR_DB else ""
    return Text(f"{value:.1f}", style)


def _print_basis(report: SensitivityReport, console: Console) -> None:
    """Prints the whole model's line, what was measured on what, and the notes."""
    for loss in report.outputs:
        what = loss_text(loss)
        unit = " dB" if loss.kind == "noise" else ""
        console.print(
            Text.assemble("INT8      everywhere: ", what, unit, f" at {short(loss.output or '?')}"), soft_wrap=True
        )
    console.print(f"ranges    {report.calibrator} on {data_text(report.calibration)}", markup=False, soft_wrap=True)
    told = "the calibration data" if report.end_to_end == report.calibration else data_text(report.end_to_end)
    each = f"; each layer alone on {report.samples_each}" if report.samples_each else ""
    console.print(f"outputs   {told}{each}; simulated on ONNX Runtime", markup=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note      {note}", markup=False, soft_wrap=True)
