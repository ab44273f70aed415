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

ENVIRONMENT = {"POLYGRAPHY_USE_TENSORRT_RTX": "0"}
"""What makes Polygraphy load TensorRT, whatever the user's own environment says."""

LOAD_TIMEOUT_S = 600.0
INFER_TIMEOUT_S = 300.0

Arrays = Mapping[str, NDArray[np.generic]]


class EngineRunner:
    """Runs an engine's first optimisation profile; used as a context manager. A `Runner` as in `values/runner.py`.

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
        self.last_seconds: tuple[float, ...] = ()
        self._engine = engine
        self._version_compatible = version_compatible
        self._worker = Worker(environment, python=python)
        self._folder = tempfile.TemporaryDirectory(prefix="trt-opt-")

    def __enter__(self) -> EngineRunner:
        self._worker.__enter__()
        request = {"engine": str(self._engine), "version_compatible": self._version_compatible}
        try:
            self._worker.ask("load", request, timeout_s=LOAD_TIMEOUT_S)
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
        folder = Path(self._folder.name)
        names = list(feed)
        arrays: dict[str, Any] = {str(number): feed[name] for number, name in enumerate(names)}
        np.savez(folder / "feed.npz", **arrays)
        request = {
            "feed": str(folder / "feed.npz"),
            "result": str(folder / "result.npz"),
            "inputs": names,
            "repeat": repeat,
        }
        try:
            answer = self._worker.ask("infer", request, timeout_s=INFER_TIMEOUT_S)
        except FailedRequestError as error:
            raise DataError(f"the engine does not take it: {error}", where=self.name) from error
        self.last_seconds = tuple(answer["seconds"])
        with np.load(folder / "result.npz", allow_pickle=False) as found:
            return {name: found[str(number)] for number, name in enumerate(answer["outputs"])}
