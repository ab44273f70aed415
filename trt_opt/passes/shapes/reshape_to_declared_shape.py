"""Squeeze and Unsqueeze along axes that only the declared shape of the output tells."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass
from trt_opt.passes.shapes.declared_sizes import has_runtime_axes, promised_sizes


class ReshapeToDeclaredShape(NodePass):
    """Replaces Squeeze and Unsqueeze along axes known at run time only by a Reshape to the declared shape.

    What it does: Neither operator moves an element, so whatever the axes, the result has the elements in their order
    and the shape that the model declares for its output. One size may be dynamic. The axes input stays an input of the
    graph; nobody reads it any more.

    Why TensorRT wants it: Axes must be build-time constants.

    Example: Unsqueeze(x [3, 4, 5], axes) → y [3, 1, 4, 5] becomes Reshape(x, [3, 1, 4, 5]).

    When it declines: The result is not an output of the model nor reaches one through operators that keep shapes; two
    of its sizes are dynamic, or one is 0; --freeze-input fixes the axes then.
    """

    name = "reshape_to_declared_shape"
    operators = frozenset({"Squeeze", "Unsqueeze"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """TensorRT takes constant axes."""
        return super().wants(node, edit) and has_runtime_axes(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        axes = node.inputs[1]
        freeze = f"--freeze-input {axes.name}=… gives it constant axes"
        wanted = promised_sizes(node.outputs[0], emit.edit)
        if wanted is None:
            raise DeclinedError(f"its axes are only known at run time, and no shape is declared for it: {freeze}")
        numbers = [size if isinstance(size, int) else -1 for size in wanted]
        if numbers.count(-1) > 1 or 0 in numbers:
            raise DeclinedError(f"its axes are only known at run time, and its declared shape is dynamic: {freeze}")
        return (emit.reshape(node.inputs[0], numbers),)
