"""TensorRT-RTX: parses and builds ahead of time on any CPU, in a child process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.errors import MissingError, StageError, StorageError, UnsupportedModelError, WorkerError
from trt_opt.values.backend import BuiltEngine, ParseReport
from trt_opt.values.engine import BuildOptions
from trt_opt.values.progress import Progress
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import RtxTarget
from trt_opt.values.tensors import TensorSpec

PARSE_TIMEOUT_S = 600.0

ELEMENT_TYPES = {"float": "float32", "half": "float16", "bf16": "bfloat16", "fp8": "float8e4m3fn"}
"""TensorRT's names of element types where NumPy's differ."""


class TensorRTRTXBackend:
    """Builds for compute capabilities that need not be here; a context manager that holds one child process.

    Args:
        target: The compute capabilities.
    """

    def __init__(self, target: RtxTarget) -> None:
        if importlib.util.find_spec("tensorrt_rtx") is None:
            raise MissingError("TensorRT-RTX is not installed", hint='pip install "trt-opt[rtx]"')
        self._target = target
        self._worker = _worker()

    @property
    def target(self) -> RtxTarget:
        """The compute capabilities it builds for."""
        return self._target

    @property
    def library(self) -> str:
        """Name and version of the library that builds."""
        return f"tensorrt_rtx {importlib.metadata.version('tensorrt_rtx')}"

    def __enter__(self) -> TensorRTRTXBackend:
        self._worker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, error, trace)

    def parse(self, model: Path, operators: Iterable[str] = ()) -> ParseReport:
        """Asks the real parser about a model file, and which of the operators it has an importer for.

        Raises:
            WorkerError: The parser crashed or hung.
        """
        try:
            found = self._ask("parse", {"model": str(model), "operators": sorted(operators)}, PARSE_TIMEOUT_S)
        except FailedRequestError as error:
            raise StageError(f"the parser failed: {error}") from error
        refused = tuple(_refused(entry) for entry in found["refused"])
        return ParseReport(
            refused=refused,
            warnings=tuple(found["warnings"]),
            inputs=_specs(found["inputs"]),
            outputs=_specs(found["outputs"]),
            unknown_operators=tuple(found["unknown_operators"]),
            shape_inputs=tuple(found["shape_inputs"]),
        )

    def build(
        self, model: Path, options: BuildOptions, engine: Path, progress: Progress, timeout_s: float
    ) -> BuiltEngine:
        """Builds an engine file from a model file.

        Raises:
            UnsupportedModelError: The parser or the builder does not take the model.
            WorkerError: The builder crashed, hung or was killed.
        """
        request = {
            "model": str(model),
            "engine": str(engine),
            "capabilities": [list(pair) for pair in self._target.capabilities],
            "profile": {name: [found.min, found.opt, found.max] for name, found in options.profile.items()},
            "values": {name: [found.min, found.opt, found.max] for name, found in options.values.items()},
            "workspace_bytes": options.workspace_bytes,
            "optimization_level": options.optimization_level,
        }
        try:
            found = self._ask("build", request, timeout_s, progress)
        except FailedRequestError as error:
            if error.nodes:
                raise self._refusal(tuple(_refused(entry) for entry in error.nodes)) from error
            if error.kind == "OSError":
                raise StorageError(f"the engine cannot be written: {error}", where=str(engine.parent)) from error
            raise StageError(f"the builder failed: {error}") from error
        progress.finish()
        return BuiltEngine(
            engine_bytes=found["engine_bytes"],
            seconds=found["seconds"],
            inputs=_specs(found["inputs"]),
            outputs=_specs(found["outputs"]),
            warnings=tuple(found["warnings"]),
        )

    def _ask(
        self, verb: str, request: Mapping[str, Any], timeout_s: float, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Asks the child; where it does not survive that, another stands ready for the next question."""
        try:
            return self._worker.ask(verb, request, timeout_s=timeout_s, progress=progress)
        except WorkerError:
            self._worker.__exit__(None, None, None)
            self._worker = _worker().__enter__()
            raise

    def _refusal(self, refused: tuple[RefusedNode, ...]) -> UnsupportedModelError:
        first = refused[0]
        place = f"node {first.node!r} ({first.op_type})" if first.op_type else None
        more = f" (and {len(refused) - 1} more nodes)" if len(refused) > 1 else ""
        hint = "trt-opt inspect lists all refused nodes"
        if (7, 5) in self._target.capabilities and "Turing" in first.reason:
            hint = "Turing has no FP32 GEMM in TensorRT-RTX: build with --fp16, or leave 7.5 out of --target"
        return UnsupportedModelError(
            f"the builder of {self.library} refuses it: {first.reason}{more}",
            where=place,
            hint=hint,
            nodes=tuple((node.node, node.op_type, node.reason) for node in refused),
        )


def _worker() -> Worker:
    return Worker({"POLYGRAPHY_USE_TENSORRT_RTX": "1"})


def _refused(entry: dict[str, str]) -> RefusedNode:
    reason = cleaned(entry["reason"])
    if reason in ("", "false"):  # all that the parser says of an operator it has no importer for
        reason = f"there is no importer for {entry['op_type'] or 'this operator'}"
    return RefusedNode(entry["node"], entry["op_type"], reason)


def cleaned(reason: str) -> str:
    """TensorRT's message without its source positions; where an assertion carries words, the words alone.

    "Assertion failed: (ok): only 1-D is supported." → "only 1-D is supported."
    """
    text = re.sub(r"\s+", " ", reason).strip()
    text = re.sub(r"^\S+\.cpp:\d+ In function \S+: (\[\d+\] )?", "", text)
    quoted = re.search(r'&& "([^"]+)"', text)
    if quoted:
        return quoted[1]
    assertion = re.match(r"Assertion failed: .*?(?:: | && \")([^:\"]{12,})\"?$", text)
    return assertion[1].strip() if assertion else text


def _specs(ends: Iterable[tuple[str, str, list[int] | None]]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, kind, shape) for name, kind, shape in ends)


def _spec(name: str, kind: str, shape: list[int] | None) -> TensorSpec:
    sizes = None if shape is None else tuple("?" if size < 0 else size for size in shape)
    return TensorSpec(name, ELEMENT_TYPES.get(kind, kind), sizes)
