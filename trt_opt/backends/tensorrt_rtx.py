"""TensorRT-RTX: parses and builds ahead of time on any CPU, in a child process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from trt_opt.backends.library_backend import LibraryBackend
from trt_opt.backends.process import Worker
from trt_opt.backends.tensorrt_versions import TENSORRT_RTX, support_of
from trt_opt.errors import MissingError
from trt_opt.values.device import Gpu
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.engine_layers import EngineLayer
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import RtxTarget

PACKAGES = ("tensorrt_rtx", "tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu12_bindings")

ENVIRONMENT = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
"""What makes Polygraphy load TensorRT-RTX instead of TensorRT."""


class TensorRTRTXBackend(LibraryBackend):
    """Builds for compute capabilities that need not be here; a context manager that holds one child process.

    Args:
        target: The compute capabilities.

    Raises:
        MissingError: TensorRT-RTX is not installed.
    """

    target: RtxTarget

    def __init__(self, target: RtxTarget) -> None:
        if importlib.util.find_spec("tensorrt_rtx") is None:
            raise MissingError("TensorRT-RTX is not installed", hint='pip install "trt-opt[rtx]"')
        version = _version()
        self.target = target
        self.gpu: Gpu | None = None
        self.library = f"tensorrt_rtx {version}"
        self.support = support_of(version, TENSORRT_RTX)
        self._worker = self._new_worker()

    def _new_worker(self) -> Worker:
        return Worker(ENVIRONMENT)

    def layers(self, engine: Path, options: BuildOptions) -> tuple[EngineLayer, ...]:
        """Nothing: engines are built for GPUs that need not be here."""
        del engine, options
        return ()

    def runner(self, engine: Path, options: BuildOptions) -> None:
        """None: engines are built for GPUs that need not be here."""
        del engine, options

    def _request(self, files: BuildFiles, options: BuildOptions) -> dict[str, Any]:
        capabilities = [list(pair) for pair in self.target.capabilities]
        return {**super()._request(files, options), "capabilities": capabilities}

    def _hint(self, refused: RefusedNode) -> str:
        if (7, 5) in self.target.capabilities and "Turing" in refused.reason:
            return "Turing has no FP32 GEMM in TensorRT-RTX: build with --fp16, or leave 7.5 out of --target"
        return super()._hint(refused)


def _version() -> str:
    """The version that is installed, by whichever of its packages pip knows of.

    Raises:
        MissingError: pip knows of none: the files were copied here.
    """
    for package in PACKAGES:
        for found in importlib.metadata.distributions(name=package):
            return found.version
    raise MissingError("the version of TensorRT-RTX cannot be told", hint='pip install "trt-opt[rtx]"')
