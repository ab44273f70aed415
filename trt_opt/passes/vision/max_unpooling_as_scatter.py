"""MaxUnpool as a scatter onto zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input


class MaxUnpoolingAsScatter(NodePass):
    """Replaces MaxUnpool by ScatterElements on zeros.

    What it does: The indices count over the whole tensor that pooling came from, so all is laid flat: zeros, then
    ScatterElements of the values, then the shape. Where `output_shape` is larger than what kernel, strides and pads
    give, the indices still count over the latter, and zeros are padded behind it (onnx's own implementation; ONNX
    Runtime counts over the former).

    Why TensorRT wants it: It has no MaxUnpool.

    Example: MaxUnpool(kernel 2, stride 2) of [N, C, 4, 4] becomes ScatterElements(zeros, indices, values) → Reshape
    [N, C, 8, 8].

    When it declines: The spatial sizes are not static; `output_shape` is only known at run time and no declared shape
    tells it, or it is smaller than what the attributes give.
    """

    name = "max_unpooling_as_scatter"
    operators = frozenset({"MaxUnpool"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        source = node.inputs[0]
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if shape is None or dtype is None:
            raise DeclinedError("the rank or type of its input is not known")
        sizes = [size for size in shape[2:] if size is not None]
        if len(sizes) < len(shape) - 2:
            raise DeclinedError("the spatial sizes of its input are not static")
        unpooled = _unpooled(node, sizes)
        behind = _behind(node, unpooled, emit.edit)
        values = emit.reshape(source, [-1])
        # Elements before unpooling x elements per channel after it / before it.
        count = emit("Div", emit("Shape", values), np.array([math.prod(sizes)]))
        zeros = emit("ConstantOfShape", emit("Mul", count, np.array([math.prod(unpooled)])), value=np.zeros(1, dtype))
        flat = emit("ScatterElements", zeros, emit.reshape(node.inputs[1], [-1]), values, axis=0)
        channels = shape[1]
        if channels is not None:
            result = emit.reshape(flat, [-1, channels, *unpooled])
        else:
            leading = emit.slice(emit("Shape", source), [0], [2], [0], [1])
            result = emit("Reshape", flat, emit("Concat", leading, np.array(unpooled, np.int64), axis=0))
        if any(behind):
            pads = np.array([0] * len(shape) + [0, 0, *behind], np.int64)
            result = emit("Pad", result, pads, emit.constant(0, dtype))
        return (result,)


def _unpooled(node: gs.Node, sizes: Sequence[int]) -> list[int]:
    """The spatial sizes that the attributes give."""
    kernel = node.attrs["kernel_shape"]
    rank = len(kernel)
    strides = node.attrs.get("strides") or [1] * rank
    pads = node.attrs.get("pads") or [0] * (2 * rank)
    return [
        (size - 1) * strides[axis] - pads[axis] - pads[rank + axis] + kernel[axis] for axis, size in enumerate(sizes)
    ]


def _behind(node: gs.Node, unpooled: Sequence[int], edit: GraphEdit) -> list[int]:
    """How many zeros `output_shape` asks for behind each spatial axis."""
    given = optional_input(node, 2)
    if given is None:
        return [0] * len(unpooled)
    asked = edit.value(given)
    wanted = edit.declared_shape(node.outputs[0]) if asked is None else tuple(int(size) for size in asked)
    if wanted is None or any(size is None for size in wanted[2:]):
        raise DeclinedError(f"its output_shape is only known at run time: --freeze-input {given.name}=…")
    behind = [(size or 0) - made for size, made in zip(wanted[2:], unpooled, strict=True)]
    if min(behind) < 0:
        raise DeclinedError(f"its output_shape {list(wanted[2:])} is smaller than the {unpooled} of its attributes")
    return behind
