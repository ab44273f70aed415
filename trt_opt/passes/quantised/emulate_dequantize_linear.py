"""DequantizeLinear in float arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs
from onnx import TensorProto

from trt_opt.graph.query import dtype_name
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input
from trt_opt.passes.quantised.emulate_quantize_linear import is_plain
from trt_opt.passes.quantised.exact_integers import RANGES, in_type, integers, minus, scale
from trt_opt.passes.quantised.granularity import Granularity


class EmulateDequantizeLinear(NodePass):
    """Replaces DequantizeLinear by Cast, Sub and Mul.

    What it does: The integers are cast to FLOAT, the zero-point is subtracted, and the difference multiplied by the
    scale, which may be one number, one per slice of an axis, or one per block. FLOAT16 results are rounded once, at
    the end.

    Why TensorRT wants it: It dequantises INT8 with a constant zero-point of 0 only (and FP8 and 4-bit weights). UINT8
    with a zero-point of 0, or none, it takes inside the graph but reads as INT8; these nodes are replaced even where
    it does not refuse them.

    Example: DequantizeLinear(x, 0.02, uint8 128) becomes Mul(Sub(Cast(FLOAT, x), 128), 0.02).

    When it declines: INT8 with a constant zero-point of 0, which TensorRT takes as it is; FP8 and 4-bit numbers; the
    rank or type of the input is not known; the blocked axis is not static.
    """

    name = "emulate_dequantize_linear"
    operators = frozenset({"DequantizeLinear"})

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """TensorRT has no UINT8: it reads INT8 in its place."""
        return edit.dtype(node.inputs[0]) == "uint8"

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        data, steps, offset = node.inputs[0], node.inputs[1], optional_input(node, 2)
        dtype, scale_type = emit.edit.dtype(data), emit.edit.dtype(steps)
        if dtype not in {*RANGES, "int32"} or scale_type is None:
            raise DeclinedError(f"numbers of type {dtype or 'unknown'} are not emulated")
        if self.refused is None and is_plain(node, dtype, emit.edit):
            raise DeclinedError("TensorRT takes it as it is")
        grain = Granularity.of(node, emit)
        difference = minus(_numbers(data, dtype, emit), grain.zero_point(offset, emit), emit)
        step = grain.spread(in_type(scale(steps, grain.vector_shape, emit), "float32", emit), steps, emit)
        told = int(node.attrs.get("output_dtype", TensorProto.UNDEFINED))
        result: gs.Variable = emit("Mul", difference, step)
        wanted = dtype_name(told) if told else scale_type
        return (result if wanted == "float32" else emit.cast(result, wanted),)


def _numbers(data: gs.Tensor, dtype: str, emit: Emitter) -> Operand:
    if dtype == "int32":
        return emit.cast(data, "float32")
    return integers(data, emit)
