"""Loops without a condition get one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass, optional_input


class GiveLoopsACondition(NodePass):
    """Gives a Loop without a starting condition the constant true.

    What it does: Leaving the condition out means true; the constant says so.

    Why TensorRT wants it: Its parser takes the missing input for a tensor it does not know.

    Example: Loop(n, "", x) becomes Loop(n, true, x).

    When it declines: Never.
    """

    name = "give_loops_a_condition"
    operators = frozenset({"Loop"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Loops with a condition are fine."""
        return super().wants(node, edit) and optional_input(node, 1) is None

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        made = emit(
            "Loop",
            None if node.inputs[0].is_empty() else node.inputs[0],
            np.array(True),
            *node.inputs[2:],
            outputs=len(node.outputs),
            **node.attrs,
        )
        return (made,) if len(node.outputs) == 1 else tuple(made)
