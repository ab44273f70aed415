"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from trt_opt.backends.onnxruntime_fp16 import with_rounding_quantizers
from trt_opt.backends.rounded_halves import with_rounded_halves
from trt_opt.errors import DataError, StageError, TrtOptError, UnsupportedModelError
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.graph.save import SINGLE_FILE_LIMIT_BYTES, save_model
from trt_opt.graph.tensors import weight_bytes
from trt_opt.values.tensors import TensorSpec

ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    ort_errors.NoSuchFile,
    ort_errors.InvalidProtobuf,
    RuntimeError,
)
"""What ONNX Runtime raises; the classes share no base but Exception. RuntimeError: arrays of types it does not take."""

SILENT = 4
"""ONNX Runtime's severity above errors: what it would print is in the exception anyway."""


def session_for(model: onnx.ModelProto, *, optimised: bool) -> onnxruntime.InferenceSession:
    """An inference session on the CPU.

    Args:
        model: Of any size; above 2 GB it goes through a temporary file.
        optimised: False runs the graph as it is written, which Q/DQ graphs need: ONNX Runtime's optimiser fuses pairs
            into integer kernels of its own, TensorRT into others.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    # Waiting threads must not burn the core that reduces the previous sample's tensors.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if weight_bytes(model) <= SINGLE_FILE_LIMIT_BYTES:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path)
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)


class OnnxRuntimeRunner:
    """A model ready to run; used as a context manager, which creates the session and frees it.

    Args:
        model: The model; never changed.
        optimised: Whether ONNX Runtime may optimise the graph.
        outputs: Tensors to return beside the graph's outputs.
        name: What results call this runner.
        rounds_halves: Whether every FP16 tensor is rounded to FP16, as a device would; ONNX Runtime by itself computes
            on in float32.

    Raises:
        UnsupportedModelError: On entering: ONNX Runtime cannot load the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        optimised: bool,
        outputs: Sequence[str] = (),
        name: str = "ONNX Runtime",
        rounds_halves: bool = False,
    ) -> None:
        self.name = name
        self._rounds_halves = rounds_halves
        self._model = _with_outputs(model, outputs) if outputs else model
        self._optimised = optimised
        self._session: onnxruntime.InferenceSession | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What has to be fed."""
        return graph_inputs(self._model)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes out."""
        return graph_outputs(self._model)

    def __enter__(self) -> OnnxRuntimeRunner:
        model = with_rounded_halves(self._model) if self._rounds_halves else self._model
        with _translated("load"):
            self._session = session_for(with_rounding_quantizers(model), optimised=self._optimised)
        self._names = {spec.name for spec in self.inputs}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def infer(self, feed: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Runs one feed.

        Args:
            feed: Input → array of its type and a shape it admits.

        Returns:
            Output → array.

        Raises:
            DataError: The names are not the model's.
        """
        missing = self._names - set(feed)
        if missing or len(feed) > len(self._names):
            strange = ", ".join(sorted(set(feed) - self._names)) or "nothing else"
            raise DataError(
                f"the model wants {', '.join(sorted(self._names))} fed, and was given {strange}", where=self.name
            )
        if self._session is None:
            raise RuntimeError("a runner runs inside its `with` block")
        names = [output.name for output in self._session.get_outputs()]
        # Polygraphy's runner would import PyTorch where there is one, and swallow an interruption meanwhile.
        with _translated("run"):
            return dict(zip(names, self._session.run(names, dict(feed)), strict=True))


def check_in_onnxruntime(model: onnx.ModelProto, where: str) -> None:
    """Loads a model to see whether ONNX Runtime accepts it; TensorRT builds graphs that are not valid ONNX.

    Raises:
        UnsupportedModelError: It does not.
    """
    try:
        with OnnxRuntimeRunner(model, optimised=False):
            pass
    except UnsupportedModelError as error:
        raise UnsupportedModelError(error.what, where=where, hint=error.hint) from error


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    present = {value.name for value in (*tapped.graph.input, *tapped.graph.output)}
    written = {name for node in tapped.graph.node for name in node.output}
    for name in names:
        if name in present:
            continue
        if name not in written:
            raise StageError(f"the model has no tensor {name!r} to look at")
        tapped.graph.output.add().name = name
        present.add(name)
    return tapped


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    try:
        yield
    except ORT_ERRORS as error:
        raise error_from(str(error), verb) from error


def error_from(message: str, verb: str) -> TrtOptError:
    """What ONNX Runtime said, as an error of this package; `verb` is what it was to do with the model."""
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message.strip().splitlines()[0])
    node = re.search(r"[Nn]ode(?: with name| \(|.*?Name:')\s*'?([^')\s]+)", reason)
    if "bad_alloc" in reason or "Failed to allocate memory" in reason:
        return StageError(f"out of memory in ONNX Runtime: {reason}", hint="free memory, or use smaller inputs")
    return UnsupportedModelError(
        f"ONNX Runtime cannot {verb} this model: {reason}",
        where=f"node {node[1]!r}" if node else None,
        hint="every model must run in ONNX Runtime: that is where it is calibrated and judged",
    )
