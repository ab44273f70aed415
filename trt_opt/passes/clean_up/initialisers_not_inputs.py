"""Initialisers stop being graph inputs."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.graph.initialisers import initialiser_inputs, without_initialiser_inputs
from trt_opt.passes.base import Pass
from trt_opt.values.rewriting import Change, PassReport


class InitialisersNotInputs(Pass):
    """Takes initialisers out of the list of graph inputs.

    What it does: Files of IR version 3 list every weight as a graph input as well. The entries are removed and the IR
    version raised to 4, from which on that is allowed.

    Why TensorRT wants it: An initialiser that is an input may be overridden by the caller, so nothing computed from it
    can be folded, and tools ask for data for hundreds of "inputs".

    Example: inputs (data_0, conv1_w, conv1_b) → inputs (data_0).

    When it declines: Never. A weight that a caller did override at run time becomes the constant stored in the file.
    """

    name = "initialisers_not_inputs"

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Removes the entries."""
        listed = initialiser_inputs(model)
        if not listed:
            return model, PassReport(self.name)
        changes = tuple(Change(name, "no longer a graph input") for name in listed)
        return without_initialiser_inputs(model), PassReport(self.name, changes)
