"""An advice, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.calibrate import data_text
from trt_opt.report.compare import decibels_text, share_text
from trt_opt.report.show import percent_text, short, size_text
from trt_opt.values.advice import Advice, AdviceFacts, ComputeShare, MethodFigures
from trt_opt.values.hardware import ComputeSupport, Hardware

Fact = tuple[str, str]
"""A label and what it says."""

MOST_NOTE = 70
"""Characters of a reason in the table; --json has all of it."""


def show_advice(advice: Advice, console: Console) -> None:
    """Prints the figures of every method, the facts about hardware and arithmetic, and what to do next."""
    facts, chosen = advice.facts, advice.recommendation
    console.print(Text(f"{facts.request.model} on {facts.hardware.title}", style="italic"), soft_wrap=True)
    console.print(_methods(facts))
    _print_facts((*_basis(facts), *_compute(facts.compute), *_hardware(facts.hardware)), console)
    console.print()
    console.print(Text.assemble("advice    ", (chosen.title, "bold")), soft_wrap=True)
    others = ((f"or {entry.method}", entry.when) for entry in chosen.alternatives)
    _print_facts(
        (
            *(("because", reason) for reason in chosen.reasons),
            *(("but", caveat) for caveat in chosen.caveats),
            *others,
        ),
        console,
    )
    console.print(f"\nnext      {chosen.command}", markup=False, soft_wrap=True)
    if chosen.then is not None:
        console.print(f"there     {chosen.then}", markup=False, soft_wrap=True)


def _print_facts(facts: tuple[Fact, ...], console: Console) -> None:
    """Prints labels and texts side by side; a label that repeats is said once."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    before = ""
    for label, text in facts:
        table.add_row(Text("" if label == before else label), Text(text))
        before = label
    console.print(table)


def _methods(facts: AdviceFacts) -> Table:
    table = Table()
    table.add_column("method")
    for heading in ("weights", "of FP32", "top-1", "top-1 same", "SQNR"):
        table.add_column(heading, justify="right")
    notes = any(row.note for row in facts.figures)
    if notes:
        table.add_column("note")
    for row in facts.figures:
        told = [Text(row.note if len(row.note) <= MOST_NOTE else f"{row.note[: MOST_NOTE - 1]}…")] if notes else []
        table.add_row(_name(row), *_size(row, facts.fp32_bytes), *_accuracy(row), *told)
    return table


def _name(row: MethodFigures) -> str:
    """The label, less what all quantised rows have in common."""
    if row.method in ("fp32", "fp16"):
        return row.label
    quantised = row.label.removesuffix(" + FP16")
    name = f"static {quantised}" if row.method == "static" else quantised
    return f"{name}, {row.calibrator}" if row.calibrator else name


def _size(row: MethodFigures, fp32_bytes: int) -> tuple[str, str]:
    if row.weight_bytes is None:
        return "-", "-"
    return size_text(row.weight_bytes), percent_text(row.weight_bytes / fp32_bytes if fp32_bytes else None)


def _accuracy(row: MethodFigures) -> tuple[str, str, str]:
    found = row.accuracy
    if found is None:
        return "-", "-", "-"
    sqnr = "identical" if found.identical else decibels_text(found.sqnr_db)
    return share_text(found.top1), share_text(found.agreement), sqnr


def _basis(facts: AdviceFacts) -> Iterator[Fact]:
    if len(facts.figures) > 2:
        yield "rest", "what is not quantised is FP16, where that is no risk"
    if facts.evaluation is not None:
        labels = "with labels" if facts.has_labels else "without labels"
        yield "accuracy", f"{data_text(facts.evaluation)}, {labels}; simulated on ONNX Runtime"
        yield "", "FP16 tensors are rounded to FP16; what a layer adds up inside is float32"
    if facts.calibration is not None and facts.calibration != facts.evaluation:
        yield "ranges", data_text(facts.calibration)
    yield from (("note", note) for note in facts.notes)


def _compute(compute: ComputeShare) -> Iterator[Fact]:
    if not compute.macs:
        yield "INT8", "no layer whose arithmetic could be counted"
        return
    wide = (
        "" if compute.wide_macs == compute.int8_macs else f", {100 * compute.wide_share:.2f} % in layers ≥ 16 channels"
    )
    yield (
        "INT8",
        f"{100 * compute.int8_share:.2f} % of {compute.macs / 1e6:,.1f} million multiply-adds{wide} ({compute.shapes})",
    )
    for layer in compute.left_out:
        share = "?" if layer.macs is None else f"{100 * layer.macs / compute.macs:.2f} %"
        yield "float", f"{share} {layer.op_type} {short(layer.node)}: {layer.reason}"


def _hardware(hardware: Hardware) -> Iterator[Fact]:
    version = "" if hardware.version is None else f" {hardware.version}"
    yield "hardware", f"{hardware.title}; {hardware.library}{version}; from NVIDIA's documents, not measured here"
    yield from (("", _support(entry, hardware)) for entry in hardware.supports)
    if hardware.jetpack:
        yield "", "TensorRT by JetPack: " + ", ".join(f"{pack} → {found}" for pack, found in hardware.jetpack.items())


def _support(entry: ComputeSupport, hardware: Hardware) -> str:
    fp16 = "FP16" if entry.fp16 == "fast" else "FP16 (slow)"
    int8 = "no INT8" if entry.int8 == "no" else f"INT8 ({entry.int8})"
    named = [("BF16", entry.bf16), ("INT4 weights", entry.int4_weights), ("FP8", entry.fp8), ("FP4", entry.fp4)]
    takes = ", ".join([fp16, int8, *(name for name, has in (*named, ("DLA", hardware.dla)) if has)])
    lacks = ", ".join(name for name, has in named if not has)
    return f"{entry.capability} {entry.architecture}: {takes}" + (f"; no {lacks}" if lacks else "")
