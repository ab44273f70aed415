"""Loops that run a known number of times, written out."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.graph.edit import every_graph
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.clean_up.body_copies import body_copy
from trt_opt.passes.control_flow.loops import carried_count, turns
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

MOST_TURNS = 64
"""A Loop that runs more often stays."""

MOST_NODES = 10_000
"""What is written out has at most this many nodes."""


class UnrollLoops(NodePass):
    """Writes the body of a Loop out as often as it runs.

    What it does: Where the trip count and the condition are constant, the nodes of the body are copied once per turn,
    each copy reading what the one before it hands on; outputs that gain a row per turn become one Concat. A trip count
    that is not constant may be told by the declared length of such an output. Loops that carry sequences, or handle
    them in their body, are always written out, because TensorRT knows tensors only.

    Why TensorRT wants it: It refuses Loops whose carried values change their shape, trip counts computed from floats,
    and sequences.

    Example: Loop(3, true, x) {x + 1} becomes Add(Add(Add(x, 1), 1), 1).

    When it declines: The number of turns is only known at run time, or above 64; more than 10 000 nodes would come of
    it; it carries an optional; a Loop of no turns has outputs that gain a row per turn.
    """

    name = "unroll_loops"
    operators = frozenset({"Loop"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """A Loop is refused itself, or for the sequences in it."""
        if node.op != "Loop" or node.domain:
            return False
        if super().wants(node, edit):
            return True
        return any("Sequence" in inner.op for graph in every_graph(node.attrs["body"]) for inner in graph.nodes)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        body: gs.Graph = node.attrs["body"]
        if any((emit.edit.dtype(tensor) or "").startswith("optional") for tensor in body.inputs):
            raise DeclinedError("it carries an optional, which is no longer one after the first turn")
        count = turns(node, emit.edit)
        nodes = sum(len(graph.nodes) for graph in every_graph(body))
        if count > MOST_TURNS or count * nodes > MOST_NODES:
            raise DeclinedError(f"it runs {count} times over {nodes} nodes, which would be too much written out")
        states = carried_count(node)
        carried = list(node.inputs[2:])
        rows: list[list[gs.Tensor]] = [[] for _ in body.outputs[1 + states :]]
        for turn in range(count):
            number = emit.constant(turn, "int64")
            made = body_copy(body, [number, emit.constant(True, "bool"), *carried], emit)
            carried = made[1 : 1 + states]
            for column, tensor in zip(rows, made[1 + states :], strict=True):
                column.append(tensor)
        return (*carried, *(_stacked(column, node.outputs[states + at], emit) for at, column in enumerate(rows)))


def _stacked(rows: Sequence[gs.Tensor], output: gs.Tensor, emit: Emitter) -> gs.Tensor | None:
    """One row per turn; nothing where nobody could read it."""
    if not output.name:
        return None
    if not rows:
        raise DeclinedError(f"it runs never, and {output.name!r} would have no row")
    lifted = [emit.unsqueeze(row, [0]) for row in rows]
    joined: gs.Tensor = emit("Concat", *lifted, axis=0)
    return joined
