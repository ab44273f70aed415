"""The table that `trt-opt build` ends with."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from trt_opt.report.show import size_text
from trt_opt.values.accuracy import Comparison, TaskAccuracy
from trt_opt.values.engine import BuildOutcome, Manifest, Variant
from trt_opt.values.precision import LayerDecision, PrecisionPlan

COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def show_build(outcome: BuildOutcome, console: Console) -> None:
    """Prints what was built, what it costs, and how it came about."""
    manifest = outcome.manifest
    console.print(_variants(manifest))
    for line in _layers(manifest.precision):
        console.print(line, markup=False)
    console.print(_timing(manifest), markup=False)
    for warning in manifest.warnings:
        console.print(f"[yellow]note[/yellow]: {warning}")
    again = " (was there already)" if outcome.reused else ""
    console.print(f"engine    {outcome.engine}{again}", markup=False, soft_wrap=True)
    console.print(f"manifest  {outcome.manifest_path}", markup=False, soft_wrap=True)


def _variants(manifest: Manifest) -> Table:
    measured = any(variant.accuracy for variant in manifest.variants)
    table = Table(
        title=f"{manifest.model.name} for {manifest.options.target} ({manifest.library})", title_justify="left"
    )
    table.add_column("precision")
    for heading in ("graph", "engine", "top-1", "top-1 same as FP32", "SQNR"):
        table.add_column(heading, justify="right")
    for variant in manifest.variants:
        table.add_row(*_row(variant))
    data = manifest.evaluation
    if measured and data is not None:
        random = " RANDOM DATA, not the model's own;" if data.random else ""
        table.caption = f"{random} {data.samples} samples of {data.source}; simulated on ONNX Runtime"
    else:
        table.caption = "accuracy was not measured: give --eval-data"
    table.caption_justify = "left"
    return table


def _row(variant: Variant) -> tuple[str, ...]:
    sizes = (variant.name, size_text(variant.onnx_bytes), size_text(variant.engine_bytes))
    accuracy = variant.accuracy
    if accuracy is None:
        return (*sizes, "-", "-", "-")
    return (*sizes, _task(accuracy.candidate_task), _agreement(accuracy), sqnr_text(accuracy))


def _task(task: TaskAccuracy | None) -> str:
    return "-" if task is None else f"{100 * task.top1:.2f} %"


def _agreement(accuracy: Comparison) -> str:
    shares = [output.top1_agreement for output in accuracy.outputs if output.top1_agreement is not None]
    return f"{100 * min(shares):.2f} %" if shares else "-"


def sqnr_text(accuracy: Comparison) -> str:
    """The worst output's SQNR; "identical" where nothing differs."""
    if accuracy.outputs and all(output.identical for output in accuracy.outputs):
        return "identical"
    return "-" if accuracy.sqnr_db is None else f"{accuracy.sqnr_db:.1f} dB"


def _layers(plan: PrecisionPlan) -> list[str]:
    """Which layers are INT8, and why others are not."""
    counts = ", ".join(f"{plan.count(precision)} {precision.upper()}" for precision in ("int8", "fp16", "fp32"))
    lines = [f"layers    {len(plan.layers)} nodes as asked: {counts}"]
    int8 = [layer for layer in plan.layers if layer.precision == "int8"]
    if int8:
        kinds = Counter(layer.op_type for layer in int8)
        lines.append("INT8      " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
        lines.append("          " + _names(int8))
    left = [layer for layer in plan.layers if layer.op_type in COMPUTE_OPS and layer.precision != "int8"]
    if int8 and left:
        lines += ["float     " + reason for reason in _reasons(left)]
    kept = [layer for layer in plan.layers if layer.rule == "fp16-risk"]
    lines += ["FP32      " + reason for reason in _reasons(kept)]
    return lines


def _names(layers: list[LayerDecision], most: int = 12) -> str:
    names = ", ".join(short(layer.node) for layer in layers[:most])
    return names + (f" and {len(layers) - most} more: see the manifest" if len(layers) > most else "")


def short(name: str, most: int = 40) -> str:
    """A node's name, its middle left out where it is long: exporters write names of hundreds of characters."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def _reasons(layers: list[LayerDecision], most: int = 6) -> list[str]:
    lines = [f"{short(layer.node)}: {layer.reason}" for layer in layers[:most]]
    return lines + [f"and {len(layers) - most} more: see the manifest"] * (len(layers) > most)


def _timing(manifest: Manifest) -> str:
    parts = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in manifest.seconds.items())
    return f"took      {parts}"
