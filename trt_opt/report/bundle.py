"""A bundle, and what became of it, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.calibrate import data_text
from trt_opt.report.compare import COLOURS, decibels_text, show_comparison, sqnr_text
from trt_opt.report.search import show_search
from trt_opt.report.show import size_text
from trt_opt.values.bundle import Bundle, BundleBuild, BundleReport
from trt_opt.values.engine import BuildOptions

Fact = tuple[str, str]
"""A label and what it says."""


def show_bundle(report: BundleReport, console: Console) -> None:
    """Prints what is in a bundle that was written, or found whole."""
    bundle = report.bundle
    _show_facts(_contents(bundle), console)
    table = Table()
    table.add_column("output", overflow="fold")
    for heading in ("shape", "SQNR simulated", "asked of the engine"):
        table.add_column(heading, justify="right")
    asked = decibels_text(bundle.least_sqnr_db)
    for output in bundle.outputs:
        simulated = "identical" if output.sqnr_db is None else decibels_text(output.sqnr_db)
        table.add_row(Text(output.name), _shape(output.shape), simulated, asked)
    console.print(table)
    if report.search is not None:
        show_search(report.search, console)
    for warning in bundle.warnings:
        console.print(f"note      {warning}", markup=False, soft_wrap=True)
    size = size_text(report.file.bytes)
    if report.written:
        console.print(f"written   {report.file.name} ({size})", markup=False, soft_wrap=True)
    else:
        told = f"{size}, {len(bundle.files) + 2} files, every one as its checksum says"
        console.print(f"whole     {report.file.name} ({told})", markup=False, soft_wrap=True)


def show_bundle_build(build: BundleBuild, console: Console) -> None:
    """Prints how an engine built from a bundle does, and whether it may be used."""
    show_comparison(build.compared, console)
    facts: list[Fact] = [
        ("simulated", f"SQNR {sqnr_text(build.simulated)} on the same samples, {build.simulated.candidate}"),
        ("built by", f"{build.library} on {build.gpu}"),
        *(("note", warning) for warning in build.warnings),
    ]
    _show_facts(facts, console)
    if build.engine is None:
        why = "it does not do what its model does" if build.verdict == "FAIL" else "nobody can tell what it does"
        told = f" the engine was thrown away: {why}"
        console.print(Text.assemble((build.verdict, COLOURS[build.verdict]), told))
        return
    again = " (was there already)" if build.reused else ""
    console.print(f"engine    {build.engine} ({size_text(build.engine_bytes)}){again}", markup=False, soft_wrap=True)
    console.print(f"manifest  {build.manifest_path}", markup=False, soft_wrap=True)


def _contents(bundle: Bundle) -> Iterator[Fact]:
    yield "model", f"{bundle.name}, {bundle.label}; {bundle.plan.counts}"
    yield "for", _target(bundle)
    yield "builder", _told(bundle.options)
    model = next(record for record in bundle.files if record.name == "model.onnx")
    yield "graph", f"{size_text(model.bytes)}, SHA-256 {model.sha256[:12]}…"
    for given in bundle.inputs:
        found = bundle.options.profile.get(given.name)
        span = "" if found is None else f", the engine takes {_shape(found.min)} to {_shape(found.max)}"
        yield "input", f"{given.name}: {given.dtype} [{_shape(given.shape)}]{span}"
    yield "samples", f"{bundle.samples} of {data_text(bundle.evaluation)}"
    if bundle.calibration is not None:
        yield "ranges", data_text(bundle.calibration)
    yield "made by", bundle.tool


def _target(bundle: Bundle) -> str:
    version = "any TensorRT that takes the graph" if bundle.tensorrt is None else f"TensorRT {bundle.tensorrt}"
    board = "any GPU" if bundle.board is None else f"{bundle.board} (compute capability {bundle.capability})"
    return f"{version} on {board}"


def _told(options: BuildOptions) -> str:
    flags = [name for name, told in (("INT8", options.int8), ("FP16", options.fp16)) if told]
    typed = "the graph's types decide" if options.strongly_typed else f"flags decide: {' and '.join(flags) or 'FP32'}"
    told = [typed, f"{(options.workspace_bytes or 0) // 2**20} MiB of workspace"]
    if options.optimization_level is not None:
        told.append(f"optimisation level {options.optimization_level}")
    if options.dla_core is not None:
        told.append(f"DLA core {options.dla_core}" + (", GPU for the rest" if options.gpu_fallback else ""))
    return ", ".join(told)


def _show_facts(facts: Iterator[Fact] | list[Fact], console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in facts:
        table.add_row(label, Text(text))
    console.print(table)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
