"""A model with FP16 inputs, run on the float32 data of the model it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.query import graph_inputs
from trt_opt.values.runner import Runner

Array = NDArray[np.generic]


def half_inputs(model: onnx.ModelProto) -> frozenset[str]:
    """The names of the graph inputs that want FP16."""
    return frozenset(spec.name for spec in graph_inputs(model) if spec.dtype == "float16")


class HalfInputsRunner:
    """Casts what is fed to FP16 where the model wants that, as its caller on the device has to.

    Args:
        runner: Runs the model.
        halves: The inputs that want FP16.
    """

    def __init__(self, runner: Runner, halves: frozenset[str]) -> None:
        self._runner = runner
        self._halves = halves

    @property
    def name(self) -> str:
        """The runner's."""
        return self._runner.name

    def infer(self, feed: Mapping[str, Array], /) -> Mapping[str, Array]:
        """The outputs by name; numbers beyond FP16 go in as infinities."""
        with np.errstate(over="ignore"):
            cast = {name: array.astype(np.float16) if name in self._halves else array for name, array in feed.items()}
        return self._runner.infer(cast)

    def __enter__(self) -> HalfInputsRunner:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self._runner.__exit__(kind, error, trace)
