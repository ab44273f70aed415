"""Where NonMaxSuppression runs: in the engine, in a plugin, or behind the engine."""

from __future__ import annotations

from onnx import ModelProto

from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.graph.query import all_nodes
from trt_opt.passes.base import Pass
from trt_opt.passes.vision.non_max_suppression_as_plugin import NonMaxSuppressionAsPlugin
from trt_opt.passes.vision.split_at_nms import OPERATOR, split_at_nms, tail_operators
from trt_opt.values.rewriting import Change, Decline, PassReport

MODES = ("keep", "plugin", "split")


class PlaceNonMaxSuppression(Pass):
    """Leaves NonMaxSuppression to the engine, to a plugin, or to ONNX Runtime behind it. Runs only on request.

    What it does: "keep" changes nothing. "plugin" puts the plugin EfficientNMS_ONNX_TRT in its place, which gives a
    fixed number of rows (see non_max_suppression_as_plugin). "split" takes NonMaxSuppression, and everything that
    needs its result, out of the model: what these nodes read become outputs instead. `split_at_nms` gives the nodes
    taken out as a model of their own, for ONNX Runtime; its numbers are exactly those of the whole model.

    Why TensorRT wants it: TensorRT-RTX has no implementation of NonMaxSuppression; TensorRT 8.6 and later has one, and
    older ones have the plugin.

    Example: Conv → boxes, scores → NonMaxSuppression → Gather(boxes) becomes, split, Conv → boxes, scores.

    When it declines: The target has no such plugin, or the plugin's numbers are only known at run time; nothing is
    left before NonMaxSuppression, or a tensor that is cut has no type that can be told. Splitting changes the outputs
    of the model, and plugins their values.

    Args:
        mode: "keep", "plugin" or "split".
        plugins: The names of the plugins that the target's registry has.
    """

    name = "place_non_max_suppression"

    def __init__(self, mode: str = "keep", plugins: frozenset[str] = frozenset()) -> None:
        if mode not in MODES:
            raise RequestError(f"NonMaxSuppression cannot be placed as {mode!r}", hint=f"one of {', '.join(MODES)}")
        self.mode = mode
        self.plugins = plugins

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """See the class."""
        if self.mode == "keep" or all(node.op_type != OPERATOR for node in all_nodes(model)):
            return model, PassReport(self.name)
        if self.mode == "plugin":
            placed, report = NonMaxSuppressionAsPlugin(self.plugins).run(model)
            return placed, PassReport(self.name, report.changed, report.declined)
        first, *others = tail_operators(model)
        try:
            engine, _ = split_at_nms(model)
        except UnsupportedModelError as reason:
            return model, PassReport(self.name, declined=(Decline(first, str(reason)),))
        outputs = ", ".join(value.name for value in engine.graph.output)
        behind = f" and {len(others)} nodes behind it" if others else ""
        return engine, PassReport(self.name, (Change(first, f"taken out{behind}; the outputs are now {outputs}"),))
