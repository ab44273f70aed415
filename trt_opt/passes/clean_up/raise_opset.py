"""A newer version of the standard operators."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.opset import converted_to_opset
from trt_opt.graph.query import opset
from trt_opt.passes.base import Pass
from trt_opt.values.rewriting import Change, Decline, PassReport

_LOWEST_WORTH_HAVING = 13
"""The first opset with per-channel QuantizeLinear."""


class RaiseOpset(Pass):
    """Raises the opset of the model, with onnx's own version converter.

    What it does: Converts the model to the wanted opset; where that fails, to the highest one below it, down to 13,
    that works. The result passes onnx's checker, and inputs and outputs keep their names.

    Why TensorRT wants it: Its parser refuses opsets below 7. Per-channel quantisation needs opset 13, FP16 scales 19.

    Example: RaiseOpset(to=19) on a model of opset 11.

    When it declines: Custom operators or model-local functions; onnx's converter has no rule for an operator, or
    writes an invalid model; its reason is given. Models already at the opset or above are left alone.
    """

    name = "raise_opset"

    def __init__(self, to: int = 19) -> None:
        self.to = to

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Tries the wanted opset first, then lower ones."""
        current = opset(model)
        declines: list[Decline] = []
        for version in range(self.to, max(current, _LOWEST_WORTH_HAVING - 1), -1):
            converted = self._try(model, version, declines)
            if converted is not None:
                changes = (Change("model", f"opset {current} raised to {version}"),)
                return converted, PassReport(self.name, changes, tuple(declines))
        return model, PassReport(self.name, (), tuple(declines))

    @staticmethod
    def _try(model: ModelProto, version: int, declines: list[Decline]) -> ModelProto | None:
        try:
            return converted_to_opset(model, version)
        except UnsupportedModelError as error:
            declines.append(Decline("model", f"opset {version}: {error.what}"))
            return None
