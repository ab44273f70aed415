"""ONNX Runtime's fused and channels-last convolutions in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.activation_nodes import activated
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape, text

_OF_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_OF_POOLING = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


class DecomposeFusedConvolution(NodePass):
    """Writes ONNX Runtime's fused and channels-last convolutions out in standard operators.

    What it does: FusedConv becomes Conv, an Add where a fourth input is given, and the activation function.
    NhwcConv, NhwcFusedConv and NhwcMaxPool are wrapped in Transposes to and from channels-first; integers are pooled as
    float32, which holds them exactly.

    Why TensorRT wants it: They are operators of ONNX Runtime's own domain, which an optimised model saved by it
    contains. TensorRT has no importers for them, and fuses Conv with what follows it by itself.

    Example: com.microsoft::FusedConv(x, w, b, activation="Relu") becomes Conv, Relu.

    When it declines: The element type is not known; the activation function is none that ONNX Runtime fuses; the rank
    of a channels-last input is not known.
    """

    name = "decompose_fused_convolution"
    operators = frozenset(
        f"com.microsoft::{name}" for name in ("FusedConv", "NhwcConv", "NhwcFusedConv", "NhwcMaxPool")
    )
    oldest_opset = 7

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        if node.op == "NhwcMaxPool":
            return (_max_pooled(node, emit),)
        if node.op == "FusedConv":
            return (_convolved(node, emit, node.inputs[0], optional_input(node, 3)),)
        rank = len(known_shape(emit, node.inputs[0]))
        residual = optional_input(node, 3)
        first = _channels_first(emit, node.inputs[0], rank)
        added = None if residual is None else _channels_first(emit, residual, rank)
        return (_channels_last(emit, _convolved(node, emit, first, added), rank),)


def _convolved(node: gs.Node, emit: Emitter, source: gs.Tensor, residual: gs.Tensor | None) -> gs.Tensor:
    given = {name: node.attrs.get(name) for name in _OF_CONV}
    made: gs.Tensor = emit("Conv", source, node.inputs[1], optional_input(node, 2), **given)
    if residual is not None:
        made = emit("Add", made, residual)
    dtype = element_type(emit, *node.inputs[:2])
    return activated(emit, made, text(node.attrs.get("activation", "")), node.attrs.get("activation_params", ()), dtype)


def _max_pooled(node: gs.Node, emit: Emitter) -> gs.Tensor:
    source = node.inputs[0]
    dtype = element_type(emit, source)
    rank = len(known_shape(emit, source))
    integers = "int" in dtype
    first = _channels_first(emit, emit.cast(source, "float32") if integers else source, rank)
    pooled = emit("MaxPool", first, **{name: node.attrs.get(name) for name in _OF_POOLING})
    last = _channels_last(emit, pooled, rank)
    return emit.cast(last, dtype) if integers else last


def _channels_first(emit: Emitter, tensor: gs.Tensor, rank: int) -> gs.Tensor:
    made: gs.Tensor = emit("Transpose", tensor, perm=[0, rank - 1, *range(1, rank - 1)])
    return made


def _channels_last(emit: Emitter, tensor: gs.Tensor, rank: int) -> gs.Tensor:
    made: gs.Tensor = emit("Transpose", tensor, perm=[0, *range(2, rank), 1])
    return made
