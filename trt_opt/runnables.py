"""Whatever can be run and timed: an ONNX file or an engine, told apart, checked, and given to the right library."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from trt_opt.backends import engine_runner, tensorrt_rtx
from trt_opt.backends.engine_runner import EngineRunner
from trt_opt.backends.interpreters import tensorrt_python
from trt_opt.backends.onnxruntime_process import OnnxRuntimeProcess
from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.backends.trtexec import TrtexecRunner, found_trtexec
from trt_opt.build.manifest import MANIFEST, check_engine, read_manifest
from trt_opt.build.store import ENGINE
from trt_opt.errors import MissingError, RequestError, StaleError
from trt_opt.graph.float_types import HALF_TYPES
from trt_opt.graph.load import load_model
from trt_opt.graph.query import graph_inputs
from trt_opt.graph.tensors import tensor_bytes, tensors_of
from trt_opt.importing import exact_source
from trt_opt.quantize.quantized_models import is_quantized
from trt_opt.values.device import Gpu
from trt_opt.values.engine import Manifest
from trt_opt.values.runner import Runner
from trt_opt.values.tensors import TensorSpec
from trt_opt.values.timing import RunnerKind, TimedRunner, TimingSettings

HELLO_TIMEOUT_S = 120.0

Via = Literal["trtexec"]
"""What times an engine instead of this package."""


@dataclass(frozen=True, slots=True, eq=False)
class Runnable:
    """A model or an engine that may be run here.

    Attributes:
        file: The ONNX file or the engine.
        kind: The library that runs it.
        name: What results call it: the file's name, or that of its folder in the engine store.
        precision: "FP32", "FP16", "INT8 + FP16": the manifest's word, or what the graph stores most of.
        inputs: What is fed.
        model: The ONNX model; None for an engine.
        manifest: What lies beside an engine; None for an ONNX file.
        python: The interpreter that has the engine's library.
        gpu: What an engine runs on; None for ONNX Runtime.
    """

    file: Path
    kind: RunnerKind
    name: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    model: onnx.ModelProto | None = None
    manifest: Manifest | None = None
    python: str | None = None
    gpu: Gpu | None = None

    def timed_runner(self, settings: TimingSettings, via: Via | None = None) -> TimedRunner:
        """Runs it as fast as its library can.

        Args:
            settings: How it is timed.
            via: What times it; None for this package itself.

        Raises:
            MissingError: trtexec is not here.
            RequestError: trtexec runs no ONNX file with ONNX Runtime.
        """
        if via == "trtexec":
            return self._trtexec_runner()
        if self.model is None:
            return self._engine_runner()
        return OnnxRuntimeProcess(self.model, optimised=True, threads=settings.threads, name=self.name)

    def exact_runner(self) -> Runner:
        """Runs it for its numbers: an ONNX file as it is written, with FP16 rounded to FP16; an engine as it is."""
        if self.model is None:
            return self._engine_runner()
        exact = exact_source(self.model) if is_quantized(self.model) else self.model
        return OnnxRuntimeProcess(exact, optimised=False, rounds_halves=True, name=f"{self.file} on ONNX Runtime")

    def _trtexec_runner(self) -> TimedRunner:
        if self.manifest is None:
            raise RequestError("trtexec is for engines", where=str(self.file), hint="build it first: trt-opt build")
        return TrtexecRunner(
            self.file,
            found_trtexec(rtx=self.kind == "tensorrt_rtx"),
            self.manifest.library.partition(" ")[2],
            version_compatible=self.manifest.options.version_compatible,
            name=self.name,
        )

    def _engine_runner(self) -> EngineRunner:
        if self.manifest is None or self.python is None:
            raise StaleError("an engine without a manifest cannot be run", where=str(self.file))
        rtx = self.kind == "tensorrt_rtx"
        return EngineRunner(
            self.file,
            self.python,
            environment=tensorrt_rtx.ENVIRONMENT if rtx else engine_runner.ENVIRONMENT,
            version_compatible=self.manifest.options.version_compatible,
            name=f"{self.name} on {self.gpu.name}" if self.gpu else self.name,
        )


def runnable(file: str, python: str | None = None) -> Runnable:
    """What a file is, checked as far as that goes without running it.

    Args:
        file: An ONNX file, an engine with its manifest beside it, that manifest, or the folder of both.
        python: The interpreter that has TensorRT, for engines of TensorRT; None looks for one.

    Raises:
        ModelFileError: No ONNX file, and no engine either.
        StaleError: The engine is not the one that its manifest describes, or was not built for what is here.
        MissingError: Its library is not here, or a GPU.
    """
    path = Path(file)
    folder = path if path.is_dir() else path.parent
    is_engine = path.is_dir() or path.name == MANIFEST or path.suffix in (".engine", ".plan", ".trt")
    if not is_engine:
        return _onnx_file(path)
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        what = "this folder holds no engine" if path.is_dir() else "the engine has no manifest beside it"
        hint = f"trt-opt build writes both; what an engine is, and whether it may be run here, stands in {MANIFEST}"
        raise RequestError(what, where=file, hint=hint)
    manifest = read_manifest(manifest_path)
    engine = path if path.suffix in (".engine", ".plan", ".trt") else folder / ENGINE
    return _engine(engine, manifest, python)


def _onnx_file(path: Path) -> Runnable:
    model = load_model(path)
    inputs = graph_inputs(model)
    return Runnable(path, "onnxruntime", path.name, stored_precision(model), inputs, model=model)


def _engine(engine: Path, manifest: Manifest, python: str | None) -> Runnable:
    library = manifest.library.partition(" ")[0]
    kind: RunnerKind = "tensorrt_rtx" if library == "tensorrt_rtx" else "tensorrt"
    interpreter = sys.executable if kind == "tensorrt_rtx" else tensorrt_python(python)
    version, gpu = _introduced(kind, interpreter, engine)
    capability = tuple(int(part) for part in gpu.capability.split("."))
    check_engine(manifest, engine, library=library, version=version, capability=(capability[0], capability[1]))
    name = f"{manifest.model.name} {manifest.variants[-1].name}"
    return Runnable(
        engine,
        kind,
        name,
        manifest.variants[-1].name,
        manifest.inputs,
        manifest=manifest,
        python=interpreter,
        gpu=gpu,
    )


def _introduced(kind: RunnerKind, python: str, engine: Path) -> tuple[str, Gpu]:
    """The version of the library that is here, and the GPU.

    Raises:
        MissingError: Either is missing.
    """
    environment = tensorrt_rtx.ENVIRONMENT if kind == "tensorrt_rtx" else engine_runner.ENVIRONMENT
    with Worker(environment, python=python) as worker:
        try:
            found = worker.ask("hello", {}, timeout_s=HELLO_TIMEOUT_S)
        except FailedRequestError as error:
            raise MissingError(f"the engine's library cannot be loaded: {error}", where=python) from error
    if found["gpu"] is None:
        raise MissingError(
            "an engine runs on an NVIDIA GPU, and here is none",
            where=str(engine),
            hint="the ONNX file runs without one; trt-opt bundle packs an engine's model for the machine with the GPU",
        )
    return str(found["version"]), Gpu(**found["gpu"])


def stored_precision(model: onnx.ModelProto) -> str:
    """The precision that a graph's weights and Q/DQ pairs say: "FP32", "FP16", "INT8", "INT8 + FP16"."""
    sizes: Counter[bool] = Counter()
    for tensor in tensors_of(model):
        if tensor.data_type in (*HALF_TYPES, onnx.TensorProto.FLOAT):
            sizes[tensor.data_type in HALF_TYPES] += tensor_bytes(tensor)
    floats = "FP16" if sizes[True] > sizes[False] else "FP32"
    if not is_quantized(model):
        return floats
    return "INT8 + FP16" if floats == "FP16" else "INT8"
