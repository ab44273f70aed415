"""Recurrent layers over batch-first sequences, as time-first ones."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass, optional_input

_FIRST_OPSET = 14
"""Brought the attribute `layout`."""

_SOURCE, _INITIAL_HIDDEN, _INITIAL_CELL = 0, 5, 6
_SWAP = (1, 0, 2)
_SEQUENCE_BATCH_FIRST = (2, 0, 1, 3)
"""[sequence, direction, batch, hidden] → [batch, sequence, direction, hidden]."""


class TimeFirstRecurrence(NodePass):
    """Transposes what goes into and comes out of batch-first LSTM, GRU and RNN nodes.

    What it does: A node with layout=1 becomes one with layout=0; the sequence, the initial states and all outputs are
    transposed around it. Weights, biases and sequence lengths are the same in both layouts.

    Why TensorRT wants it: It does not read `layout`: it takes the batch for time, and gives other numbers.

    Example: Y, Y_h = GRU<layout=1>(X, W, R) becomes Transpose(GRU(Transpose(X), W, R)) for Y and for Y_h.

    When it declines: Never; nodes with layout 0 are left alone.
    """

    name = "time_first_recurrence"
    operators = frozenset({"GRU", "LSTM", "RNN"})
    oldest_opset = _FIRST_OPSET

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only batch-first nodes, refused or not."""
        return super().wants(node, edit) and self.misread(node, edit)

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Layout 1 is always misread."""
        del edit
        return bool(node.attrs.get("layout", 0))

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        inputs = [optional_input(node, position) for position in range(len(node.inputs))]
        for position in (_SOURCE, _INITIAL_HIDDEN, _INITIAL_CELL):
            if position < len(inputs) and inputs[position] is not None:
                inputs[position] = emit("Transpose", inputs[position], perm=list(_SWAP))
        attributes = {name: value for name, value in node.attrs.items() if name != "layout"}
        emit(node.op, *inputs, outputs=len(node.outputs), **attributes)
        made = emit.nodes[-1]
        perms = (_SEQUENCE_BATCH_FIRST, _SWAP, _SWAP)
        results: list[gs.Tensor | None] = []
        for position, output in enumerate(node.outputs):
            if output.name:
                results.append(emit("Transpose", made.outputs[position], perm=list(perms[position])))
            else:
                made.outputs[position].name = ""
                results.append(None)
        return results
