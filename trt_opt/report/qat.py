"""What was written for a training, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.calibrate import data_text
from trt_opt.values.qat import QatConfiguration, QatFolder


def show_folder(written: QatFolder, console: Console) -> None:
    """Prints every quantiser and its initial scale, what stays float, and where the files are."""
    configuration = written.configuration
    console.print(_quantizers(configuration))
    layers = [layer for layer in configuration.layers if layer.scales]
    console.print(
        f"weights   {len(layers)} layers, {sum(len(layer.scales) for layer in layers)} channels", markup=False
    )
    for layer in configuration.layers:
        if not layer.scales:
            console.print(f"float     {layer.node}: {_why_float(layer.node, configuration)}", markup=False)
    console.print(f"ranges    {configuration.calibrator} on {data_text(configuration.data)}", markup=False)
    console.print(f"written   {written.folder}: {', '.join(written.files)}", markup=False, soft_wrap=True)


def _quantizers(configuration: QatConfiguration) -> Table:
    table = Table(title="fake-quantisers on activations", title_justify="left")
    table.add_column("tensor")
    table.add_column("read by")
    table.add_column("initial scale", justify="right")
    table.add_column("shared with")
    for quantizer in configuration.activations:
        sharing = [
            other.tensor
            for other in configuration.activations
            if other.scale == quantizer.scale and other is not quantizer
        ]
        table.add_row(
            Text(quantizer.tensor),
            Text(", ".join(reader.node for reader in quantizer.readers)),
            f"{configuration.activation_scales[quantizer.scale]:.4g}",
            Text(", ".join(sharing)),
        )
    return table


def _why_float(node: str, configuration: QatConfiguration) -> str:
    return next((layer.reason for layer in configuration.float_layers if layer.node == node), "not quantised")
