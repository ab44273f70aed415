"""Mod of floating point numbers that follows the sign of the divisor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_HALVES = frozenset({"float16", "bfloat16"})
_OLDEST_WHERE_OF_BFLOAT16 = 16


class FloorModToFmod(NodePass):
    """Replaces Mod with fmod=0 of floating point numbers by one with fmod=1 and a correction.

    What it does: fmod=1 gives a remainder of the dividend's sign; where that is not the divisor's, the divisor is
    added, and a remainder of zero gets the divisor's sign. If the divisor is not a finite constant, a finite dividend
    is its own remainder of an infinite divisor: TensorRT's fmod=1, x - y * trunc(x / y), would make that NaN.

    Why TensorRT wants it: Its Mod takes floating point numbers with fmod=1 only.

    Example: Mod(x, 3.0) becomes Where(r == 0, 0, Where(r < 0, r + 3, r)) with r = Mod(x, 3.0, fmod=1).

    When it declines: The operands are narrow or unsigned integers; bfloat16 below opset 16, which has no Where for it.
    """

    name = "floor_mod_to_fmod"
    operators = frozenset({"Mod"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only those with fmod=0, and not of the integers that TensorRT has arithmetic for."""
        if not super().wants(node, edit):
            return False
        return not node.attrs.get("fmod", 0) and edit.dtype(node.inputs[0]) not in {"int32", "int64"}

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        dividend, divisor = node.inputs
        dtype = emit.edit.dtype(dividend)
        if dtype is None:
            raise DeclinedError("the type of its operands is not known")
        if dtype not in _FLOATS:
            raise DeclinedError(f"{dtype} wants widening to INT32 or INT64, which TensorRT takes as they are")
        if dtype == "bfloat16" and emit.edit.opset < _OLDEST_WHERE_OF_BFLOAT16:
            raise DeclinedError(f"bfloat16 in opset {emit.edit.opset}: raise the model to opset 16 or later")
        remainder = _remainder(dividend, divisor, emit, dtype)
        zero = emit.constant(0, dtype)
        negative = emit("Less", divisor, zero)
        differs = emit("Xor", emit("Less", remainder, zero), negative)
        moved = emit("Where", differs, emit("Add", remainder, divisor), remainder)
        signed_zero = emit("Where", negative, emit.constant(-0.0, dtype), zero)
        return (emit("Where", emit("Equal", remainder, zero), signed_zero, moved),)


def _remainder(dividend: gs.Tensor, divisor: gs.Tensor, emit: Emitter, dtype: str) -> gs.Tensor:
    """The remainder of the dividend's sign."""
    made: gs.Tensor = emit("Mod", dividend, divisor, fmod=1)
    values = emit.edit.value(divisor)
    if values is not None and bool(np.isfinite(values.astype(np.float64)).all()):
        return made
    tested = [emit.cast(side, "float32") if dtype in _HALVES else side for side in (dividend, divisor)]
    infinite_dividend, infinite_divisor = (emit("IsInf", side) for side in tested)
    alone = emit("And", infinite_divisor, emit("Not", infinite_dividend))
    chosen: gs.Tensor = emit("Where", alone, dividend, made)
    return chosen
