"""A benchmark, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_opt.report.show import size_text
from trt_opt.values.machine_state import Environment
from trt_opt.values.timing import Benchmark, Timing, TimingSettings

TIMES = "\N{MULTIPLICATION SIGN}"


def show_benchmark(result: Benchmark, console: Console) -> None:
    """Prints every side's times, the machine, and whether they may be used."""
    settings = result.timings[0].settings
    table = Table(title=Text(_title(settings), style="table.title"), title_justify="left")
    table.add_column("model", overflow="fold")
    for heading in _headings(result):
        table.add_column(heading, justify="right", no_wrap=True)
    first: dict[int, Timing] = {}
    for timing in result.timings:
        base = first.setdefault(timing.batch, timing)
        table.add_row(Text(timing.name), *_figures(timing, base, result))
    console.print(table)
    if result.random_data:
        console.print("data      random numbers", markup=False)
    show_environment(result.environment, console)
    for timing in result.timings:
        for problem in timing.problems:
            console.print(Text.assemble(("INVALID", "red"), f"   {timing.name}: {problem}"))


def show_environment(environment: Environment, console: Console) -> None:
    """Prints the machine, what there is to know of it, and why a measurement on it is invalid."""
    machine = environment.machine
    where = machine.device if machine.gpu is None else f"{machine.gpu}, driver {machine.driver or '?'}"
    console.print(f"machine   {where}, {machine.cores} cores, {machine.system}", markup=False)
    for note in environment.notes:
        console.print(f"          {note}", markup=False)
    for problem in environment.problems:
        console.print(Text.assemble(("INVALID", "red"), f"   {problem}"))


def milliseconds_text(value: float | None) -> str:
    """A time with three digits: "0.0612 ms", "12.3 ms"; "-" for None."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 1000 else f"{value:#.3g} ms".replace(". ", " ")


def rate_text(value: float) -> str:
    """Samples per second as people read them: "16400 /s", "8.32 /s"."""
    return f"{value:.0f} /s" if value >= 100 else f"{value:.3g} /s"


def _title(settings: TimingSettings) -> str:
    parts = [f"{settings.rounds} rounds in turns"]
    parts += [f"{settings.streams} streams"] if settings.streams > 1 else []
    parts += ["CUDA graph"] if settings.cuda_graph else []
    parts += [] if settings.transfers else ["without transfers"]
    parts += [f"{settings.threads} threads"] if settings.threads else []
    return "latency of one request, " + ", ".join(parts)


def _headings(result: Benchmark) -> list[str]:
    gpu = ["GPU median", "enqueue"] if _has_gpu(result) else []
    return ["precision", "batch", "median", "p90", "p95", "p99", "CV", *gpu, "throughput", "speed", "memory", "file"]


def _has_gpu(result: Benchmark) -> bool:
    return any(timing.compute is not None for timing in result.timings)


def _figures(timing: Timing, base: Timing, result: Benchmark) -> list[str]:
    latency = timing.latency
    times = (latency.median_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms)
    summaries = (timing.compute, timing.enqueue) if _has_gpu(result) else ()
    gpu = [None if summary is None else summary.median_ms for summary in summaries]
    memory = timing.memory.gpu_bytes if timing.memory.gpu_bytes is not None else timing.memory.peak_resident_bytes
    return [
        timing.precision or "-",
        str(timing.batch),
        *(milliseconds_text(value) for value in times),
        f"{100 * latency.cv:.0f} %",
        *(milliseconds_text(value) for value in gpu),
        rate_text(timing.throughput_per_s),
        f"{timing.throughput_per_s / base.throughput_per_s:.2f}{TIMES}",
        size_text(memory),
        size_text(timing.file.bytes),
    ]
