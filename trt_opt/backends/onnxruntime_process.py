"""ONNX Runtime on the CPU in a process of its own: one per model, so that models are timed and weighed apart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import error_from
from trt_opt.backends.onnxruntime_fp16 import with_rounding_quantizers
from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.backends.rounded_halves import with_rounded_halves
from trt_opt.errors import DataError, RequestError, TrtOptError, WorkerError
from trt_opt.graph.query import graph_inputs
from trt_opt.graph.save import save_model
from trt_opt.values.timing import LayerTime, MemoryUse, RoundSamples, RunnerKind, TimingSettings

WORKER = Path(__file__).parent / "onnxruntime_worker"

LOAD_TIMEOUT_S = 600.0
INFER_TIMEOUT_S = 600.0
ROUND_TIMEOUT_S = 3600.0

Arrays = Mapping[str, NDArray[np.generic]]


class OnnxRuntimeProcess:
    """A model in a child process; a `TimedRunner` as in `values/timing.py`.

    Args:
        model: The model; never changed.
        optimised: Whether ONNX Runtime may optimise the graph: as fast as it can, or as it is written.
        rounds_halves: Whether every FP16 tensor is rounded to FP16, as a device would.
        threads: Threads within one request; None leaves them to ONNX Runtime.
        name: What results call this runner.

    Raises:
        UnsupportedModelError: On entering: ONNX Runtime cannot load the model.
        WorkerError: It crashed, hung or was killed.
    """

    kind: RunnerKind = "onnxruntime"

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        optimised: bool,
        rounds_halves: bool = False,
        threads: int | None = None,
        name: str = "ONNX Runtime",
    ) -> None:
        self.name = name
        self.library = "onnxruntime"
        self._model = model
        self._optimised = optimised
        self._rounds_halves = rounds_halves
        self._threads = threads
        self._names = {spec.name for spec in graph_inputs(model)}

    def __enter__(self) -> OnnxRuntimeProcess:
        self._folder = tempfile.TemporaryDirectory(prefix="trt-opt-")
        self._worker = Worker(script=WORKER)
        try:
            self._worker.__enter__()
            self._load()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, error, trace)
        self._folder.cleanup()

    def infer(self, feed: Arrays, /) -> dict[str, NDArray[np.generic]]:
        """Runs one feed.

        Raises:
            DataError: The names are not the model's.
            UnsupportedModelError: ONNX Runtime cannot run it.
            WorkerError: The child crashed or hung.
        """
        request = {**self._fed(feed), "result": self._path("result.npz")}
        answer = self._ask("infer", request, INFER_TIMEOUT_S)
        with np.load(request["result"], allow_pickle=False) as found:
            return {name: found[str(number)] for number, name in enumerate(answer["outputs"])}

    def prepare(self, feed: Arrays, settings: TimingSettings) -> None:
        """Hands over what every request is fed with.

        Raises:
            DataError: The names are not the model's.
            RequestError: CUDA graphs were asked for.
            UnsupportedModelError: ONNX Runtime cannot run it.
        """
        if settings.cuda_graph:
            raise RequestError("ONNX Runtime's CPU runs no CUDA graphs", where=self.name, hint="--no-cuda-graph")
        self._ask("prepare", {**self._fed(feed), "streams": settings.streams}, INFER_TIMEOUT_S)

    def run_round(self, requests: int) -> RoundSamples:
        """Runs and times so many requests on each stream."""
        answer = self._ask("time", {"requests": requests}, ROUND_TIMEOUT_S)
        return RoundSamples(tuple(answer["latency_ms"]), answer["wall_s"])

    def memory(self) -> MemoryUse:
        """The most main memory the child held, Python and ONNX Runtime included."""
        return MemoryUse(peak_resident_bytes=self._ask("memory", {}, LOAD_TIMEOUT_S)["peak_resident_bytes"])

    def layer_times(self, requests: int) -> tuple[LayerTime, ...]:
        """Runs the prepared request so often in a session of its own with ONNX Runtime's profiler on."""
        request = {"requests": requests, "prefix": self._path("profile")}
        return tuple(LayerTime(*entry) for entry in self._ask("profile", request, ROUND_TIMEOUT_S)["layers"])

    def _load(self) -> None:
        model = with_rounded_halves(self._model) if self._rounds_halves else self._model
        file = Path(self._path("model.onnx"))
        save_model(with_rounding_quantizers(model), file)
        request = {"model": os.fspath(file), "optimised": self._optimised, "threads": self._threads}
        self.library = f"onnxruntime {self._ask('load', request, LOAD_TIMEOUT_S)['version']}"

    def _fed(self, feed: Arrays) -> dict[str, Any]:
        if set(feed) != self._names:
            wanted, given = (", ".join(sorted(names)) or "nothing" for names in (self._names, set(feed)))
            raise DataError(f"the model wants {wanted} fed, and was given {given}", where=self.name)
        names = list(feed)
        arrays: dict[str, Any] = {str(number): _storable(feed[name]) for number, name in enumerate(names)}
        np.savez(self._path("feed.npz"), **arrays)
        return {"feed": self._path("feed.npz"), "inputs": names}

    def _path(self, name: str) -> str:
        return os.fspath(Path(self._folder.name) / name)

    def _ask(self, verb: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            return self._worker.ask(verb, request, timeout_s=timeout_s)
        except FailedRequestError as error:
            message = (str(error) or error.kind).replace(self._path("model.onnx"), self.name)
            raise self._named(error_from(message, "load" if verb == "load" else "run")) from error
        except WorkerError as error:
            raise self._named(error) from error.__cause__

    def _named(self, error: TrtOptError) -> TrtOptError:
        """The error, with the model's name where it happened: several models run at the same time."""
        error.where = self.name if error.where is None else f"{self.name}: {error.where}"
        return error


def _storable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Texts in a form that needs no pickle."""
    return array.astype(np.str_) if array.dtype == object else array
