"""Everything with a vendor's library behind it, behind one seam."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from trt_opt.backends.machine import has_tensorrt_and_gpu
from trt_opt.errors import MissingError
from trt_opt.values.backend import BuiltEngine, ParseReport
from trt_opt.values.engine import BuildOptions
from trt_opt.values.progress import Progress
from trt_opt.values.target import RtxTarget, Target, TensorRTTarget, target_from_text


class Backend(Protocol):
    """A library that parses and builds; used as a context manager."""

    @property
    def target(self) -> Target:
        """What it builds for."""

    @property
    def library(self) -> str:
        """Name and version."""

    def __enter__(self) -> Self:
        """Starts what it needs."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""

    def parse(self, model: Path, operators: Iterable[str] = ()) -> ParseReport:
        """Asks the parser, and which of the operators it has an importer for."""

    def build(
        self, model: Path, options: BuildOptions, engine: Path, progress: Progress, timeout_s: float
    ) -> BuiltEngine:
        """Builds an engine file from a model file."""


def backend_for(target: Target) -> Backend:
    """The backend that builds for a target.

    Raises:
        MissingError: Its library is not here.
    """
    match target:
        case RtxTarget():
            from trt_opt.backends.tensorrt_rtx import TensorRTRTXBackend

            return TensorRTRTXBackend(target)
        case TensorRTTarget():
            raise MissingError(
                f"this version of trt-opt builds for TensorRT-RTX only, not for {target}",
                hint="--target rtx; `trt-opt quantize` writes a graph that trtexec of TensorRT 10 or later builds",
            )


def target_or_default(text: str | None) -> Target:
    """The target as written, or what is here: TensorRT if it is installed and there is a GPU, else TensorRT-RTX.

    Raises:
        TargetError: No such target.
    """
    if text is not None:
        return target_from_text(text)
    return TensorRTTarget() if has_tensorrt_and_gpu() else RtxTarget()
