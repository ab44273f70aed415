"""OneHot whose depth the model declares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.shapes.declared_sizes import promised_sizes


class OneHotOfDeclaredDepth(NodePass):
    """Replaces OneHot by a comparison of the indices with 0, 1, 2 … where the declared shape tells the depth.

    What it does: The size of the new axis in the declared output, which may be reached through operators that keep
    shapes, is the depth. Negative indices count from the end; where index and position agree stands the second value,
    elsewhere, and for indices out of range, the first. The depth input stays an input; nobody reads it any more.

    Why TensorRT wants it: A depth known at run time decides the shape of the result, which TensorRT allows of integers
    only.

    Example: OneHot(i [3], depth, v) → y [3, 5] becomes Where(Equal(Unsqueeze(i, 1), [0 … 4]), v[1], v[0]).

    When it declines: No shape is declared for the result, or the new axis is dynamic; --freeze-input fixes the depth.
    """

    name = "one_hot_of_declared_depth"
    operators = frozenset({"OneHot"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """TensorRT takes a constant depth."""
        return super().wants(node, edit) and edit.value(node.inputs[1]) is None

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        indices, depth, values = node.inputs
        sizes = promised_sizes(node.outputs[0], emit.edit)
        axis = int(node.attrs.get("axis", -1))
        size = None if sizes is None else sizes[axis]
        if sizes is None or not isinstance(size, int):
            why = "its depth is only known at run time, and no shape is declared for it"
            raise DeclinedError(f"{why}: --freeze-input {depth.name}=… fixes it")
        axis %= len(sizes)
        whole = emit.cast(indices, "int64")
        counted = emit("Where", emit("Less", whole, np.int64(0)), emit("Add", whole, np.int64(size)), whole)
        positions = np.arange(size).reshape(size, *(1,) * (len(sizes) - axis - 1))
        hit = emit("Equal", emit.unsqueeze(counted, [axis]), positions)
        off, on = (emit("Gather", values, np.int64(index), axis=0) for index in (0, 1))
        result: gs.Tensor = emit("Where", hit, on, off)
        return (result,)
