"""Pooling with ceil_mode as pooling that rounds down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.vision.pooling_windows import Windows, padded, spatial_sizes, windows_of

_AUTOMATIC = frozenset({"SAME_UPPER", "SAME_LOWER"})


class RoundPoolingDown(NodePass):
    """Replaces `ceil_mode` of MaxPool and AveragePool by padding behind the input.

    What it does: Pads behind the input by as much as makes rounding down give the windows ONNX asks for; that amount
    follows from kernel, stride and padding alone, so it is right for every input size. Where an average counts the
    padding, the padding that counts becomes a Pad of its own, and the average counts only what that Pad gives.

    Why TensorRT wants it: ONNX leaves out a last window that would begin behind the input; TensorRT keeps it, and its
    output has one row or column more.

    Example: MaxPool(kernel 1, stride 2, ceil_mode) of [1, 1, 2, 2], for TensorRT [1, 1, 2, 2], becomes MaxPool(kernel
    1, stride 2) with the [1, 1, 1, 1] of ONNX.

    When it declines: The node's auto_pad leaves nothing to round; its dilations hide how far
    a window reaches (the passes for dilated pooling take those); its padding is as large as its window.
    """

    name = "round_pooling_down"
    operators = frozenset({"MaxPool", "AveragePool"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Leaves alone what rounds down already."""
        return bool(node.attrs.get("ceil_mode", 0)) and super().wants(node, edit)

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Whether TensorRT would give one window more, for this input size or, if it is dynamic, for some."""
        return keeps_a_window_too_many(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if node.attrs.get("auto_pad", "NOTSET") in _AUTOMATIC:
            raise DeclinedError("the padding of its auto_pad leaves nothing to round")
        windows = windows_of(node, emit.edit)
        if any(step != 1 for step in windows.dilations):
            raise DeclinedError("it has dilations, which another pass replaces together with ceil_mode")
        attributes = windows.attributes()
        if node.op == "MaxPool":
            order = node.attrs.get("storage_order")
            made = emit("MaxPool", node.inputs[0], outputs=len(node.outputs), storage_order=order, **attributes)
            return made if isinstance(made, tuple) else (made,)
        source = node.inputs[0]
        if node.attrs.get("count_include_pad", 0):
            dtype = emit.edit.dtype(source)
            if dtype is None:
                raise DeclinedError("the type of its input is not known")
            source = padded(source, windows.begin, windows.end, emit.constant(0, dtype), emit)
            overhang = [reach - end for reach, end in zip(windows.reach, windows.end, strict=True)]
            attributes["pads"] = [0] * len(overhang) + overhang
        return (emit("AveragePool", source, **attributes),)


def keeps_a_window_too_many(node: gs.Node, edit: GraphEdit) -> bool:
    """Whether plain rounding up gives a window that begins behind the input, for this size or for some."""
    if not node.attrs.get("ceil_mode", 0) or node.attrs.get("auto_pad", "NOTSET") in _AUTOMATIC:
        return False
    try:
        windows: Windows = windows_of(node, edit)
    except DeclinedError:
        return False
    sizes = spatial_sizes(node, edit)
    if sizes is None:
        return windows.may_start_in_padding
    return bool(np.any(np.array(windows.counts(sizes)) != np.array(windows.counts_rounded_up(sizes))))
