"""ONNX Runtime's group normalisations in standard operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.layer_statistics import summed
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input
from trt_opt.passes.operand_facts import COMPUTED_IN_FLOAT32, element_type, known_shape

_EPSILON = 1e-5
_FROM_CHANNELS_LAST = [0, 3, 1, 2]
_TO_CHANNELS_LAST = [0, 2, 3, 1]


class DecomposeFusedGroupNormalization(NodePass):
    """Writes ONNX Runtime's group normalisations out in standard operators.

    What it does: GroupNorm becomes an InstanceNormalization of the groups, laid out as channels, and a scale and a
    shift for each channel; SiLU follows where it is asked for, Transposes stand around it where the data is
    channels-last. SkipGroupNorm adds the skipped input and the bias first. Float16 and bfloat16 are normalised in
    float32.

    Why TensorRT wants it: The operators are ONNX Runtime's own; its optimiser makes them of diffusion models.

    Example: com.microsoft::GroupNorm(x, gamma, beta, groups=32, activation=1) becomes Transpose, Reshape,
    InstanceNormalization, Reshape, Mul, Add, Sigmoid, Mul, Transpose.

    When it declines: The element type, the number of channels or the rank of the skipped input is not known.
    """

    name = "decompose_fused_group_normalization"
    operators = frozenset({"com.microsoft::GroupNorm", "com.microsoft::SkipGroupNorm"})
    oldest_opset = 9

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        last = bool(node.attrs.get("channels_last", 1))
        total = node.inputs[0]
        if node.op == "SkipGroupNorm":
            total = summed(emit, (total, *_skipped(node, emit, last)))
        dtype = element_type(emit, node.inputs[0], optional_input(node, 3))
        wide: Any = emit.cast(total, "float32") if dtype in COMPUTED_IN_FLOAT32 else total
        first = emit("Transpose", wide, perm=_FROM_CHANNELS_LAST) if last else wide
        result = _normalized(node, emit, first, "float32" if dtype in COMPUTED_IN_FLOAT32 else dtype)
        if node.attrs.get("activation", 0):
            result = emit("Mul", result, emit("Sigmoid", result))
        result = emit("Transpose", result, perm=_TO_CHANNELS_LAST) if last else result
        return (emit.cast(result, dtype) if dtype in COMPUTED_IN_FLOAT32 else result), total


def _skipped(node: gs.Node, emit: Emitter, last: bool) -> tuple[gs.Tensor | None, gs.Tensor | None]:
    """The skipped input and the bias, so that they broadcast to the data."""
    skip, bias = node.inputs[3], optional_input(node, 4)
    if len(known_shape(emit, skip)) == 2:
        skip = emit.unsqueeze(skip, [1, 2] if last else [2, 3])
    if bias is not None and not last:
        bias = emit.unsqueeze(bias, [1, 2])
    return skip, bias


def _normalized(node: gs.Node, emit: Emitter, source: gs.Tensor, dtype: str) -> gs.Tensor:
    gamma, beta = node.inputs[1:3]
    channels = known_shape(emit, gamma)[0]
    if channels is None:
        raise DeclinedError("the number of its channels is not known")
    groups = int(node.attrs["groups"])
    grouped = emit.reshape(source, [0, groups, -1])
    ones = emit.constant(np.ones(groups), dtype)
    zeros = emit.constant(np.zeros(groups), dtype)
    even = emit("InstanceNormalization", grouped, ones, zeros, epsilon=float(node.attrs.get("epsilon", _EPSILON)))
    back = emit("Reshape", even, emit("Shape", source))
    scale, shift = (emit.unsqueeze(_as(emit, tensor, dtype), [1, 2]) for tensor in (gamma, beta))
    made: gs.Tensor = emit("Add", emit("Mul", back, scale), shift)
    return made


def _as(emit: Emitter, tensor: gs.Tensor, dtype: str) -> gs.Tensor:
    return tensor if emit.edit.dtype(tensor) == dtype else emit.cast(tensor, dtype)
