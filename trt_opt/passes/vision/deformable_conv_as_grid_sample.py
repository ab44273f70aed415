"""DeformConv as GridSample and Conv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input

_DIMENSIONS = 4


@dataclass(frozen=True)
class Sampling:
    """The sizes of a DeformConv node: kernel and image are [height, width]."""

    kernel: tuple[int, int]
    image: tuple[int, int]
    output: tuple[int, int]
    channels: int
    filters: int
    offset_groups: int


class DeformableConvAsGridSample(NodePass):
    """Replaces DeformConv by one GridSample of all taps, and a Conv over them.

    What it does: Offsets become the coordinates of GridSample: those of the undeformed taps are a constant, and all
    taps of all windows [N, taps, OH * OW] are sampled at once. The mask multiplies the samples. A Conv with a kernel
    of [taps, 1] then does what the convolution of the node would have done, with groups and bias.

    Why TensorRT wants it: It has no DeformConv without a plugin.

    Example: DeformConv(3 x 3) of [N, C, H, W] becomes GridSample [N, C, 9, OH * OW] → Conv(kernel [9, 1]) → Reshape
    [N, M, OH, OW].

    When it declines: The image is not two-dimensional; channels, filters, or the spatial sizes of input and offset
    are not static.
    """

    name = "deformable_conv_as_grid_sample"
    operators = frozenset({"DeformConv"})
    oldest_opset = 19

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        sampling = _sampling(node, emit.edit)
        taps, points = math.prod(sampling.kernel), math.prod(sampling.output)
        groups, channels = sampling.offset_groups, sampling.channels
        dtype = emit.edit.dtype(node.inputs[0])
        if dtype is None:
            raise DeclinedError("the type of its input is not known")
        image = emit.reshape(node.inputs[0], [-1, channels // groups, *sampling.image])
        samples = emit("GridSample", image, _grid(node, sampling, dtype, emit), padding_mode="zeros", align_corners=0)
        mask = optional_input(node, 4)
        if mask is not None:
            samples = emit("Mul", samples, emit.reshape(mask, [-1, 1, taps, points]))
        samples = emit.reshape(samples, [-1, channels, taps, points])
        group = int(node.attrs.get("group", 1))
        weights = emit.reshape(node.inputs[1], [sampling.filters, channels // group, taps, 1])
        made = emit("Conv", samples, weights, *_bias(node), group=group, kernel_shape=[taps, 1])
        return (emit.reshape(made, [-1, sampling.filters, *sampling.output]),)


def _bias(node: gs.Node) -> tuple[gs.Tensor, ...]:
    bias = optional_input(node, 3)
    return () if bias is None else (bias,)


def _grid(node: gs.Node, sampling: Sampling, dtype: str, emit: Emitter) -> gs.Tensor:
    """GridSample's coordinates [N * groups, taps, points, (x, y)]: element i of n lies at (2 * i + 1) / n - 1."""
    taps, points = math.prod(sampling.kernel), math.prod(sampling.output)
    narrow = dtype in {"float16", "bfloat16"}
    wide = "float32" if narrow else dtype
    offset = emit.cast(node.inputs[2], wide) if narrow else node.inputs[2]
    offset = emit.reshape(offset, [-1, taps, 2, points])
    offset = emit("Gather", emit("Transpose", offset, perm=[0, 1, 3, 2]), np.array([1, 0]), axis=3)
    sizes = np.array(sampling.image[::-1], np.float64)
    base = (2 * _undeformed(node, sampling)[..., ::-1] + 1) / sizes - 1
    grid: gs.Tensor = emit("Add", emit("Mul", offset, (2 / sizes).astype(wide)), base.astype(wide))
    return emit.cast(grid, dtype) if narrow else grid


def _undeformed(node: gs.Node, sampling: Sampling) -> NDArray[np.float64]:
    """Where the taps lie without offsets, [taps, points, (y, x)]."""
    strides = node.attrs.get("strides") or [1, 1]
    dilations = node.attrs.get("dilations") or [1, 1]
    pads = node.attrs.get("pads") or [0, 0, 0, 0]
    taps = [np.arange(size) * step for size, step in zip(sampling.kernel, dilations, strict=True)]
    begins = [np.arange(size) * step - pad for size, step, pad in zip(sampling.output, strides, pads[:2], strict=True)]
    of_taps = np.stack(np.meshgrid(*taps, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    of_points = np.stack(np.meshgrid(*begins, indexing="ij"), axis=-1).reshape(1, -1, 2)
    places: NDArray[np.float64] = (of_taps + of_points).astype(np.float64)
    return places


def _sampling(node: gs.Node, edit: GraphEdit) -> Sampling:
    shapes = [edit.shape(node.inputs[position]) for position in range(3)]
    if any(shape is None or len(shape) != _DIMENSIONS for shape in shapes):
        raise DeclinedError("it is not two-dimensional, or the rank of an input is not known")
    image, weights, offset = (
        (shape or ())[1:] if position == 0 else shape or () for position, shape in enumerate(shapes)
    )
    sizes = [*image, *weights, *offset[2:]]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        raise DeclinedError("channels, filters, or the spatial sizes of input and offset are not static")
    channels, height, width, filters, _, kernel_height, kernel_width, *output = known
    return Sampling(
        kernel=(kernel_height, kernel_width),
        image=(height, width),
        output=(output[0], output[1]),
        channels=channels,
        filters=filters,
        offset_groups=int(node.attrs.get("offset_group", 1)),
    )
