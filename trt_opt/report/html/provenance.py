"""What everything rests on: files, hashes, options, versions, the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trt_opt.report.html.page import Facts, Section
from trt_opt.report.show import size_text
from trt_opt.values.codec import plain_from_value
from trt_opt.values.engine import FileRecord, Manifest
from trt_opt.values.machine_state import Environment, MachineState
from trt_opt.values.report_content import ReportContent
from trt_opt.values.samples import DataProvenance


def provenance_section(content: ReportContent) -> Section:
    """Facts about every engine, every machine, and this page."""
    facts = [Facts("This page", (("made", content.made_at), ("by", content.tool), *_numbered(content.sources)))]
    facts += [_of_manifest(manifest) for manifest in content.manifests]
    facts += _environments(content)
    return Section("provenance", "Environment and provenance", facts=tuple(facts))


def _numbered(sources: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return (("from", source) for source in sources)


def _of_manifest(manifest: Manifest) -> Facts:
    entries = [("built", f"{manifest.built_at} by {manifest.tool} with {manifest.library}")]
    entries += [("GPU", str(manifest.gpu))] if manifest.gpu else []
    for name in ("model", "engine", "graph", "table", "cache"):
        record: FileRecord | None = getattr(manifest, name)
        entries += [(name, _file(record))] if record is not None else []
    for name in ("calibration", "evaluation"):
        data: DataProvenance | None = getattr(manifest, name)
        entries += [(name, _data(data))] if data is not None else []
    entries += [("options", _plain(plain_from_value(manifest.options)))]
    entries += [("recipe", _plain(manifest.recipe))]
    entries += [("seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in manifest.seconds.items()))]
    entries += [("packages", ", ".join(f"{name} {version}" for name, version in manifest.packages.items()))]
    entries += [("warning", warning) for warning in (*manifest.warnings, *manifest.builder_warnings)]
    return Facts(f"{manifest.model.name}, {manifest.variants[-1].name}", tuple(entries))


def _environments(content: ReportContent) -> Iterator[Facts]:
    for benchmark in content.benchmarks:
        yield _of_environment(f"Benchmark of {benchmark.measured_at}", benchmark.environment, benchmark.command)
    for comparison in content.comparisons:
        if comparison.environment is not None:
            title = f"Comparison of {comparison.measured_at}"
            yield _of_environment(title, comparison.environment, comparison.command)
    for result in content.ab_results:
        yield _of_environment(f"{result.candidate.name} against {result.base.name}", result.environment, ())


def _of_environment(title: str, environment: Environment, command: tuple[str, ...]) -> Facts:
    machine = plain_from_value(environment.machine)
    entries = [(name.replace("_", " "), str(value)) for name, value in machine.items() if value is not None]
    entries += [(f"{state.moment}", text) for state in _ends(environment) if (text := _state(state))]
    entries += [("note", note) for note in environment.notes]
    entries += [("problem", problem) for problem in environment.problems]
    entries += [("command", "trt-opt " + " ".join(command))] if command else []
    return Facts(title, tuple(entries))


def _ends(environment: Environment) -> tuple[MachineState, ...]:
    states = environment.states
    return states if len(states) < 3 else (states[0], states[len(states) // 2], states[-1])


def _state(state: MachineState) -> str:
    parts = [f"load {state.cpu.load_1m:.2f}"] if state.cpu.load_1m is not None else []
    parts += [f"{state.cpu.other_load:.2f} cores busy with others"] if state.cpu.other_load is not None else []
    parts += [f"{state.cpu.frequency_mhz:.0f} MHz"] if state.cpu.frequency_mhz is not None else []
    for gpu in state.gpus:
        found = {"MHz": gpu.sm_clock_mhz, "W": gpu.power_w, "°C": gpu.temperature_c, "%": gpu.utilization_pct}
        parts += [f"{value:g} {unit}" for unit, value in found.items() if value is not None]
        parts += list(gpu.throttle_reasons)
    return ", ".join(parts)


def _file(record: FileRecord) -> str:
    return f"{record.name}, {size_text(record.bytes)}, SHA-256 {record.sha256}"


def _data(data: DataProvenance) -> str:
    kind = ", random numbers" if data.random else ""
    return f"{data.source}, {data.samples} samples{kind}, SHA-256 {data.sha256}"


def _plain(values: Mapping[str, Any]) -> str:
    told = {name: value for name, value in values.items() if value not in (None, False, [], {}, "")}
    return ", ".join(f"{name} = {value}" for name, value in told.items())
