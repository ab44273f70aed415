"""NonMaxSuppression as TensorRT's plugin for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input

PLUGIN = "EfficientNMS_ONNX_TRT"
"""See plugin/efficientNMSPlugin of TensorRT's open-source part."""

PLUGIN_DOMAIN = "trt.plugins"


class NonMaxSuppressionAsPlugin(NodePass):
    """Replaces NonMaxSuppression by the plugin EfficientNMS_ONNX_TRT. Runs only on request: it is not exact.

    What it does: The scores are transposed to the plugin's [batch, boxes, classes], thresholds become its attributes,
    and its INT32 indices are cast. The plugin gives a fixed number of rows, batch * max_output_boxes_per_class for all
    classes together, whatever was found: rows behind the last selection are filler, and with several classes some
    selections of ONNX may be missing. It looks at the best 4096 scores alone.

    Why TensorRT wants it: TensorRT before 8.6 has no layer for NonMaxSuppression, but registers this plugin.

    Example: NonMaxSuppression(boxes [B, N, 4], scores [B, C, N], 100, 0.5, 0.3) becomes Transpose →
    EfficientNMS_ONNX_TRT(max_output_boxes_per_class=100, iou_threshold=0.5, score_threshold=0.3) → Cast.

    When it declines: The target has no such plugin; the number of boxes or a threshold is missing or only known at
    run time; no box may be selected.

    Args:
        plugins: The names of the plugins that the target's registry has.
        refused: See NodePass.
    """

    name = "non_max_suppression_as_plugin"
    operators = frozenset({"NonMaxSuppression"})

    def __init__(self, plugins: frozenset[str] = frozenset(), refused: frozenset[str] | None = None) -> None:
        super().__init__(refused)
        self.plugins = plugins

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if PLUGIN not in self.plugins:
            raise DeclinedError(f"the target has no plugin {PLUGIN}; mode split leaves the node to ONNX Runtime")
        most = int(_number(node, 2, "max_output_boxes_per_class", emit.edit))
        if most <= 0:
            raise DeclinedError("its max_output_boxes_per_class lets no box be selected")
        overlap = _number(node, 3, "iou_threshold", emit.edit)
        threshold = _number(node, 4, "score_threshold", emit.edit)
        scores = emit("Transpose", node.inputs[1], perm=[0, 2, 1])
        indices = emit(
            PLUGIN,
            node.inputs[0],
            scores,
            domain=PLUGIN_DOMAIN,
            plugin_version="1",
            max_output_boxes_per_class=most,
            iou_threshold=float(np.float32(overlap)),
            score_threshold=float(np.float32(threshold)),
            center_point_box=int(node.attrs.get("center_point_box", 0)),
        )
        return (emit.cast(indices, "int64"),)


def _number(node: gs.Node, position: int, what: str, edit: GraphEdit) -> float:
    given = optional_input(node, position)
    if given is None:
        raise DeclinedError(f"the plugin needs a {what}, and the node gives none")
    value = edit.value(given)
    if value is None:
        raise DeclinedError(f"its {what} is only known at run time: --freeze-input {given.name}=…")
    return float(value.reshape(-1)[0])
