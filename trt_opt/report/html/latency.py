"""How fast every side is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trt_opt.report.bench import milliseconds_text, rate_text
from trt_opt.report.html.charts import latency_chart, lines_chart
from trt_opt.report.html.page import Cell, Chart, Section, Table, columns, number, words
from trt_opt.report.show import size_text
from trt_opt.values.machine_state import Environment
from trt_opt.values.report_content import ReportContent
from trt_opt.values.timing import Timing

MISSING = "Nothing was timed: give a result of `trt-opt bench -o` or `trt-opt compare -o`."


def latency_section(content: ReportContent) -> Section:
    """Percentiles and throughput of every side, over batch sizes and rounds."""
    found = _shortly_named(list(_timings(content)))
    if not found:
        return Section("speed", "Speed", missing=(MISSING,))
    return Section("speed", "Speed", tuple(_texts(found)), tuple(_charts(found)), (_table(found), *_layers(found)))


def _timings(content: ReportContent) -> Iterator[Timing]:
    """All timings, each with the problems of the machine it was measured on."""
    for timings, environment in _runs(content):
        problems = () if environment is None else environment.problems
        for timing in timings:
            yield replace(timing, problems=tuple(dict.fromkeys((*problems, *timing.problems))))


def _runs(content: ReportContent) -> Iterator[tuple[tuple[Timing, ...], Environment | None]]:
    for benchmark in content.benchmarks:
        yield benchmark.timings, benchmark.environment
    for comparison in content.comparisons:
        yield comparison.timings, comparison.environment
    for result in content.ab_results:
        yield (result.base, result.candidate), result.environment


def _shortly_named(found: list[Timing]) -> list[Timing]:
    """Paths cut to as many of their last parts as tell them apart."""
    parts = {one.name: one.name.replace("\\", "/").split("/") for one in found}
    for kept in range(1, max(map(len, parts.values()), default=0) + 1):
        short = {name: "/".join(split[-kept:]) for name, split in parts.items()}
        if len(set(short.values())) == len(short):
            return [replace(one, name=short[one.name]) for one in found]
    return found


def _texts(found: Sequence[Timing]) -> Iterator[str]:
    if any(timing.kind == "onnxruntime" for timing in found):
        yield "ONNX Runtime's times are those of its kernels on this processor: they say nothing of a GPU."
    problems = [problem for timing in found for problem in timing.problems]
    if problems:
        yield f"Invalid, and shown all the same: {'; '.join(dict.fromkeys(problems))}."


def _label(timing: Timing, found: Sequence[Timing]) -> str:
    several = len({one.batch for one in found}) > 1
    return f"{timing.name}, batch {timing.batch}" if several else timing.name


def _charts(found: Sequence[Timing]) -> Iterator[Chart]:
    rows = [
        {
            "name": _label(timing, found),
            "median": timing.latency.median_ms,
            "p90": timing.latency.p90_ms,
            "p99": timing.latency.p99_ms,
            "tip": f"{_label(timing, found)}: {milliseconds_text(timing.latency.median_ms)}",
        }
        for timing in found
    ]
    alt = "; ".join(f"{row['name']} {row['median']:.4g} ms" for row in rows)
    yield Chart("Latency of a request", latency_chart(rows), alt)
    if len({timing.batch for timing in found}) > 1:
        sweep = [{"x": one.batch, "y": one.throughput_per_s, "name": one.name} for one in found]
        spec = lines_chart(sweep, "rows per request", "samples per second", log_x=True)
        yield Chart("Throughput over batch sizes", spec, "the same figures as in the table below")
    rounds = [
        {"x": place + 1, "y": one.latency_ms, "name": _label(timing, found)}
        for timing in found
        for place, one in enumerate(timing.rounds)
    ]
    spec = lines_chart(rounds, "round", "median latency in ms")
    yield Chart("Round by round", spec, "the median latency of every round of every side, in turns")


def _layers(found: Sequence[Timing]) -> Iterator[Table]:
    """Every layer's time, as the library calls it after fusion."""
    for timing in found:
        if timing.layers:
            whole = sum(layer.median_ms for layer in timing.layers)
            rows = tuple(
                (
                    words(layer.name),
                    words(layer.kind),
                    Cell(milliseconds_text(layer.median_ms), layer.median_ms),
                    number(100 * layer.median_ms / whole if whole else None, ".1f", " %"),
                )
                for layer in timing.layers
            )
            heads = columns("layer", "operator", "time", "share", numeric=("time", "share"))
            yield Table(f"{_label(timing, found)}: layers under the profiler", heads, rows, filterable=True)


def _table(found: Sequence[Timing]) -> Table:
    numeric = ("batch", "median", "p90", "p95", "p99", "CV", "GPU", "throughput", "memory", "file", "build")
    titles = ("what", "precision", *numeric, "runs on", "valid")
    return Table("Times", columns(*titles, numeric=numeric), tuple(map(_row, found)))


def _row(timing: Timing) -> tuple[Cell, ...]:
    latency = timing.latency
    times = (latency.median_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms)
    memory = timing.memory.gpu_bytes if timing.memory.gpu_bytes is not None else timing.memory.peak_resident_bytes
    compute = None if timing.compute is None else timing.compute.median_ms
    return (
        words(timing.name),
        words(timing.precision),
        number(timing.batch, ".0f"),
        *(Cell(milliseconds_text(value), value) for value in times),
        number(100 * latency.cv, ".0f", " %"),
        Cell(milliseconds_text(compute).replace("-", "\N{EN DASH}"), compute),
        Cell(rate_text(timing.throughput_per_s), timing.throughput_per_s),
        Cell(size_text(memory), memory),
        Cell(size_text(timing.file.bytes), timing.file.bytes),
        number(timing.build_s, ".1f", " s"),
        words(f"{timing.device}, {timing.library}"),
        words("; ".join(timing.problems) or "yes", "invalid" if timing.problems else ""),
    )
