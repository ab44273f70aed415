"""What the backends of TensorRT and TensorRT-RTX share: they ask a child process, and read its answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.errors import MissingError, StageError, StorageError, UnsupportedModelError, WorkerError
from trt_opt.values.backend import BuiltEngine, ParseReport
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Progress
from trt_opt.values.summary import RefusedNode
from trt_opt.values.tensorrt_version import TensorRTSupport
from trt_opt.values.tensors import TensorSpec

PARSE_TIMEOUT_S = 600.0

ELEMENT_TYPES = {"float": "float32", "half": "float16", "bf16": "bfloat16", "fp8": "float8e4m3fn"}
"""TensorRT's names of element types where NumPy's differ."""


class LibraryBackend:
    """A vendor's library in a child process that lives as long as the context.

    Attributes:
        library: Name and version of the library.
        support: What that version can be told.
    """

    library: str
    support: TensorRTSupport
    _worker: Worker

    @property
    def version(self) -> str:
        """The library's version alone."""
        return self.library.partition(" ")[2]

    def __enter__(self) -> Self:
        self._worker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, error, trace)

    def _new_worker(self) -> Worker:
        """A child that is not running yet."""
        raise NotImplementedError

    def parse(self, model: Path, operators: Iterable[str] = ()) -> ParseReport:
        """Asks the real parser about a model file, and which of the operators it has an importer for.

        Raises:
            WorkerError: The parser crashed or hung.
        """
        request = {"model": str(model), "operators": sorted(operators), "support": asdict(self.support)}
        try:
            found = self._ask("parse", request, PARSE_TIMEOUT_S)
        except FailedRequestError as error:
            raise StageError(f"the parser failed: {error}") from error
        return ParseReport(
            refused=tuple(_refused(entry) for entry in found["refused"]),
            warnings=tuple(found["warnings"]),
            inputs=_specs(found["inputs"]),
            outputs=_specs(found["outputs"]),
            unknown_operators=tuple(found["unknown_operators"]),
            shape_inputs=tuple(found["shape_inputs"]),
        )

    def build(self, files: BuildFiles, options: BuildOptions, progress: Progress, timeout_s: float) -> BuiltEngine:
        """Builds an engine file from a model file.

        Raises:
            UnsupportedModelError: The parser or the builder does not take the model.
            MissingError: The machine lacks what the options name.
            WorkerError: The builder crashed, hung or was killed.
        """
        try:
            found = self._ask("build", self._request(files, options), timeout_s, progress)
        except FailedRequestError as error:
            raise self._failure(error, files) from error
        progress.finish()
        unpinned = [f"no layer of the network is called {name}: it may run in FP16" for name in found["unpinned"]]
        return BuiltEngine(
            engine_bytes=found["engine_bytes"],
            seconds=found["seconds"],
            inputs=_specs(found["inputs"]),
            outputs=_specs(found["outputs"]),
            warnings=(*found["warnings"], *unpinned),
            calibration=found["calibration"],
        )

    def _request(self, files: BuildFiles, options: BuildOptions) -> dict[str, Any]:
        """The build request in the child's words."""
        return {
            "model": str(files.model),
            "engine": str(files.engine),
            "support": asdict(self.support),
            "profile": {name: [found.min, found.opt, found.max] for name, found in options.profile.items()},
            "values": {name: [found.min, found.opt, found.max] for name, found in options.values.items()},
            "workspace_bytes": options.workspace_bytes,
            "optimization_level": options.optimization_level,
        }

    def _failure(self, error: FailedRequestError, files: BuildFiles) -> Exception:
        """What the child said, as an error of this package."""
        match error.kind:
            case "RefusedError":
                return self._refusal(tuple(_refused(entry) for entry in error.nodes))
            case "NotHereError":
                return MissingError(str(error))
            case "NativeCalibrationError" | "CalibrationError":
                return StageError(
                    f"TensorRT's calibration failed: {error}",
                    hint="--calibrator entropy with --int8 calibrates without TensorRT",
                )
            case "CancelledError":
                return StageError("the build was cancelled")
            case "OSError":
                return StorageError(f"the engine cannot be written: {error}", where=str(files.engine.parent))
            case _:
                return StageError(f"the builder failed: {error}")

    def _ask(
        self, verb: str, request: Mapping[str, Any], timeout_s: float, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Asks the child; where it does not survive that, another stands ready for the next question."""
        try:
            return self._worker.ask(verb, request, timeout_s=timeout_s, progress=progress)
        except WorkerError:
            self._worker.__exit__(None, None, None)
            self._worker = self._new_worker().__enter__()
            raise

    def _refusal(self, refused: tuple[RefusedNode, ...]) -> UnsupportedModelError:
        first = refused[0]
        place = f"node {first.node!r} ({first.op_type})" if first.op_type else None
        more = f" (and {len(refused) - 1} more nodes)" if len(refused) > 1 else ""
        return UnsupportedModelError(
            f"the builder of {self.library} refuses it: {first.reason}{more}",
            where=place,
            hint=self._hint(first),
            nodes=tuple((node.node, node.op_type, node.reason) for node in refused),
        )

    def _hint(self, refused: RefusedNode) -> str:
        """What to try where the builder refuses a node."""
        del refused
        return "trt-opt inspect lists all refused nodes"


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
