"""QuantizeLinear in float arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trt_opt.graph.query import dtype_name
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input
from trt_opt.passes.quantised.exact_integers import RANGES, in_type, saturated, scale
from trt_opt.passes.quantised.granularity import Granularity

_PRECISION_SINCE = 23


class EmulateQuantizeLinear(NodePass):
    """Replaces QuantizeLinear by Div, Round, Add, Clip and Cast.

    What it does: x / scale is rounded half to even in float, shifted by the zero-point, clipped to the range of the
    integer type, and cast to it through INT32. The division is in FLOAT, from opset 23 on in the type of the scale or
    that of `precision`; scales and zero-points may be one number, one per slice of an axis, or one per block.

    Why TensorRT wants it: It quantises to INT8 with a constant zero-point of 0 only. UINT8 with a zero-point of 0, or
    no zero-point at all, it takes but reads as INT8, so that values above 127 x scale saturate; these nodes are
    replaced even where it does not refuse them.

    Example: QuantizeLinear(x, 0.02, uint8 128) becomes Cast(UINT8, Cast(INT32, Clip(Round(x / 0.02) + 128, 0, 255))).

    When it declines: INT8 with a constant zero-point of 0, which TensorRT takes as it is; FP8 and 4-bit results; the
    rank of the input is not known; the blocked axis is not static.
    """

    name = "emulate_quantize_linear"
    operators = frozenset({"QuantizeLinear"})

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """TensorRT has no UINT8: it quantises to INT8 in its place."""
        return _result_type(node, edit) == "uint8"

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        dtype = _result_type(node, emit.edit)
        offset = optional_input(node, 2)
        if dtype is None or dtype not in RANGES:
            raise DeclinedError(f"numbers of type {dtype or 'unknown'} are not emulated")
        if self.refused is None and is_plain(node, dtype, emit.edit):
            raise DeclinedError("TensorRT takes it as it is")
        grain = Granularity.of(node, emit)
        divisor = grain.spread(scale(node.inputs[1], grain.vector_shape, emit), node.inputs[1], emit)
        quotient = _quotient(node.inputs[0], divisor, node, emit)
        return (saturated(quotient, grain.zero_point(offset, emit), dtype, emit),)


def _quotient(source: gs.Tensor, divisor: Operand, node: gs.Node, emit: Emitter) -> Operand:
    """The quotient in FLOAT, as precise as the node asks for.

    A quotient rounded to FLOAT and then to FLOAT16 or BFLOAT16 is the same as one rounded once, because 24 bits are at
    least twice as many as theirs and two (Figueroa, "When is double rounding innocuous?", 1995). ONNX Runtime has no
    FLOAT16 division, and leaves the rounding out of its own detour through FLOAT.
    """
    precision = _precision(node, emit.edit)
    operands = (source, divisor)
    if precision != "float32":
        given = emit.edit.dtype(source)
        operands = (
            source if given == precision else in_type(source, precision, emit),
            in_type(divisor, precision, emit),
        )
    quotient = emit("Div", *(in_type(operand, "float32", emit) for operand in operands))
    return quotient if precision == "float32" else emit.cast(emit.cast(quotient, precision), "float32")


def is_plain(node: gs.Node, integers: str, edit: GraphEdit) -> bool:
    """Whether TensorRT takes a quantisation of these integers as it is: INT8, and no zero-point but a constant 0."""
    offset = optional_input(node, 2)
    values = edit.value(offset)
    steps = edit.value(node.inputs[1])
    positive = steps is None or bool(np.all(steps.astype(np.float32) > 0))
    return integers == "int8" and positive and (offset is None or (values is not None and not values.any()))


def _result_type(node: gs.Node, edit: GraphEdit) -> str | None:
    offset = optional_input(node, 2)
    if offset is not None:
        return edit.dtype(offset)
    told = node.attrs.get("output_dtype", TensorProto.UNDEFINED)
    return dtype_name(int(told)) if told else "uint8"


def _precision(node: gs.Node, edit: GraphEdit) -> str:
    """The type of the division; before opset 23 the standard says nothing, and ONNX Runtime divides in FLOAT."""
    if edit.opset < _PRECISION_SINCE:
        return "float32"
    told = node.attrs.get("precision", TensorProto.UNDEFINED)
    return dtype_name(int(told)) if told else edit.dtype(node.inputs[1]) or "float32"
