"""Range whose length the model declares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.shapes.declared_sizes import promised_shape

_COMPUTED_IN_FLOAT32 = frozenset({"float16", "bfloat16"})


class RangeOfDeclaredLength(NodePass):
    """Replaces Range by a multiple of 0, 1, 2 … where its length is known.

    What it does: The length follows from constant bounds, or is the one that the model declares for its output, which
    may be reached through operators that keep shapes. Element i is start + i * delta; in 16 bits it is computed in
    float32 and rounded once.

    Why TensorRT wants it: Bounds known at run time decide the shape of the result, which TensorRT allows of integers
    only; it has no Range of float16 and bfloat16 at all.

    Example: Range(start, limit, delta) → y [4] becomes start + [0, 1, 2, 3] * delta.

    When it declines: Neither the bounds nor a declared shape tell the length.
    """

    name = "range_of_declared_length"
    operators = frozenset({"Range"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        start, _, delta = node.inputs
        dtype = emit.edit.dtype(start) or emit.edit.dtype(delta)
        if dtype is None:
            raise DeclinedError("the type of its bounds is not known")
        working = "float32" if dtype in _COMPUTED_IN_FLOAT32 else dtype
        numbers = np.arange(_length(node, emit)).astype(working)
        if working == dtype:
            result: gs.Tensor = emit("Add", start, emit("Mul", numbers, delta))
            return (result,)
        product = emit("Mul", numbers, emit.cast(delta, working))
        return (emit.cast(emit("Add", emit.cast(start, working), product), dtype),)


def _length(node: gs.Node, emit: Emitter) -> int:
    values = [emit.edit.value(tensor) for tensor in node.inputs]
    known = [value.reshape(()) for value in values if value is not None]
    if len(known) == len(values):
        start, limit, delta = (value.item() if value.dtype.kind in "iu" else float(value) for value in known)
        # The specification's formula.
        return max(0, int(np.ceil((limit - start) / delta)))
    shape = promised_shape(node.outputs[0], emit.edit)
    if shape is None:
        names = " ".join(
            f"--freeze-input {tensor.name}=…"
            for tensor, value in zip(node.inputs, values, strict=True)
            if value is None
        )
        raise DeclinedError(f"its length is only known at run time, and no shape is declared for it: {names}")
    return shape[0]
