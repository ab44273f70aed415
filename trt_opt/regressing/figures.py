"""The figures in a result: which series each belongs to, and why it must not be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from trt_opt.regress.metrics import OWN_PREFIX
from trt_opt.values.accuracy import Comparison
from trt_opt.values.engine import Manifest
from trt_opt.values.history import Observation, SeriesKey
from trt_opt.values.machine_state import Environment
from trt_opt.values.model_comparison import ModelComparison, Side
from trt_opt.values.regression import ABResult
from trt_opt.values.samples import DataProvenance
from trt_opt.values.timing import Benchmark, Timing

Result = Benchmark | ModelComparison | Manifest | ABResult

BUILTIN = frozenset({"top1", "agreement", "sqnr"})


@dataclass(frozen=True, slots=True)
class Origin:
    """What a manifest that is recorded too says of an engine."""

    model: str
    precision: str
    target: str


@dataclass(frozen=True, slots=True)
class Naming:
    """How models are called.

    Attributes:
        model: The user's name for all of them; None takes each file's.
        engines: SHA-256 of an engine → where it comes from.
    """

    model: str | None
    engines: Mapping[str, Origin]

    def name_of(self, file: str, sha256: str) -> str:
        """A model's name."""
        if self.model is not None:
            return self.model
        return self.engines[sha256].model if sha256 in self.engines else stem_of(file)


def stem_of(file: str) -> str:
    """A file's name without folder and ending."""
    name = PurePath(file.replace("\\", "/")).name
    return name.rpartition(".")[0] or name


def origins_of(results: Iterable[Result]) -> dict[str, Origin]:
    """The engines that manifests tell of."""
    return {
        result.engine.sha256: Origin(stem_of(result.model.name), _precision_of(result), result.options.target)
        for result in results
        if isinstance(result, Manifest)
    }


def figures_of(result: Result, naming: Naming) -> tuple[Observation, ...]:
    """Every figure of a result."""
    match result:
        case Benchmark():
            found = [one for timing in result.timings for one in _timed(timing, result.environment, naming, result)]
        case ABResult():
            found = list(_timed(result.candidate, result.environment, naming, result))
        case ModelComparison():
            found = list(_compared(result, naming))
        case Manifest():
            found = list(_built(result, naming))
    return tuple(found)


def _timed(
    timing: Timing, environment: Environment, naming: Naming, result: Benchmark | ABResult | ModelComparison
) -> Iterator[Observation]:
    sha256 = timing.file.sha256
    origin = naming.engines.get(sha256)
    key = SeriesKey(
        model=naming.name_of(timing.file.name, sha256),
        precision=timing.precision if origin is None else origin.precision,
        target=timing.kind if origin is None else origin.target,
        device=timing.device,
        library=timing.library,
        flags=_flags(timing, is_random=isinstance(result, Benchmark) and result.random_data),
    )
    problems = (*environment.problems, *timing.problems)
    latency = tuple(one.latency_ms for one in timing.rounds)
    yield _figure(key, "latency_ms", timing.latency.median_ms, latency, problems)
    if timing.compute is not None:
        rounds = tuple(one.compute_ms for one in timing.rounds if one.compute_ms is not None)
        yield _figure(key, "compute_ms", timing.compute.median_ms, rounds, problems)
    throughput = tuple(one.throughput_per_s for one in timing.rounds)
    yield _figure(key, "throughput_per_s", timing.throughput_per_s, throughput, problems)
    memory = timing.memory.gpu_bytes if timing.memory.gpu_bytes is not None else timing.memory.peak_resident_bytes
    if memory:
        yield _figure(key, "memory_bytes", memory)
    built = _without_flags(key)
    if timing.kind == "onnxruntime":
        yield _figure(_of_graph(key), "onnx_bytes", timing.file.bytes)
    else:
        yield _figure(built, "engine_bytes", timing.file.bytes)
    if timing.build_s is not None:
        yield _figure(built, "build_s", timing.build_s)


def _compared(result: ModelComparison, naming: Naming) -> Iterator[Observation]:
    sides = {side.name: side for side in result.sides}
    if result.environment is not None:
        for timing in result.timings:
            yield from _timed(timing, result.environment, naming, result)
    gpu = "" if result.environment is None else result.environment.machine.gpu or ""
    reference = result.sides[0] if result.sides else None
    for side, comparison in zip(result.sides[1:], result.comparisons, strict=False):
        key = _side_key(side, gpu, naming)
        against = "" if reference is None else reference.precision or reference.name
        yield from _accuracies(comparison, key, _data_flags(result.data), against)
    if reference is not None and result.comparisons and result.comparisons[0].reference_task is not None:
        key = _with_flags(_side_key(reference, gpu, naming), _data_flags(result.data))
        yield _figure(key, "top1", result.comparisons[0].reference_task.top1)
    for side in sides.values():
        key = _without_flags(_side_key(side, gpu, naming))
        if side.kind == "onnxruntime" and side.onnx_bytes is not None:
            yield _figure(_of_graph(key), "onnx_bytes", side.onnx_bytes)
        if side.engine_bytes is not None:
            yield _figure(key, "engine_bytes", side.engine_bytes)


def _built(manifest: Manifest, naming: Naming) -> Iterator[Observation]:
    key = SeriesKey(
        model=naming.name_of(manifest.model.name, ""),
        precision=_precision_of(manifest),
        target=manifest.options.target,
        device="" if manifest.gpu is None else manifest.gpu.name,
        library=manifest.library,
    )
    yield _figure(key, "engine_bytes", manifest.engine.bytes)
    yield _figure(_of_graph(key), "onnx_bytes", manifest.graph.bytes)
    if "build" in manifest.seconds:
        yield _figure(key, "build_s", manifest.seconds["build"])
    own = manifest.variants[-1] if manifest.variants else None
    if own is None or manifest.evaluation is None:
        return
    data = _data_flags(manifest.evaluation)
    for comparison, simulated in ((own.accuracy, {"simulated": "1"}), (own.on_gpu, {})):
        if comparison is not None:
            yield from _accuracies(comparison, key, {**data, **simulated}, manifest.variants[0].name)


def _accuracies(
    comparison: Comparison, key: SeriesKey, flags: Mapping[str, str], against: str
) -> Iterator[Observation]:
    alone, relative = _with_flags(key, flags), _with_flags(key, {**flags, "against": against})
    if comparison.candidate_task is not None:
        yield _figure(alone, "top1", comparison.candidate_task.top1)
    if comparison.top1_agreement is not None:
        yield _figure(relative, "agreement", comparison.top1_agreement)
    if comparison.sqnr_db is not None:
        yield _figure(relative, "sqnr_db", comparison.sqnr_db)
    metric = comparison.metric
    if metric is not None and metric.unit == "share" and metric.name not in BUILTIN and metric.candidate is not None:
        yield _figure(alone, OWN_PREFIX + metric.name, metric.candidate)


def _figure(
    key: SeriesKey, metric: str, value: float, rounds: tuple[float, ...] = (), problems: tuple[str, ...] = ()
) -> Observation:
    if not math.isfinite(value):
        problems = (*problems, "it is no number")
    return Observation(key, metric, float(value), rounds, problems)


def _side_key(side: Side, gpu: str, naming: Naming) -> SeriesKey:
    origin = naming.engines.get(side.file.sha256)
    return SeriesKey(
        model=naming.name_of(side.file.name, side.file.sha256),
        precision=side.precision if origin is None else origin.precision,
        target=side.kind if origin is None else origin.target,
        # What ONNX Runtime computes does not hang on the processor.
        device="" if side.kind == "onnxruntime" else gpu,
        library=side.library,
    )


def _of_graph(key: SeriesKey) -> SeriesKey:
    """A file's size is the same wherever it runs."""
    return SeriesKey(key.model, key.precision)


def _without_flags(key: SeriesKey) -> SeriesKey:
    return SeriesKey(key.model, key.precision, key.target, key.device, key.library)


def _with_flags(key: SeriesKey, flags: Mapping[str, str]) -> SeriesKey:
    return SeriesKey(key.model, key.precision, key.target, key.device, key.library, _flags_text(flags))


def _flags(timing: Timing, *, is_random: bool) -> str:
    settings = timing.settings
    flags = {"batch": str(timing.batch), "streams": str(settings.streams)}
    flags["shapes"] = ",".join(
        f"{name}:{'x'.join(map(str, shape)) or 'scalar'}" for name, shape in sorted(timing.shapes.items())
    )
    if timing.kind == "onnxruntime":
        flags["threads"] = "auto" if settings.threads is None else str(settings.threads)
    else:
        flags["cuda_graph"] = str(int(settings.cuda_graph))
        flags["transfers"] = str(int(settings.transfers))
    if is_random:
        flags["data"] = "random"
    return _flags_text(flags)


def _flags_text(flags: Mapping[str, str]) -> str:
    return " ".join(f"{name}={'_'.join(value.split())}" for name, value in sorted(flags.items()) if value)


def _data_flags(data: DataProvenance) -> dict[str, str]:
    """Accuracies on other data are another series."""
    return {"data": data.sha256[:12]}


def _precision_of(manifest: Manifest) -> str:
    return manifest.variants[-1].name if manifest.variants else ""
