"""Dilated MaxPool as maxima over slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used
from trt_opt.passes.vision.pooling_windows import padded, pooled_along_axes, windows_of

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


class UnrollMaxPooling(NodePass):
    """Replaces a dilated MaxPool by the Max of strided slices.

    What it does: Pads with minus infinity, and takes along each spatial axis the maximum of one slice per tap of the
    kernel, one axis after the other: 3 + 3 slices for a kernel of 3 x 3. No size needs to be known.

    Why TensorRT wants it: Its pooling has no dilations.

    Example: MaxPool(kernel 3, dilation 2) of [N, C, W] becomes Max(x[:, :, 0:-4], x[:, :, 2:-2], x[:, :, 4:]).

    When it declines: There are no dilations (TensorRT takes it as it is); somebody reads the Indices (another pass
    takes those); the elements are integers (another pass casts them first); its padding is as large as its window.
    """

    name = "unroll_max_pooling"
    operators = frozenset({"MaxPool"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if all(step == 1 for step in node.attrs.get("dilations") or ()):
            raise DeclinedError("it has no dilations, and TensorRT takes it as it is")
        if len(node.outputs) > 1 and is_used(node.outputs[1], emit.edit):
            raise DeclinedError("its Indices are read, which another pass replaces")
        source = node.inputs[0]
        dtype = emit.edit.dtype(source)
        if dtype not in FLOATS:
            raise DeclinedError(f"its elements are {dtype or 'not known'}; integers need to be floats first")
        windows = windows_of(node, emit.edit)
        lowest = emit.constant(-np.inf, dtype)
        whole = padded(source, windows.begin, windows.reach, lowest, emit)
        return (pooled_along_axes(whole, windows, lambda taps: emit("Max", *taps), emit),)
