"""A survey of a model, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from trt_opt.report.show import size_text
from trt_opt.values.summary import ModelSummary, ModelSurvey


def show_survey(survey: ModelSurvey, console: Console) -> None:
    """Prints the file, what the target refuses, and what INT8 could do."""
    _show_summary(survey.summary, console)
    if survey.changed:
        console.print(f"rewrite    {len(survey.changed)} changes by default:", markup=False)
        for line in survey.changed[:10]:
            console.print(f"           {line}", markup=False)
    if survey.target is not None:
        told = "accepts every node" if not survey.refused else f"refuses {len(survey.refused)} nodes"
        console.print(f"parser     {survey.target} {told}", markup=False)
        for node in survey.refused:
            console.print(f"           {node.op_type} {node.node!r}: {node.reason}", markup=False)
    if survey.layers:
        console.print(_layers(survey))
    for note in survey.notes:
        console.print(f"note: {note}", markup=False)


def _show_summary(summary: ModelSummary, console: Console) -> None:
    sizes = ", ".join(f"{size_text(count)} in {name.upper()}" for name, count in summary.weight_bytes.items())
    operators = ", ".join(f"{count} {name}" for name, count in summary.operators.items())
    lines = [
        f"model      {summary.path}",
        f"from       {summary.producer}, opset {summary.opset}, IR {summary.ir_version}",
        *(f"input      {spec}" for spec in summary.inputs),
        *(f"output     {spec}" for spec in summary.outputs),
        f"nodes      {summary.nodes}: {operators}",
        f"weights    {summary.parameters:,} parameters: {sizes}",
    ]
    if summary.custom_domains:
        lines.append(f"custom     operators of {', '.join(summary.custom_domains)}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _layers(survey: ModelSurvey) -> Table:
    table = Table(title="INT8 by the placement policy", title_justify="left")
    for heading in ("layer", "operator", "INT8", "why"):
        table.add_column(heading)
    for layer in survey.layers:
        table.add_row(layer.node, layer.op_type, "yes" if layer.precision == "int8" else "no", layer.reason)
    return table
