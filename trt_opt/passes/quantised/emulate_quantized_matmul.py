"""QLinearMatMul and MatMulInteger in float arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass, optional_input
from trt_opt.passes.quantised.exact_integers import integer_type, requantized, scale, zero_point
from trt_opt.passes.quantised.integer_products import factor, matmul

_PER_ROW = (-1, 1)
_PER_COLUMN = (-1,)


class EmulateQuantizedMatMul(NodePass):
    """Replaces QLinearMatMul and MatMulInteger by MatMul of the same integers in FLOAT.

    What it does: Both operands are cast to FLOAT and their zero-points subtracted; their product is exact as long as
    every sum stays below 2^24, so where it might not (from 259 products of arbitrary UINT8 on, later where weights are
    constant) it is computed in pieces that are added in INT32. QLinearMatMul's result is multiplied by
    a_scale x b_scale / y_scale, rounded half to even, shifted, clipped and cast.

    Why TensorRT wants it: It has no products of integers but those it finds between DequantizeLinear nodes, and no
    UINT8.

    Example: MatMulInteger(a, b, uint8 128) becomes Cast(INT32, MatMul(Cast(FLOAT, a) - 128, Cast(FLOAT, b))).

    When it declines: The number of products in a sum is not static; ranks or types are not known.
    """

    name = "emulate_quantized_matmul"
    operators = frozenset({"QLinearMatMul", "MatMulInteger"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        if node.op == "MatMulInteger":
            left = factor(node.inputs[0], optional_input(node, 2), _PER_ROW, emit)
            right = factor(node.inputs[1], optional_input(node, 3), _PER_COLUMN, emit)
            return (matmul(left, right, emit).as_int32(emit),)
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
        left, right = factor(a, a_zero, _PER_ROW, emit), factor(b, b_zero, _PER_COLUMN, emit)
        scales = (
            scale(a_scale, _PER_ROW, emit),
            scale(b_scale, _PER_COLUMN, emit),
            scale(y_scale, _PER_ROW, emit),
        )
        dtype = integer_type(emit, y_zero)
        total = matmul(left, right, emit).as_float(emit)
        return (requantized(total, scales, zero_point(y_zero, _PER_ROW, emit), dtype, emit),)
