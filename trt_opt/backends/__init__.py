"""Everything with a vendor's library behind it, behind one seam."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from trt_opt.backends.machine import has_tensorrt_and_gpu
from trt_opt.values.backend import BuiltEngine, ParseReport
from trt_opt.values.device import Gpu
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.engine_layers import EngineLayer
from trt_opt.values.progress import Progress
from trt_opt.values.runner import Runner
from trt_opt.values.target import RtxTarget, Target, TensorRTTarget, target_from_text
from trt_opt.values.tensorrt_version import TensorRTSupport


class Backend(Protocol):
    """A library that parses and builds; used as a context manager."""

    @property
    def target(self) -> Target:
        """What it builds for, with the version where one could be asked."""

    @property
    def library(self) -> str:
        """Name and version."""

    @property
    def version(self) -> str:
        """The version alone."""

    @property
    def support(self) -> TensorRTSupport:
        """What that version can be told."""

    @property
    def gpu(self) -> Gpu | None:
        """The GPU it builds on, which then runs the engines; None where it builds without one."""

    def __enter__(self) -> Self:
        """Starts what it needs."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""

    def parse(self, model: Path, operators: Iterable[str] = ()) -> ParseReport:
        """Asks the parser, and which of the operators it has an importer for."""

    def build(self, files: BuildFiles, options: BuildOptions, progress: Progress, timeout_s: float) -> BuiltEngine:
        """Builds an engine file from a model file."""

    def layers(self, engine: Path, options: BuildOptions) -> tuple[EngineLayer, ...]:
        """What became of the graph's layers, as the engine says; nothing where no GPU is here to ask it on."""

    def runner(self, engine: Path, options: BuildOptions) -> Runner | None:
        """Runs an engine that was just built; None where no GPU is here."""


def backend_for(target: Target, python: str | None = None) -> Backend:
    """The backend that builds for a target.

    Args:
        target: What it builds for.
        python: The interpreter that has TensorRT; None looks for one. TensorRT-RTX is this interpreter's own.

    Raises:
        MissingError: Its library is not here, or TensorRT's GPU.
        TargetError: The target is another machine's.
    """
    match target:
        case RtxTarget():
            from trt_opt.backends.tensorrt_rtx import TensorRTRTXBackend

            return TensorRTRTXBackend(target)
        case TensorRTTarget():
            from trt_opt.backends.tensorrt import TensorRTBackend

            return TensorRTBackend(target, python)


def target_or_default(text: str | None, python: str | None = None) -> Target:
    """The target as written, or what is here: TensorRT if it is installed and there is a GPU, else TensorRT-RTX.

    An interpreter for TensorRT that was named is as good as the target `tensorrt`.

    Raises:
        TargetError: No such target.
    """
    if text is not None:
        return target_from_text(text)
    return TensorRTTarget() if python is not None or has_tensorrt_and_gpu() else RtxTarget()
