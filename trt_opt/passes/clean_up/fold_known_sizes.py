"""Sizes that are fixed, read off a shape that is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, operator_of


class FoldKnownSizes(NodePass):
    """Replaces a Gather of fixed sizes from a shape by their values.

    What it does: Where the sizes that a Gather takes from a Shape follow from the graph's inputs, though others of the
    same shape are dynamic, the values take its place.

    Why TensorRT wants it: Dynamic exports compute every Reshape from such sizes; once they are constant, so is what
    is computed from them, and the passes and the parser see shapes that they could not follow before.

    Example: Gather(Shape(x), 1) of x [batch, 64, 20] becomes 64.

    When it declines: Never. Sizes that are dynamic are none of its business.
    """

    name = "fold_known_sizes"
    operators = frozenset({"Gather"})
    oldest_opset = 1

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only the Gathers whose values are known."""
        return super().wants(node, edit) and _sizes(node, edit) is not None

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        sizes = _sizes(node, emit.edit)
        if sizes is None:
            raise DeclinedError("its sizes are not fixed")
        return (emit.constant(sizes),)

    def summary(self, node: gs.Node, nodes: Sequence[gs.Node]) -> str:
        """The report's words."""
        del nodes
        return f"{node.op} of a Shape replaced by the sizes, which are fixed"


def _sizes(node: gs.Node, edit: GraphEdit) -> NDArray[np.int64] | None:
    """What the Gather takes, where it takes fixed sizes from a whole Shape; None otherwise."""
    source = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    chosen = edit.value(node.inputs[1])
    if source is None or operator_of(source.op, source.domain) != "Shape" or chosen is None:
        return None
    shape = edit.shape(source.inputs[0])
    places = [int(index) for index in np.ravel(chosen)]
    if shape is None or {"start", "end"} & source.attrs.keys():
        return None
    if any(not -len(shape) <= place < len(shape) for place in places):
        return None
    taken = [shape[place] for place in places]
    return None if None in taken else np.array(taken, np.int64).reshape(chosen.shape)
