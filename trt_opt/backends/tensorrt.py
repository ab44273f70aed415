"""TensorRT itself, 8.5 to 11: builds on the machine that has the GPU, in a child process of its own interpreter."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_opt.backends.engine_runner import ENVIRONMENT, EngineRunner
from trt_opt.backends.hardware import device_called
from trt_opt.backends.inspector import layers_from_text
from trt_opt.backends.interpreters import TENSORRT_PYTHON_VARIABLE, tensorrt_python
from trt_opt.backends.library_backend import LibraryBackend
from trt_opt.backends.machine import has_gpu
from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.errors import MissingError, StageError, StorageError, TargetError
from trt_opt.files import write_atomically
from trt_opt.values.backend import BuiltEngine
from trt_opt.values.device import Gpu
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.engine_layers import EngineLayer
from trt_opt.values.progress import Progress
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import TensorRTTarget

HELLO_TIMEOUT_S = 120.0

INSPECT_TIMEOUT_S = 300.0

_OPTIONS = {
    "optimization_level": "--optimization-level",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
}
"""Options that not every version has, which are also fields of the capability table."""


class TensorRTBackend(LibraryBackend):
    """Builds with the TensorRT of an interpreter, for the GPU that is here.

    The child is started, and asked what it is, on construction: what is missing shows before any work is done.

    Args:
        target: The version, if one was named, must be the interpreter's; the board, if one was named, this machine's.
        python: The interpreter as asked for; None looks for one that has TensorRT.

    Attributes:
        gpu: The GPU it builds for and on.
        python: The interpreter.

    Raises:
        MissingError: There is no interpreter with TensorRT, no GPU, or another version than the target names.
        TargetError: The version is too old, or the board is not this machine's.
    """

    target: TensorRTTarget

    def __init__(self, target: TensorRTTarget, python: str | None = None) -> None:
        if python is None and TENSORRT_PYTHON_VARIABLE not in os.environ and not has_gpu():
            raise MissingError(
                "TensorRT builds on the machine that has the GPU, and here is none",
                hint="--target rtx builds without a GPU; trt-opt bundle packs what a machine with one needs",
            )
        self.python = tensorrt_python(python)
        self._worker = self._new_worker().__enter__()
        try:
            self._introduce(target)
        except BaseException:
            self._worker.__exit__(None, None, None)
            raise

    def _introduce(self, target: TensorRTTarget) -> None:
        try:
            found = self._worker.ask("hello", {}, timeout_s=HELLO_TIMEOUT_S)
        except FailedRequestError as error:
            raise MissingError(
                f"TensorRT cannot be loaded: {error}", where=self.python, hint="trt-opt doctor"
            ) from error
        version = str(found["version"])
        if found["gpu"] is None:
            raise MissingError(
                f"TensorRT {version} is here, but no NVIDIA GPU with a driver, and it builds nothing without one",
                where=self.python,
                hint="--target rtx builds without a GPU; trt-opt bundle packs what a machine with one needs",
            )
        self.gpu = Gpu(**found["gpu"])
        self.library = f"tensorrt {version}"
        self.support = support_of(version)
        _require_version(target, version, self.python)
        _require_board(target, self.gpu)
        self.target = TensorRTTarget(version, target.board)

    def __enter__(self) -> TensorRTBackend:
        return self

    def _new_worker(self) -> Worker:
        return Worker(ENVIRONMENT, python=self.python)

    def build(self, files: BuildFiles, options: BuildOptions, progress: Progress, timeout_s: float) -> BuiltEngine:
        """Builds an engine, with what was timed in earlier builds, and adds to that.

        Raises:
            TargetError: This version does not have an option.
            UnsupportedModelError: The parser or the builder does not take the model.
            MissingError: The machine lacks what the options name.
            WorkerError: The builder crashed, hung or was killed.
        """
        self._require_options(options)
        built = super().build(files, options, progress, timeout_s)
        try:
            _keep_timing_cache(files)
        except (OSError, StorageError) as error:  # the engine is good all the same
            lost = f"what was timed is not kept for later builds: {error}"
            return replace(built, warnings=(*built.warnings, lost))
        return built

    def layers(self, engine: Path, options: BuildOptions) -> tuple[EngineLayer, ...]:
        """What TensorRT made of the graph's layers, as the engine says.

        Args:
            engine: An engine that was just built here.
            options: With what.

        Raises:
            StageError: TensorRT does not take its own engine, or says something unreadable.
            WorkerError: It crashed or hung.
        """
        with tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
            text = Path(folder) / "layers.json"
            request = {
                "engine": str(engine),
                "output": str(text),
                "version_compatible": options.version_compatible,
            }
            try:
                self._ask("inspect", request, INSPECT_TIMEOUT_S)
            except FailedRequestError as error:
                raise StageError(f"the engine's layers cannot be read: {error}", where=str(engine)) from error
            return layers_from_text(text.read_text(encoding="utf-8"))

    def runner(self, engine: Path, options: BuildOptions) -> EngineRunner:
        """Runs an engine that was just built here."""
        return EngineRunner(
            engine,
            self.python,
            version_compatible=options.version_compatible,
            name=f"the engine on {self.gpu.name}",
        )

    def _request(self, files: BuildFiles, options: BuildOptions) -> dict[str, Any]:
        names = (
            "strongly_typed",
            "fp16",
            "int8",
            "float32_layers",
            "dla_core",
            "gpu_fallback",
            "version_compatible",
            "hardware_compatible",
            "tactic_sources",
        )
        own = {name: getattr(options, name) for name in names}
        if files.timing_cache is not None:
            own |= {"timing_cache_in": _timing_cache(files), "timing_cache_out": str(_new_timing_cache(files))}
        return {**super()._request(files, options), **own, "calibration": files.calibration}

    def _hint(self, refused: RefusedNode) -> str:
        if "DLA" in refused.reason:
            return "--gpu-fallback runs on the GPU what the accelerator cannot"
        return super()._hint(refused)

    def _require_options(self, options: BuildOptions) -> None:
        """Refuses what this version does not have."""
        for name, option in _OPTIONS.items():
            asked = getattr(options, name)
            if asked is not None and asked is not False and not getattr(self.support, name):  # level 0 is a wish
                raise TargetError(f"TensorRT {self.target.version} has no such option", where=option)
        if options.dla_core is not None and not self.support.dla:
            raise TargetError(
                f"TensorRT {self.target.version} does not build for Deep Learning Accelerators",
                where="--use-dla",
                hint="TensorRT up to 10.7, and 11.4.1 or later on AGX Orin, do",
            )


def _require_version(target: TensorRTTarget, version: str, python: str) -> None:
    wanted = target.version
    if wanted is not None and version.split(".")[: len(wanted.split("."))] != wanted.split("."):
        raise MissingError(
            f"the target is TensorRT {wanted}, and this interpreter has {version}",
            where=python,
            hint=f"--target tensorrt:{version}, or --tensorrt-python; trt-opt doctor shows what each Python has",
        )


def _require_board(target: TensorRTTarget, gpu: Gpu) -> None:
    if target.board is None:
        return
    board = device_called(target.board)
    if board.capability != gpu.capability:
        raise TargetError(
            f"the target is {board.title} (compute capability {board.capability}), here is {gpu}",
            hint="build it on that board, to where trt-opt bundle packs it; or --target tensorrt for the GPU here",
        )


def _timing_cache(files: BuildFiles) -> str | None:
    """What was timed earlier, in a file of its own; None without, or where the file is not as it was written."""
    if files.timing_cache is None or not files.timing_cache.is_file():
        return None
    digest, _, content = files.timing_cache.read_bytes().partition(b"\n")
    if digest.decode(errors="replace") != hashlib.sha256(content).hexdigest():
        return None
    file = files.engine.with_name("timings.in")
    file.write_bytes(content)
    return str(file)


def _new_timing_cache(files: BuildFiles) -> Path:
    return files.engine.with_name("timings.out")


def _keep_timing_cache(files: BuildFiles) -> None:
    """Moves what was timed to where the next build looks for it, behind a line with its hash."""
    new = _new_timing_cache(files)
    if files.timing_cache is None or not new.is_file():
        return
    content = new.read_bytes()
    for file in files.engine.parent.glob("timings.*"):  # Polygraphy leaves a lock beside what it reads
        file.unlink(missing_ok=True)
    files.timing_cache.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(files.timing_cache, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
