"""CumProd as products over a triangle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

MOST_ELEMENTS = 1 << 22
"""The triangle makes n times the tensor of n; above this the pass declines."""


class UnrollCumulativeProduct(NodePass):
    """Replaces CumProd by a masked ReduceProd.

    What it does: Along an axis of n elements the tensor is laid against an n x n triangle of booleans; where the
    triangle is false a 1 takes the element's place, and one ReduceProd over the new axis gives all running products.
    `exclusive` leaves the diagonal out, `reverse` turns the triangle over.

    Why TensorRT wants it: It has no cumulative product.

    Example: CumProd(x, axis=1) of [2, 3] becomes ReduceProd(Where(triangle [3, 3], Unsqueeze(x, 1), 1), axes=[2]).

    When it declines: The axis is no constant; the axis has no static length; the triangle would make more than 4
    million elements.
    """

    name = "unroll_cumulative_product"
    operators = frozenset({"CumProd"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        axis = emit.edit.value(node.inputs[1])
        if axis is None:
            raise DeclinedError(f"its axis is only known at run time: --freeze-input {node.inputs[1].name}=…")
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if shape is None or dtype is None:
            raise DeclinedError("the rank or type of its input is not known")
        along = int(axis.reshape(())) % len(shape)
        length = shape[along]
        if length is None:
            raise DeclinedError(f"the length of axis {along} is not static")
        if length * np.prod([size or 1 for size in shape], dtype=np.int64) > MOST_ELEMENTS:
            raise DeclinedError(f"the triangle over {length} elements would be too large")
        rows = np.arange(length)
        triangle = rows[:, None] > rows if node.attrs.get("exclusive", 0) else rows[:, None] >= rows
        if node.attrs.get("reverse", 0):
            triangle = triangle.T
        # [result, source] on the axes (along, along + 1); the rest broadcasts.
        mask = triangle.reshape(length, length, *(1,) * (len(shape) - along - 1))
        chosen = emit("Where", mask, emit.unsqueeze(source, [along]), np.ones((), dtype))
        return (emit.reduce("ReduceProd", chosen, [along + 1], keepdims=False),)
