"""An engine on the GPU, in a child process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.errors import DataError, StageError
from trt_opt.values.timing import LayerTime, MemoryUse, RoundSamples, RunnerKind, TimingSettings

WHICH_LIBRARY = "POLYGRAPHY_USE_TENSORRT_RTX"

ENVIRONMENT = {WHICH_LIBRARY: "0"}
"""What makes Polygraphy load TensorRT, whatever the user's own environment says."""

LOAD_TIMEOUT_S = 600.0
INFER_TIMEOUT_S = 300.0
ROUND_TIMEOUT_S = 3600.0

Arrays = Mapping[str, NDArray[np.generic]]


class EngineRunner:
    """Runs an engine's first optimisation profile; a `TimedRunner` as in `values/timing.py`.

    Whoever makes one has held the engine against its manifest before (`build.manifest.check_engine`), and knows that
    there is a GPU: nothing of that is asked again here.

    Args:
        engine: The engine file.
        python: The interpreter that has its library.
        environment: What makes that interpreter load the right library.
        version_compatible: Whether the engine carries a runtime of its own, which is code and must be allowed.
        name: What results call this runner.
    """

    def __init__(
        self,
        engine: Path,
        python: str,
        *,
        environment: Mapping[str, str] = ENVIRONMENT,
        version_compatible: bool = False,
        name: str = "the engine",
    ) -> None:
        self.name = name
        self.kind: RunnerKind = "tensorrt" if environment[WHICH_LIBRARY] == "0" else "tensorrt_rtx"
        self.library: str = self.kind
        self.last_seconds: tuple[float, ...] = ()
        self._engine = engine
        self._version_compatible = version_compatible
        self._worker = Worker(environment, python=python)
        self._folder = tempfile.TemporaryDirectory(prefix="trt-opt-")

    def __enter__(self) -> EngineRunner:
        self._worker.__enter__()
        request = {"engine": str(self._engine), "version_compatible": self._version_compatible}
        try:
            found = self._worker.ask("load", request, timeout_s=LOAD_TIMEOUT_S)
            self.library = f"{self.kind} {found['version']}"
        except FailedRequestError as error:
            self.__exit__(None, None, None)
            raise StageError(f"the engine cannot be loaded: {error}", where=str(self._engine)) from error
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, error, trace)
        self._folder.cleanup()

    def infer(self, feed: Arrays) -> dict[str, NDArray[np.generic]]:
        """The engine's outputs for one feed.

        Raises:
            DataError: The engine does not take the feed.
            WorkerError: The child crashed or hung.
        """
        return self.timed(feed, repeat=1)

    def timed(self, feed: Arrays, *, repeat: int) -> dict[str, NDArray[np.generic]]:
        """Runs one feed several times; `last_seconds` then has how long each took, transfers to the GPU included.

        Raises:
            DataError: The engine does not take the feed.
            WorkerError: The child crashed or hung.
        """
        result = str(Path(self._folder.name) / "result.npz")
        answer = self._ask("infer", {**self._fed(feed), "result": result, "repeat": repeat}, INFER_TIMEOUT_S)
        self.last_seconds = tuple(answer["seconds"])
        with np.load(result, allow_pickle=False) as found:
            return {name: found[str(number)] for number, name in enumerate(answer["outputs"])}

    def prepare(self, feed: Arrays, settings: TimingSettings) -> None:
        """Copies to the GPU what every request is fed with, makes a context per stream, and captures CUDA graphs.

        Raises:
            DataError: The engine does not take the feed, or cannot be timed as asked.
            WorkerError: The child crashed or hung.
        """
        asked = {name: getattr(settings, name) for name in ("streams", "cuda_graph", "transfers")}
        self._ask("prepare", {**self._fed(feed), **asked}, INFER_TIMEOUT_S)

    def run_round(self, requests: int) -> RoundSamples:
        """Runs and times so many requests on each stream."""
        answer = self._ask("time", {"requests": requests}, ROUND_TIMEOUT_S)
        return RoundSamples(
            tuple(answer["latency_ms"]), answer["wall_s"], tuple(answer["compute_ms"]), tuple(answer["enqueue_ms"])
        )

    def memory(self) -> MemoryUse:
        """What it took on the GPU since before it was loaded, and the child's main memory."""
        answer = self._ask("memory", {}, LOAD_TIMEOUT_S)
        return MemoryUse(answer["peak_resident_bytes"], answer["gpu_bytes"])

    def layer_times(self, requests: int) -> tuple[LayerTime, ...]:
        """Runs the prepared request so often with TensorRT's profiler on, which forbids CUDA graphs."""
        answer = self._ask("profile", {"requests": requests}, ROUND_TIMEOUT_S)
        return tuple(LayerTime(name, "", median_ms) for name, median_ms in answer["layers"])

    def _fed(self, feed: Arrays) -> dict[str, Any]:
        """Writes the arrays where the child finds them."""
        names = list(feed)
        file = Path(self._folder.name) / "feed.npz"
        arrays: dict[str, Any] = {str(number): feed[name] for number, name in enumerate(names)}
        np.savez(file, **arrays)
        return {"feed": str(file), "inputs": names}

    def _ask(self, verb: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            return self._worker.ask(verb, request, timeout_s=timeout_s)
        except FailedRequestError as error:
            raise DataError(f"the engine does not take it: {error}", where=self.name) from error
