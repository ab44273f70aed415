"""Through which operators a factor per channel passes, and which constants take it up.

Every element of every tensor gets an unknown: "this is divided by s". A walk along the graph writes down what each
operator demands of its inputs' and outputs' unknowns so that the graph's outputs stay what they are, and by which
factors its constants then have to be multiplied. Whatever values the free unknowns are given afterwards, the model
computes the same in exact arithmetic. Sums, concatenations, channel shuffles and residual blocks need no cases of their
own: they are demands like all others.

The idea of moving scales between layers is that of Nagel et al., "Data-Free Quantization Through Weight Equalization
and Bias Correction", 2019, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.improvements.channel_unknowns import Ids, Unknowns

STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, eq=False)
class ConstantUse:
    """A constant operand that takes up factors.

    Attributes:
        node: Who reads it.
        position: As which input.
        ids: Unknowns that broadcast over the constant; where they are larger, the constant grows.
        exponent: 1 where the constant is multiplied by the factors, -1 where it is divided.
    """

    node: str
    position: int
    ids: Ids
    exponent: int


@dataclass(slots=True, eq=False)
class ChannelFlow:
    """What the walk found.

    Attributes:
        index: The graph.
        unknowns: The factors and what is demanded of them.
        ids: Tensor → its unknowns.
        uses: The constants that take up factors.
        clips: Clip → the unknowns of its output: it needs bounds per channel if they are not all 1.
        makers: Tensor whose unknowns begin there → its node.
    """

    index: GraphIndex
    unknowns: Unknowns = field(default_factory=Unknowns)
    ids: dict[str, Ids] = field(default_factory=dict)
    uses: list[ConstantUse] = field(default_factory=list)
    clips: dict[str, Ids] = field(default_factory=dict)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def of(self, tensor: str) -> Ids:
        """The unknowns of a tensor; pinned for a constant or a tensor that no rule has spoken of."""
        if tensor not in self.ids:
            rank = len(self.index.shape(tensor) or ())
            number = self.unknowns.pinned(f"{tensor!r} comes from outside, no layer makes it")
            self.ids[tensor] = np.full([1] * rank, number, np.int64)
        return self.ids[tensor]

    def is_constant(self, tensor: str) -> bool:
        """Whether the tensor's value is known now."""
        return self.index.is_constant(tensor)

    def agreed(self, operands: Sequence[Ids]) -> Ids:
        """What the operands' unknowns are together, once they are demanded to be equal."""
        together = operands[0]
        for ids in operands[1:]:
            self.unknowns.unite(together, ids)
            together = np.maximum(*np.broadcast_arrays(together, ids))
        return together

    def made(self, node: onnx.NodeProto, ids: Ids) -> None:
        """The node's first output has these unknowns, which begin here."""
        self.ids[node.output[0]] = ids
        self.makers[node.output[0]] = node

    def block(self, node: onnx.NodeProto, why: str | None = None) -> None:
        """No factor passes through the node."""
        reason = why or f"no factor per channel passes through {node.op_type} {node.name!r}"
        for name in node.input:
            if name and not self.is_constant(name):
                self.unknowns.pin(self.of(name), reason)
        for name in node.output:
            if name and name not in self.ids:
                number = self.unknowns.pinned(reason)
                self.ids[name] = np.full([1] * len(self.index.shape(name) or ()), number, np.int64)


Rule = Callable[[ChannelFlow, onnx.NodeProto], None]
"""Says what one node demands, and gives its first output unknowns; a node to which it gives none is blocked."""


def channel_flow(index: GraphIndex, rules: Mapping[str, Rule]) -> ChannelFlow:
    """Walks a graph.

    Args:
        index: A float graph with shapes inferred and nodes in topological order.
        rules: Operator → its rule; an operator without one lets nothing pass.
    """
    flow = ChannelFlow(index)
    for node in index.model.graph.node:
        if node.op_type == "Constant" or not any(node.output):
            continue
        rule = rules.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        if rule is not None:
            rule(flow, node)
        if rule is None or node.output[0] not in flow.ids:
            flow.block(node)
        for name in node.output[1:]:
            if name and name not in flow.ids:
                flow.of(name)
    for name in index.outputs & set(flow.ids):
        flow.unknowns.pin(flow.of(name), f"{name!r} is an output of the graph")
    for name in index.captured & set(flow.ids):
        flow.unknowns.pin(flow.of(name), f"{name!r} is read inside the body of an If, a Loop or a Scan")
    return flow
