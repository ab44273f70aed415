"""MaxPool of 8-bit integers in float32."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.vision.unroll_max_pooling import FLOATS


class PoolIntegersAsFloats(NodePass):
    """Casts the input of an integer MaxPool to float32, and its output back.

    What it does: Cast → MaxPool → Cast. Float32 holds every 8-bit integer, so nothing is rounded.

    Why TensorRT wants it: It pools uint8 not at all, and int8 only between quantisation nodes.

    Example: MaxPool of uint8 becomes Cast(FLOAT) → MaxPool → Cast(UINT8).

    When it declines: The type of its input is not known.
    """

    name = "pool_integers_as_floats"
    operators = frozenset({"MaxPool"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Leaves alone what pools floats."""
        return super().wants(node, edit) and edit.dtype(node.inputs[0]) not in FLOATS

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        dtype = emit.edit.dtype(node.inputs[0])
        if dtype not in {"uint8", "int8"}:
            raise DeclinedError("the type of its input is not known")
        source = emit.cast(node.inputs[0], "float32")
        made = emit("MaxPool", source, outputs=len(node.outputs), **node.attrs)
        values, *indices = made if isinstance(made, tuple) else (made,)
        return (emit.cast(values, dtype), *indices)
