"""CumProd as products over a triangle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.runtime_axis import selected_by_axis
from trt_opt.passes.node_pass import DeclinedError, NodePass

MOST_ELEMENTS = 1 << 22
"""The triangle makes n times the tensor of n; above this the pass declines."""


class UnrollCumulativeProduct(NodePass):
    """Replaces CumProd by a masked ReduceProd.

    What it does: Along an axis of n elements the tensor is laid against an n x n triangle of booleans; where the
    triangle is false a 1 takes the element's place, and one ReduceProd over the new axis gives all running products.
    `exclusive` leaves the diagonal out, `reverse` turns the triangle over. Where the axis is only known at run time,
    the products along every axis are computed and one of them selected.

    Why TensorRT wants it: It has no cumulative product.

    Example: CumProd(x, axis=1) of [2, 3] becomes ReduceProd(Where(triangle [3, 3], Unsqueeze(x, 1), 1), axes=[2]).

    When it declines: The axis, or one of those it may be, has no static length; the triangles would make more than 4
    million elements.
    """

    name = "unroll_cumulative_product"
    operators = frozenset({"CumProd"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        axis = emit.edit.value(node.inputs[1])
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if shape is None or dtype is None:
            raise DeclinedError("the rank or type of its input is not known")
        rank = len(shape)
        axes = range(rank) if axis is None else [int(axis.reshape(())) % rank]
        hint = f"; --freeze-input {node.inputs[1].name}=… leaves one axis" if axis is None else ""
        if any(shape[along] is None for along in axes):
            raise DeclinedError(f"the length of axis {next(n for n in axes if shape[n] is None)} is not static{hint}")
        lengths = {along: shape[along] or 0 for along in axes}
        elements = int(np.prod([size or 1 for size in shape], dtype=np.int64))
        if sum(lengths.values()) * elements > MOST_ELEMENTS:
            raise DeclinedError(f"the triangle over {max(lengths.values())} elements would be too large{hint}")
        products = {along: _running_product(node, emit, (along, rank, lengths[along])) for along in axes}
        return (selected_by_axis(emit, node.inputs[1], rank, products),)


def _running_product(node: gs.Node, emit: Emitter, where: tuple[int, int, int]) -> gs.Tensor:
    """The products along an axis; `where` is the axis, the rank and the length of the axis."""
    along, rank, length = where
    rows = np.arange(length)
    triangle = rows[:, None] > rows if node.attrs.get("exclusive", 0) else rows[:, None] >= rows
    if node.attrs.get("reverse", 0):
        triangle = triangle.T
    # [result, source] on the axes (along, along + 1); the rest broadcasts.
    mask = triangle.reshape(length, length, *(1,) * (rank - along - 1))
    source = node.inputs[0]
    one = emit.constant(1, emit.edit.dtype(source))
    chosen = emit("Where", mask, emit.unsqueeze(source, [along]), one)
    return emit.reduce("ReduceProd", chosen, [along + 1], keepdims=False)
