"""ONNX Runtime's Gaussian error linear units in standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape, scalar

# The constants of Y = 0.5 X (1 + tanh(0.797885 X + 0.035677 X³)), as ONNX Runtime's definition of FastGelu has them.
_LINEAR = math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR
_QUICK_ALPHA = 1.702


class DecomposeGelu(NodePass):
    """Writes ONNX Runtime's Gelu operators out in standard ones.

    What it does: Gelu and BiasGelu become x/2 · (1 + erf(x/√2)), FastGelu and GemmFastGelu the tanh form, QuickGelu
    x · sigmoid(alpha · x); a bias is added first. BiasSplitGelu multiplies the left half of the last axis by the Gelu
    of the right one. ScaledSiLU becomes z · sigmoid(z) of z = scale · x.

    Why TensorRT wants it: These are operators of ONNX Runtime's own domain com.microsoft, which an optimised model
    saved by it contains. TensorRT has no importer for them (it takes Gelu, as it pays no heed to domains), and fuses
    the written-out form again.

    Example: com.microsoft::BiasGelu(x, b) becomes Add, Mul, Erf, Add, Mul, Mul.

    When it declines: The element type is not known; BiasSplitGelu over an axis of unknown or odd length.
    """

    name = "decompose_gelu"
    operators = frozenset(
        f"com.microsoft::{name}"
        for name in ("Gelu", "BiasGelu", "FastGelu", "GemmFastGelu", "QuickGelu", "BiasSplitGelu", "ScaledSiLU")
    )
    oldest_opset = 9

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        dtype = element_type(emit, *node.inputs[:2])
        source = node.inputs[0]
        match node.op:
            case "QuickGelu":
                return (_by_sigmoid(emit, source, scalar(emit, node.attrs.get("alpha", _QUICK_ALPHA), dtype)),)
            case "ScaledSiLU":
                scaled = emit("Mul", source, _scale_of(node, emit, dtype))
                return (emit("Mul", scaled, emit("Sigmoid", scaled)),)
            case "BiasSplitGelu":
                return (_of_halves(node, emit, dtype),)
            case "FastGelu":
                return (_by_tanh(emit, _with_bias(emit, source, optional_input(node, 1)), dtype),)
            case "GemmFastGelu":
                product = emit("MatMul", source, node.inputs[1])
                return (_by_tanh(emit, _with_bias(emit, product, optional_input(node, 2)), dtype),)
            case _:
                return (_by_erf(emit, _with_bias(emit, source, optional_input(node, 1)), dtype),)


def _with_bias(emit: Emitter, source: gs.Tensor, bias: gs.Tensor | None) -> gs.Tensor:
    made: gs.Tensor = source if bias is None else emit("Add", source, bias)
    return made


def _by_erf(emit: Emitter, source: gs.Tensor, dtype: str) -> gs.Variable:
    error = emit("Erf", emit("Mul", source, scalar(emit, math.sqrt(0.5), dtype)))
    return _half_of(emit, source, error, dtype)


def _by_tanh(emit: Emitter, source: gs.Tensor, dtype: str) -> gs.Variable:
    square = emit("Mul", source, source)
    factor = emit("Add", emit("Mul", square, scalar(emit, _CUBIC, dtype)), scalar(emit, _LINEAR, dtype))
    return _half_of(emit, source, emit("Tanh", emit("Mul", source, factor)), dtype)


def _half_of(emit: Emitter, source: gs.Tensor, shifted: gs.Tensor, dtype: str) -> gs.Variable:
    """Half the source, times one more than what was computed of it."""
    weight = emit("Add", shifted, scalar(emit, 1, dtype))
    made: gs.Variable = emit("Mul", emit("Mul", source, scalar(emit, 0.5, dtype)), weight)
    return made


def _by_sigmoid(emit: Emitter, source: gs.Tensor, alpha: Operand) -> gs.Variable:
    made: gs.Variable = emit("Mul", source, emit("Sigmoid", emit("Mul", source, alpha)))
    return made


def _scale_of(node: gs.Node, emit: Emitter, dtype: str) -> Operand:
    """The scale of ScaledSiLU: a scalar input, of float32 or of the type of x, or the attribute."""
    given = optional_input(node, 1)
    if given is None:
        return scalar(emit, node.attrs.get("alpha", 1.0), dtype)
    return given if emit.edit.dtype(given) == dtype else emit.cast(given, dtype)


def _of_halves(node: gs.Node, emit: Emitter, dtype: str) -> gs.Variable:
    length = known_shape(emit, node.inputs[1])[-1]
    if length is None or length % 2:
        raise DeclinedError("the length of its last axis is not known, or odd")
    summed = emit("Add", node.inputs[0], node.inputs[1])
    left, right = emit.split(summed, (length // 2, length // 2), 2)
    made: gs.Variable = emit("Mul", left, _by_erf(emit, right, dtype))
    return made
