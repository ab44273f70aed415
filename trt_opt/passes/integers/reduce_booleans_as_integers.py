"""ReduceMax and ReduceMin of booleans, in INT32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass


class ReduceBooleansAsIntegers(NodePass):
    """Reduces booleans as INT32.

    What it does: ReduceMax or ReduceMin of booleans becomes the same reduction of 0 and 1 in INT32,
    and a comparison with 0.

    Why TensorRT wants it: It reduces numbers only.

    Example: ReduceMax(x) of booleans becomes ReduceMax(Cast(x, INT32)) > 0.

    When it declines: The input is not boolean.
    """

    name = "reduce_booleans_as_integers"
    operators = frozenset({"ReduceMax", "ReduceMin"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        if emit.edit.dtype(node.inputs[0]) != "bool":
            raise DeclinedError("its input is not boolean: TensorRT reduces numbers as they are")
        reduced = emit(node.op, emit.cast(node.inputs[0], "int32"), *node.inputs[1:], **node.attrs)
        # Not a Cast: of nothing the largest element is INT32's least, which is not 0 but has to be false.
        return (emit("Greater", reduced, np.int32(0)),)
