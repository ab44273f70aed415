"""From a bundle to an engine that was seen to do what its model does, on the machine it is for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from calibrators import CalibratorError, cache_from_text, text_from_cache
from trt_opt import __version__
from trt_opt.backends import Backend, backend_for
from trt_opt.backends.machine import package_versions
from trt_opt.build.built_precision import mismatches
from trt_opt.build.manifest import MANIFEST, build_key, record_of_file, write_manifest
from trt_opt.build.store import CACHE, ENGINE, GRAPH, EngineStore
from trt_opt.bundling.layout import MODEL
from trt_opt.bundling.reading import OpenedBundle, opened_bundle
from trt_opt.bundling.samples import Recording, compared, recordings_from_folder
from trt_opt.errors import MissingError, RequestError, StageError, TargetError
from trt_opt.files import write_atomically
from trt_opt.implicit.caches import three_numbers
from trt_opt.implicit.native import portable_calibration
from trt_opt.values.accuracy import Comparison
from trt_opt.values.backend import BuiltEngine
from trt_opt.values.bundle import Bundle, BundleBuild
from trt_opt.values.engine import BuildFiles, BuildOptions, BuildOutcome, Manifest, Variant
from trt_opt.values.progress import Progress
from trt_opt.values.target import TensorRTTarget
from trt_opt.variants import SIMULATED


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What `trt-opt build` was asked for; everything else the bundle has decided.

    Attributes:
        model: The bundle.
        output: Folder of the engine store.
        timeout_s: How long the builder may take, seconds.
        tensorrt_python: The Python that has TensorRT; None looks for one.
        workspace_mib: Limit of the builder's scratch memory, MiB; None for the bundle's.
        optimization_level: Builder optimisation level; None for the bundle's.
    """

    model: str
    output: str = "engines"
    timeout_s: int = 3600
    tensorrt_python: str | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None

    def options(self, bundle: Bundle, backend: Backend) -> BuildOptions:
        """What the builder is told: what the bundle says, but for what is about this machine."""
        told = replace(bundle.options, target=str(backend.target))
        if self.workspace_mib is not None:
            told = replace(told, workspace_bytes=self.workspace_mib * 2**20)
        if self.optimization_level is not None:
            told = replace(told, optimization_level=self.optimization_level)
        return told


def built_from_bundle(request: BundleRequest, progress: Progress, *, rebuild: bool = False) -> BundleBuild:
    """Builds a bundle's engine with the TensorRT of this machine, and runs it on the bundle's samples.

    The engine enters the store if its verdict is PASS, and is thrown away otherwise.

    Args:
        request: The request.
        progress: Told of every stage.
        rebuild: Build even if the store has this engine.

    Raises:
        RequestError: The file is no bundle, or not whole.
        MissingError: TensorRT, the version it is for, or a GPU is not here.
        TargetError: The bundle is for another board, or this TensorRT cannot build its graph.
        UnsupportedModelError: The builder refuses the graph.
        StageError: The build failed, or the engine does not run; nothing is left behind.
    """
    store = EngineStore(Path(request.output))
    with opened_bundle(Path(request.model)) as opened:
        bundle = opened.bundle
        with backend_for(TensorRTTarget(bundle.tensorrt, bundle.board), request.tensorrt_python) as backend:
            require_buildable(bundle, backend)
            key = _key(opened, backend, request.options(bundle, backend))
            found = None if rebuild else store.find(bundle.name, key)
            judged = None if found is None else found.manifest.variants[-1].on_gpu
            if found is not None and judged is not None and judged.verdict == "PASS":
                return _told(request, bundle, backend, _Judged(judged, _simulated(found)), found)
            return _Build(request, opened, backend, progress, store).run(key)


def require_buildable(bundle: Bundle, backend: Backend) -> None:
    """Refuses, before anything is built, a graph that this TensorRT takes otherwise than it was written.

    The version and the board were compared when the backend was made.

    Raises:
        TargetError: This version has no types that bind, no flags, or no calibration; a new bundle helps.
    """
    support, options = backend.support, bundle.options
    again = f"make a bundle for what is here: trt-opt bundle … --target {backend.target}"
    if options.strongly_typed and not support.binds_types:
        raise TargetError(
            f"the graph's own types decide its precisions (FP16 scales at its Q/DQ pairs), and {backend.library} "
            "reads every scale as FP32",
            hint=again,
        )
    if not options.strongly_typed and not support.precision_flags:
        raise TargetError(f"the graph needs precision flags, and {backend.library} has none", hint=again)
    if bundle.precision == "int8-implicit" and not support.int8_calibrators:
        raise TargetError(f"the graph needs a calibration cache, and {backend.library} reads none", hint=again)
    gpu = backend.gpu
    if gpu is None:
        raise MissingError("an engine from a bundle is run here, and there is no GPU", hint="trt-opt doctor")
    if bundle.capability is not None and gpu.capability != bundle.capability:
        raise TargetError(f"the bundle is for compute capability {bundle.capability}, here is {gpu}", hint=again)


def _key(opened: OpenedBundle, backend: Backend, options: BuildOptions) -> str:
    """What decides the engine, hashed."""
    return build_key(
        {
            "tool": __version__,
            "library": backend.library,
            "gpu": None if backend.gpu is None else str(backend.gpu),
            "bundle": opened.sha256,
            "options": options,
        }
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """The engine and the simulated model against the float model."""

    compared: Comparison
    simulated: Comparison


@dataclass(frozen=True, slots=True, eq=False)
class _Build:
    """One build in the folder where the bundle was unpacked; only a good engine leaves it."""

    request: BundleRequest
    opened: OpenedBundle
    backend: Backend
    progress: Progress
    store: EngineStore

    @property
    def engine(self) -> Path:
        """Where the engine is built."""
        return self.opened.folder / ENGINE

    @property
    def options(self) -> BuildOptions:
        """What the builder is told."""
        return self.request.options(self.opened.bundle, self.backend)

    def run(self, key: str) -> BundleBuild:
        """Builds, judges, and keeps what is good."""
        bundle = self.opened.bundle
        recordings = recordings_from_folder(bundle, self.opened.folder)
        built = self._built()
        judged = self._judged(recordings)
        if judged.compared.verdict != "PASS":
            return _told(self.request, bundle, self.backend, judged, None, built)
        manifest = self._manifest(built, judged)
        with self.store.stage(bundle.name, key) as folder:
            shutil.copyfile(self.engine, folder / ENGINE)
            shutil.copyfile(self.opened.folder / MODEL, folder / GRAPH)
            if manifest.cache is not None:
                shutil.copyfile(self.opened.folder / CACHE, folder / CACHE)
            write_manifest(manifest, folder / MANIFEST)
        outcome = self.store.outcome(bundle.name, key, reused=False)
        return _told(self.request, bundle, self.backend, judged, outcome)

    def _built(self) -> BuiltEngine:
        gpu = self.backend.gpu
        timings = None if gpu is None else self.store.timing_cache(gpu, self.backend.library)
        files = BuildFiles(self.opened.folder / MODEL, self.engine, timings, self._calibration())
        return self.backend.build(files, self.options, self.progress, self.request.timeout_s)

    def _calibration(self) -> Mapping[str, Any] | None:
        """What the child reads instead of calibrating; its first line then names the version that is here."""
        if self.opened.bundle.precision != "int8-implicit":
            return None
        file = self.opened.folder / CACHE
        try:
            cache = cache_from_text(file.read_bytes())
            version = three_numbers(self.backend.version)
            write_atomically(file, text_from_cache(replace(cache, version=version)))
        except CalibratorError as error:
            raise RequestError(str(error), where=CACHE) from error
        return portable_calibration(file)

    def _judged(self, recordings: Sequence[Recording]) -> _Judged:
        bundle = self.opened.bundle
        runner = self.backend.runner(self.engine, self.options)
        if runner is None:
            raise MissingError("the engine cannot be run here", hint="trt-opt doctor")
        label = f"{bundle.label} {SIMULATED}"
        simulated, engine = compared(recordings, label, runner, bundle.least_sqnr_db, self.progress)
        return _Judged(engine, simulated)

    def _manifest(self, built: BuiltEngine, judged: _Judged) -> Manifest:
        bundle, folder = self.opened.bundle, self.opened.folder
        path = Path(self.request.model)
        model = record_of_file(folder / MODEL)
        try:
            layers, notes = self.backend.layers(self.engine, self.options), bundle.warnings
        except StageError as error:
            layers, notes = (), (*bundle.warnings, f"what became of the layers is not known: {error.what}")
        return Manifest(
            tool=f"trt-opt {__version__}",
            library=self.backend.library,
            built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            recipe={"model": str(path.absolute())},
            model=record_of_file(path),
            engine=record_of_file(self.engine),
            graph=replace(model, name=GRAPH),
            table=None,
            options=self.options,
            inputs=built.inputs,
            outputs=built.outputs,
            calibration=bundle.calibration,
            evaluation=replace(bundle.evaluation, samples=bundle.samples),
            precision=bundle.plan,
            rewrite=bundle.rewrite,
            variants=(
                Variant(bundle.label, model.bytes, built.engine_bytes, judged.simulated, on_gpu=judged.compared),
            ),
            seconds={"build": round(built.seconds, 3)},
            warnings=notes,
            builder_warnings=built.warnings,
            packages=package_versions(),
            gpu=self.backend.gpu,
            layers=layers,
            mismatches=mismatches(bundle.plan, layers, builder_chooses=not self.options.strongly_typed),
            cache=record_of_file(folder / CACHE) if bundle.precision == "int8-implicit" else None,
        )


def _simulated(found: BuildOutcome) -> Comparison:
    accuracy = found.manifest.variants[-1].accuracy
    if accuracy is None:
        raise StageError("its manifest lacks the simulation's accuracy", where=found.manifest_path, hint="--rebuild")
    return accuracy


def _told(
    request: BundleRequest,
    bundle: Bundle,
    backend: Backend,
    judged: _Judged,
    outcome: BuildOutcome | None,
    built: BuiltEngine | None = None,
) -> BundleBuild:
    manifest = None if outcome is None else outcome.manifest
    size = manifest.engine.bytes if manifest is not None else built.engine_bytes if built is not None else 0
    return BundleBuild(
        bundle=request.model,
        library=backend.library,
        gpu=str(backend.gpu),
        verdict=judged.compared.verdict,
        reason=judged.compared.reason,
        engine=None if outcome is None else outcome.engine,
        manifest_path=None if outcome is None else outcome.manifest_path,
        engine_bytes=size,
        compared=judged.compared,
        simulated=judged.simulated,
        reused=outcome is not None and outcome.reused,
        warnings=bundle.warnings if manifest is None else manifest.warnings,
    )
