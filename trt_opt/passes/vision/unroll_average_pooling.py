"""Dilated AveragePool as sums over slices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.vision.pooling_windows import Windows, padded, pooled_along_axes, spatial_sizes, windows_of

HALVES = frozenset({"float16", "bfloat16"})


class UnrollAveragePooling(NodePass):
    """Replaces a dilated AveragePool by the Sum of strided slices.

    What it does: Pads with zeros, and sums along each spatial axis one slice per tap of the kernel, one axis after
    the other: 3 + 3 slices for a kernel of 3 x 3. The sum is divided by the number of elements that count, a
    constant; where padding does not count and the sizes are dynamic, that number is the same sum over ones. Float16
    is summed in float32.

    Why TensorRT wants it: Its pooling has no dilations.

    Example: AveragePool(kernel 3, dilation 2) of [N, C, W] becomes Sum(x[:, :, 0:-4], x[:, :, 2:-2], x[:, :, 4:]) / 3.

    When it declines: There are no dilations (TensorRT takes it as it is); its padding is as large as its window.
    """

    name = "unroll_average_pooling"
    operators = frozenset({"AveragePool"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if all(step == 1 for step in node.attrs.get("dilations") or ()):
            raise DeclinedError("it has no dilations, and TensorRT takes it as it is")
        source = node.inputs[0]
        dtype = emit.edit.dtype(source)
        if dtype is None:
            raise DeclinedError("the type of its input is not known")
        windows = windows_of(node, emit.edit)
        wide = emit.cast(source, "float32") if dtype in HALVES else source
        total = summed(wide, windows, "float32" if dtype in HALVES else dtype, emit)
        counted = _counted(node, windows, "float32" if dtype in HALVES else dtype, emit)
        mean = emit("Div", total, counted)
        return (emit.cast(mean, dtype) if dtype in HALVES else mean,)


def summed(source: gs.Tensor, windows: Windows, dtype: str, emit: Emitter) -> gs.Tensor:
    """The sum of every window; padding is zero."""
    whole = padded(source, windows.begin, windows.reach, emit.constant(0, dtype), emit)
    return pooled_along_axes(whole, windows, lambda taps: emit("Sum", *taps), emit)


def _counted(node: gs.Node, windows: Windows, dtype: str, emit: Emitter) -> gs.Tensor:
    """How many elements of every window count."""
    with_padding = bool(node.attrs.get("count_include_pad", 0))
    if not windows.rounds_up and (with_padding or not any((*windows.begin, *windows.end))):
        return emit.constant(math.prod(windows.kernel), dtype)
    sizes = spatial_sizes(node, emit.edit)
    if sizes is not None:
        return emit.constant(_counts(windows, sizes, with_padding=with_padding), dtype)
    shape = emit("Shape", node.inputs[0])
    spatial = emit.slice(shape, [2], [2 + len(windows.kernel)], [0], [1])
    one = emit.constant(1, dtype)
    ones = emit("Expand", one, emit("Concat", np.array([1, 1]), spatial, axis=0))
    if not with_padding:
        return summed(ones, windows, dtype, emit)
    ones = padded(ones, windows.begin, windows.end, one, emit)
    overhang = [reach - end for reach, end in zip(windows.reach, windows.end, strict=True)]
    ones = padded(ones, [0] * len(overhang), overhang, emit.constant(0, dtype), emit)
    return pooled_along_axes(ones, windows, lambda taps: emit("Sum", *taps), emit)


def _counts(windows: Windows, sizes: tuple[int, ...], *, with_padding: bool) -> NDArray[np.int64]:
    """The number for every window of an input of these sizes, as [1, 1, *windows]."""
    total = np.ones((), np.int64)
    for axis, count in enumerate(windows.counts(sizes)):
        starts = np.arange(count) * windows.strides[axis] - windows.begin[axis]
        places = starts[:, None] + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        first = -windows.begin[axis] if with_padding else 0
        last = sizes[axis] + (windows.end[axis] if with_padding else 0)
        total = total[..., None] * ((places >= first) & (places < last)).sum(axis=1)
    return total[None, None]
