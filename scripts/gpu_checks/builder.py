"""Checks of what stands around an engine: its manifest, a cancelled build, the timing cache, accelerators."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import onnx
from gpu_checks.bench import BUILD_TIMEOUT_S, Bench
from gpu_checks.libraries import backend_of
from gpu_checks.models import witness_model
from gpu_checks.running import FailedError, Found, SkippedError

from trt_opt.build.manifest import check_engine
from trt_opt.build.store import GRAPH
from trt_opt.errors import MissingError, StaleError, TargetError, WorkerError
from trt_opt.pipeline import build_engine
from trt_opt.values.backend import BuiltEngine
from trt_opt.values.engine import BuildFiles, BuildOptions, Manifest
from trt_opt.values.progress import Silent

FASTER = 0.9
"""A build with a timing cache takes at most this share of the time without."""

TELLING_S = 1.5
"""A build that is shorter than this says nothing about what a timing cache saves."""


def manifest(bench: Bench) -> Found:
    """Another GPU, another version and a flipped byte are refused by the manifest, before any runtime is started."""
    outcome = next(iter(bench.built("digits").values()), None) or bench.engine("digits", "int8")
    found, engine = outcome.manifest, Path(outcome.engine)
    library, _, version = found.library.partition(" ")
    major, minor = (int(part) for part in bench.known.gpu.capability.split("."))
    newer = f"{int(version.partition('.')[0]) + 1}.0.0"
    check_engine(found, engine, library=library, version=version, capability=(major, minor))
    refusals: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
        flipped = Path(shutil.copy(engine, folder))
        content = bytearray(flipped.read_bytes())
        content[len(content) // 2] ^= 1
        flipped.write_bytes(content)
        cases = {
            "another GPU": (engine, version, (major + 1, minor)),
            "another version": (engine, newer, (major, minor)),
            "a flipped byte": (flipped, version, (major, minor)),
        }
        for case, (file, told, capability) in cases.items():
            refusal = _refusal(found, file, f"{library} {told}", capability)
            refusals |= {case: refusal} if refusal else {}
    taken = sorted(cases.keys() - refusals.keys())
    if taken:
        raise FailedError(f"not refused: {', '.join(taken)}", {"refused": refusals})
    loaded = sorted({"tensorrt", "tensorrt_rtx"} & sys.modules.keys())
    if loaded:
        raise FailedError(f"{', '.join(loaded)} was loaded where the manifest is checked", {"refused": refusals})
    return Found(f"taken as it is; refused without a runtime: {', '.join(refusals)}", {"refused": refusals})


def _refusal(found: Manifest, engine: Path, library: str, capability: tuple[int, int]) -> str | None:
    name, _, version = library.partition(" ")
    try:
        check_engine(found, engine, library=name, version=version, capability=capability)
    except StaleError as error:
        return error.what
    return None


class Impatient(Silent):
    """Presses Ctrl-C at the first step of a build."""

    def __init__(self) -> None:
        self.pressed_at: float | None = None

    def advance(self, amount: int = 1) -> None:
        """Interrupts, once."""
        del amount
        if self.pressed_at is None:
            self.pressed_at = time.monotonic()
            raise KeyboardInterrupt


def cancel(bench: Bench) -> Found:
    """A build that is interrupted stops by itself, leaves no engine, and its process takes the next request."""
    if not bench.known.support.progress_monitor:
        raise SkippedError(f"{bench.known.library} has no progress monitor: a build cannot be cancelled")
    model, listener = bench.subject("resnet50").model, Impatient()
    with backend_of(bench.library) as backend, tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
        engine = Path(folder) / "engine"
        try:
            backend.build(BuildFiles(model, engine), _options(bench), listener, BUILD_TIMEOUT_S)
        except KeyboardInterrupt:
            if listener.pressed_at is None:
                raise  # the user's own
        if listener.pressed_at is None:
            raise FailedError("the build told of no step, so that nothing could be cancelled")
        took = time.monotonic() - listener.pressed_at
        if engine.exists():
            raise FailedError(f"the build went on to its end, {took:.1f} s after it was cancelled")
        try:
            backend.parse(model)
        except WorkerError as error:
            raise FailedError(f"the build did not stop by itself within {took:.1f} s: {error.what}") from error
    return Found(f"stopped {took:.2f} s after it was cancelled, no engine is left", {"seconds": took})


def timing(bench: Bench) -> Found:
    """A second build reads what the first has timed, and is faster for it."""
    if bench.library.is_rtx:
        raise SkippedError("TensorRT-RTX builds without timing anything")
    outcome = bench.engine("digits", "fp16")
    graph, told = Path(outcome.engine).with_name(GRAPH), outcome.manifest.options
    alone = replace(told, profile={}, values={}, float32_layers=())
    with backend_of(bench.library) as backend, tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
        cache, other = Path(folder) / "timings", Path(folder) / "witness.onnx"
        onnx.save(witness_model(), other)

        def built(model: Path, timings: Path) -> BuiltEngine:
            files = BuildFiles(model, Path(folder) / "engine", timings)
            return backend.build(files, told if model == graph else alone, Silent(), BUILD_TIMEOUT_S)

        # The first build of a process loads CUDA and kernels, which is not what is timed.
        built(other, Path(folder) / "of the witness alone")
        first = built(graph, cache).seconds
        if not cache.is_file():
            raise FailedError("the first build wrote no timing cache")
        size = cache.stat().st_size
        second = built(graph, cache).seconds
        # Had the cache not been read, there would be nothing in it now but the few timings of the small model.
        built(other, cache)
        grown = cache.stat().st_size
    figures = {"first_s": first, "second_s": second, "bytes": size, "bytes_with_another_model": grown}
    reason = f"{first:.2f} s, then {second:.2f} s; {size} bytes, with another model's {grown}"
    if grown < size:
        raise FailedError(f"{reason}: the cache was not read", figures)
    if first >= TELLING_S and not second <= FASTER * first:
        raise FailedError(f"{reason}: the second build was not faster", figures)
    if first < TELLING_S:
        raise SkippedError(f"{reason}: it was read, but the build is too short to tell whether that saves time")
    return Found(reason, figures)


def dla(bench: Bench, core: int | None) -> Found:
    """An engine for a Deep Learning Accelerator is built, and gives the float model's answers."""
    if core is None:
        raise SkippedError("not asked for: --use-dla 0")
    if bench.library.is_rtx:
        raise SkippedError("TensorRT-RTX does not build for Deep Learning Accelerators")
    try:
        recipe = bench.recipe("digits", "fp16", use_dla=core, gpu_fallback=True)
        outcome = build_engine(recipe, Silent())
    except (MissingError, TargetError) as error:
        raise SkippedError(error.what) from error
    found = bench.comparison("digits", outcome)
    on_dla = sum("dla" in f"{layer.name} {layer.kind}".lower() for layer in outcome.manifest.layers)
    figures = {"sqnr_db": found.sqnr_db, "layers": len(outcome.manifest.layers), "of_them_on_dla": on_dla}
    reason = f"SQNR {found.sqnr_db or float('inf'):.1f} dB, {on_dla} of {len(outcome.manifest.layers)} layers name DLA"
    if found.sqnr_db is not None and not found.sqnr_db >= 30:
        raise FailedError(f"{reason}: below 30 dB", figures)
    return Found(reason, figures)


def _options(bench: Bench) -> BuildOptions:
    """What a builder is told for a float graph as it is."""
    known = bench.known
    return BuildOptions(
        target=known.target,
        optimization_level=bench.optimization_level,
        strongly_typed=known.support.binds_types,
        tactic_sources=bench.library.tactic_sources,
    )
