"""Inputs that become constants, because the user says what they always are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from trt_opt.graph.query import spec_of
from trt_opt.passes.base import Pass
from trt_opt.passes.ends.frozen_values import fitting_values
from trt_opt.values.rewriting import Change, PassReport

_FIRST_IR_WITH_CONSTANTS_OF_THEIR_OWN = 4


class FreezeInputs(Pass):
    """Replaces inputs of the model by constants.

    What it does: Each input that a value is given for becomes an initialiser of the input's type and is no input any
    more. This changes how the model is called, so it happens on request only, once and before all other passes.

    Why TensorRT wants it: Axes, scales, depths, trip counts and the like must be build-time constants, and floats
    cannot decide shapes at all. Whoever always feeds the same value loses nothing.

    Example: FreezeInputs({"axes": np.array([1])}) turns ReduceSum(x, axes) into ReduceSum(x, [1]).

    When it declines: Never. A name that is no input, and a value whose shape or type does not fit, are errors.

    Args:
        values: Input → its value.
    """

    name = "freeze_inputs"

    def __init__(self, values: Mapping[str, NDArray[np.generic]]) -> None:
        self.values = dict(values)

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Freezes what is not frozen yet.

        Raises:
            RequestError: A name is neither an input nor frozen already; a value does not fit its input.
        """
        inputs = {value.name: value for value in model.graph.input}
        frozen = {tensor.name for tensor in model.graph.initializer} - set(inputs)
        given = {name: value for name, value in self.values.items() if name not in frozen}
        values = fitting_values(given, tuple(map(spec_of, inputs.values())))
        if not values:
            return model, PassReport(self.name)
        copy = ModelProto()
        copy.CopyFrom(model)
        _keep(copy.graph.input, set(inputs) - set(values))
        # A default the caller could override gives way.
        _keep(copy.graph.initializer, {tensor.name for tensor in model.graph.initializer} - set(values))
        copy.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
        copy.ir_version = max(model.ir_version, _FIRST_IR_WITH_CONSTANTS_OF_THEIR_OWN)
        changes = tuple(Change(name, f"input frozen to {_told(value)}") for name, value in values.items())
        return copy, PassReport(self.name, changes)


def _keep(entries: Any, names: set[str]) -> None:
    kept = [entry for entry in entries if entry.name in names]
    del entries[:]
    entries.extend(kept)


def _told(value: NDArray[np.generic]) -> str:
    text = str(value.tolist())
    return text if len(text) <= 40 else f"{text[:40]}… of shape {list(value.shape)}"
