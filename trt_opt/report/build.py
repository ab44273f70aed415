"""The table that `trt-opt build` ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.cache_import import show_coverage
from trt_opt.report.calibrate import data_text
from trt_opt.report.compare import agreement_text, drop_text, metric_value_text, share_text, sqnr_text
from trt_opt.report.importing import show_import
from trt_opt.report.integer_ends import show_ends
from trt_opt.report.search import show_search
from trt_opt.report.show import short, size_text
from trt_opt.values.accuracy import Comparison
from trt_opt.values.engine import BuildOutcome, Manifest, Variant
from trt_opt.values.precision import LABELS, QUANTIZED, LayerDecision, PrecisionPlan

Fact = tuple[str, str]
"""A label and what it says."""

SHOWN_ANYWAY = ("top1", "agreement", "sqnr")
"""Metrics with a column of their own."""

COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def show_build(outcome: BuildOutcome, console: Console) -> None:
    """Prints what was built, what it costs, and how it came about."""
    manifest = outcome.manifest
    console.print(_variants(manifest))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    before = ""
    told = (
        _basis(manifest),
        _calibrated(manifest),
        _layers(manifest.precision),
        _became(manifest),
        _timing(manifest),
        _notes(manifest),
    )
    for label, text in chain.from_iterable(told):
        facts.add_row("" if label == before else label, Text(text))
        before = label
    console.print(facts)
    if manifest.cache_coverage is not None:
        show_coverage(manifest.cache_coverage, console)
    if manifest.search is not None:
        show_search(manifest.search, console)
    if manifest.rewrite.imported is not None:
        show_import(manifest.rewrite.imported, console)
    if manifest.ends is not None:
        show_ends(manifest.ends, console)
    again = " (was there already)" if outcome.reused else ""
    console.print(f"engine    {outcome.engine}{again}", markup=False, soft_wrap=True)
    console.print(f"manifest  {outcome.manifest_path}", markup=False, soft_wrap=True)


def _variants(manifest: Manifest) -> Table:
    title = f"{manifest.model.name} for {manifest.options.target} ({manifest.library})"
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    table.add_column("precision")
    given = "FP32" if manifest.rewrite.imported is None else "given"
    for heading in ("graph", "engine", _metric_heading(manifest), f"top-1 same as {given}", "SQNR"):
        table.add_column(heading, justify="right")
    for variant in manifest.variants:
        table.add_row(*_row(variant))
    return table


def _basis(manifest: Manifest) -> Iterator[Fact]:
    """What the accuracy in the table rests on."""
    data = manifest.evaluation
    if data is None:
        yield "accuracy", "not measured: give --eval-data"
    elif not any(variant.accuracy or variant.on_gpu for variant in manifest.variants):
        yield "accuracy", "not measured: no engine of implicit quantisation can be simulated"
    else:
        search = manifest.search
        unseen = "" if search is None or not search.samples_reported else f"{search.samples_reported} unseen ones of "
        yield "accuracy", f"{unseen}{data_text(data)}; {_measured_on(manifest)}; with 95 % intervals"
        yield from _simulated(manifest)
        yield from _drop(manifest.variants[-1])


def _measured_on(manifest: Manifest) -> str:
    """What ran to give the table's figures."""
    if manifest.gpu is None or not any(variant.on_gpu for variant in manifest.variants):
        return "simulated on ONNX Runtime"
    return f"of the engines, on {manifest.gpu}"


def _simulated(manifest: Manifest) -> Iterator[Fact]:
    """What the simulation had promised, where engines ran."""
    for variant in manifest.variants:
        if variant.on_gpu is not None and variant.accuracy is not None:
            simulated = variant.accuracy
            yield "simulated", f"{variant.name}: {agreement_text(simulated)}, {sqnr_text(simulated)}"


def _became(manifest: Manifest, most: int = 8) -> Iterator[Fact]:
    """What the builder made of the layers, as the engine says."""
    if not manifest.layers:
        return
    counts = Counter(layer.precision for layer in manifest.layers)
    yield "engine", f"{len(manifest.layers)} layers: " + ", ".join(f"{n} {name}" for name, n in counts.most_common())
    for found in manifest.mismatches[:most]:
        yield "differs", f"{short(found.node)}: asked {found.asked}, got {found.got}, because {found.because}"
    if len(manifest.mismatches) > most:
        yield "differs", f"and {len(manifest.mismatches) - most} more: see the manifest"


def _calibrated(manifest: Manifest) -> Iterator[Fact]:
    """What implicit quantisation calibrated with."""
    found = manifest.implicit
    if found is None:
        return
    if found.batches:
        yield "ranges", f"{found.algorithm} in TensorRT: {found.samples} samples in {found.batches} batches"
    else:
        yield "ranges", f"a calibration cache ({found.algorithm})"


def _drop(variant: Variant) -> Iterator[Fact]:
    accuracy = _shown(variant)
    metric = None if accuracy is None else accuracy.metric
    drop = None if metric is None else drop_text(metric)
    if metric is not None and drop is not None:
        yield "drop", f"{variant.name} loses {drop} of {metric.name}"


def _metric_heading(manifest: Manifest) -> str:
    """The metric asked for, unless a column of its own shows it anyway."""
    metrics = [accuracy.metric for variant in manifest.variants if (accuracy := _shown(variant)) is not None]
    asked = next((metric for metric in metrics if metric is not None), None)
    return "top-1" if asked is None or asked.name in SHOWN_ANYWAY else short(asked.short_name, 18)


def _row(variant: Variant) -> tuple[str, ...]:
    sizes = (variant.name, size_text(variant.onnx_bytes), size_text(variant.engine_bytes))
    accuracy = _shown(variant)
    if accuracy is None:
        return (*sizes, "-", "-", "-")
    return (*sizes, _value(accuracy), agreement_text(accuracy), sqnr_text(accuracy))


def _shown(variant: Variant) -> Comparison | None:
    """The figures of the table: the engine's own where it ran, else the simulation's."""
    return variant.on_gpu or variant.accuracy


def _value(accuracy: Comparison) -> str:
    """By the metric asked for, else the top-1 accuracy."""
    metric, task = accuracy.metric, accuracy.candidate_task
    if metric is not None and metric.name not in SHOWN_ANYWAY:
        return metric_value_text(metric)
    return "-" if task is None else share_text(task.top1, task.top1_interval)


def _layers(plan: PrecisionPlan) -> Iterator[Fact]:
    """Which layers are INT8, and why others are not."""
    yield "layers", f"{len(plan.layers)} nodes as asked: {plan.counts}"
    for kind in QUANTIZED:
        layers = [layer for layer in plan.layers if layer.precision == kind]
        if layers:
            kinds = Counter(layer.op_type for layer in layers)
            yield LABELS[kind], ", ".join(f"{count} {name}" for name, count in kinds.most_common())
            yield "", _names(layers)
    left = [layer for layer in plan.layers if layer.op_type in COMPUTE_OPS and layer.precision not in QUANTIZED]
    some = any(layer.precision in QUANTIZED for layer in plan.layers)
    yield from (("float", reason) for reason in _reasons(left if some else []))
    kept = [layer for layer in plan.layers if layer.rule == "fp16-risk" and layer.precision == "fp32"]
    yield from (("FP32", reason) for reason in _reasons(kept))


def _names(layers: list[LayerDecision], most: int = 12) -> str:
    names = ", ".join(short(layer.node) for layer in layers[:most])
    return names + (f" and {len(layers) - most} more: see the manifest" if len(layers) > most else "")


def _reasons(layers: list[LayerDecision], most: int = 6) -> list[str]:
    lines = [f"{short(layer.node)}: {layer.reason}" for layer in layers[:most]]
    return lines + [f"and {len(layers) - most} more: see the manifest"] * (len(layers) > most)


def _timing(manifest: Manifest) -> Iterator[Fact]:
    yield "took", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in manifest.seconds.items())


def _notes(manifest: Manifest) -> Iterator[Fact]:
    return (("[yellow]note[/yellow]", warning) for warning in manifest.warnings)
