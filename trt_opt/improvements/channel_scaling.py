"""Writes factors per channel into a model's constants."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx

from trt_opt.graph.writer import GraphWriter
from trt_opt.improvements.channel_flow import ChannelFlow, ConstantUse
from trt_opt.improvements.channel_unknowns import Floats


def with_factors(flow: ChannelFlow, factors: Floats) -> onnx.ModelProto:
    """A model that computes the same, in which every channel with an unknown is divided by its factor.

    Every layer whose constants change gets its own: others may read the old ones.

    Args:
        flow: What the factors belong to.
        factors: float64 [unknowns], positive; read at the unknowns' roots.
    """
    writer = GraphWriter(flow.index.model)
    uses: dict[tuple[str, int], list[ConstantUse]] = defaultdict(list)
    for use in flow.uses:
        uses[use.node, use.position].append(use)
    for (node, position), together in uses.items():
        values = scaled_constant(flow, together, factors)
        if values is not None:
            name = writer.nodes[node].input[position]
            writer.nodes[node].input[position] = writer.constant(f"{name}_scaled", values)
    for node, ids in flow.clips.items():
        found = factors[flow.unknowns.roots(ids)]
        if np.any(found != 1):
            _clip_per_channel(writer, flow, writer.nodes[node], found)
    return writer.finished()


def scaled_constant(flow: ChannelFlow, uses: list[ConstantUse], factors: Floats) -> np.ndarray | None:
    """The constant that these uses speak of as it has to be; None where it stays.

    Args:
        flow: The graph.
        uses: All of the same node and position, or those of them that shall count.
        factors: As for `with_factors`.
    """
    total = np.ones(())
    for use in uses:
        total = total * factors[flow.unknowns.roots(use.ids)] ** float(use.exponent)
    if np.all(total == 1):
        return None
    found = flow.index.constant(flow.index.nodes[uses[0].node].input[uses[0].position])
    return np.asarray(np.asarray(found, np.float64) * total, np.float32)


def _clip_per_channel(writer: GraphWriter, flow: ChannelFlow, node: onnx.NodeProto, factors: Floats) -> None:
    """Takes a Clip apart: Relu, or Max with the lower bounds, and Min with the upper ones."""
    bounds = [flow.index.constant(name) if name else None for name in [*node.input[1:], "", ""][:2]]
    low, high = (None if found is None else np.asarray(found, np.float64) / factors for found in bounds)
    steps: list[tuple[str, list[str]]] = []
    if low is not None and not np.any(low):
        steps.append(("Relu", []))
    elif low is not None and np.any(low > np.finfo(np.float32).min):
        steps.append(("Max", [writer.constant(f"{node.output[0]}_lowest", low.astype(np.float32))]))
    if high is not None and np.any(high < np.finfo(np.float32).max):
        steps.append(("Min", [writer.constant(f"{node.output[0]}_highest", high.astype(np.float32))]))
    source = node.input[0]
    for number, (op_type, operands) in enumerate(steps or [("Identity", [])], start=1):
        is_last = number >= len(steps)
        target = node.output[0] if is_last else writer.tensor(f"{node.output[0]}_above")
        writer.behind(node.name, writer.made(op_type, [source, *operands], target))
        source = target
    writer.remove(node.name)
