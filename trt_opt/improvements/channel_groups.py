"""Groups of tensors that are scaled together, and the quantised layers that gain or lose by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from trt_opt.improvements.channel_flow import ChannelFlow
from trt_opt.improvements.channel_unknowns import Floats, Ids
from trt_opt.sensitivity.layers import QuantizedLayer

WORTHWHILE_RATIO = 4.0
"""Channel ranges that differ by less than two bits leave nothing to gain."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A quantised tensor as one layer reads it.

    Attributes:
        layer: The layer.
        position: As which input.
        tensor: The tensor.
        range_of: The tensor whose range gives the scale.
        ids: The roots of its unknowns.
        extremes: max |x|, of the same shape.
    """

    layer: QuantizedLayer
    position: int
    tensor: str
    range_of: str
    ids: Ids
    extremes: Floats

    @property
    def relative(self) -> Floats:
        """The extremes as shares of the largest; zeros where all are."""
        largest = self.extremes.max(initial=0.0)
        return self.extremes / largest if largest > 0 else np.zeros_like(self.extremes)

    @property
    def is_uneven(self) -> bool:
        """Whether channels' ranges differ enough; channels that are always zero do not count."""
        alive = self.relative[self.relative > 0]
        return bool(alive.size and alive.min() * WORTHWHILE_RATIO < 1)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What one choice of factors changes.

    Attributes:
        roots: The free unknowns, sorted.
        readings: The quantised tensors with these unknowns, as they are read.
        makers: The nodes in which the unknowns begin.
    """

    roots: Ids
    readings: tuple[Reading, ...]
    makers: tuple[onnx.NodeProto, ...]


def groups(flow: ChannelFlow, readings: tuple[Reading, ...]) -> Iterator[Group]:
    """The groups that a quantised tensor belongs to, in graph order.

    Args:
        flow: The walked graph.
        readings: Every quantised tensor of every quantised layer.
    """
    leaders = _leaders(flow)
    members: dict[int, list[Reading]] = {}
    for reading in readings:
        free = reading.ids[flow.unknowns.is_free(reading.ids)]
        if free.size:
            members.setdefault(leaders[int(free[0])], []).append(reading)
    makers: dict[int, list[onnx.NodeProto]] = {}
    for tensor, node in flow.makers.items():
        ids = flow.unknowns.roots(flow.ids[tensor])
        free = ids[flow.unknowns.is_free(ids)]
        if free.size:
            makers.setdefault(leaders[int(free[0])], []).append(node)
    for leader, found in members.items():
        roots = np.array(sorted(root for root, other in leaders.items() if other == leader), np.int64)
        yield Group(roots, tuple(found), tuple(makers.get(leader, ())))


def _leaders(flow: ChannelFlow) -> Mapping[int, int]:
    """Free root → the smallest root of its group; unknowns of one tensor are in one group."""
    parents: dict[int, int] = {}

    def leader(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    for tensor_ids in flow.ids.values():
        free = np.unique(flow.unknowns.roots(tensor_ids)[flow.unknowns.is_free(tensor_ids)]).tolist()
        for number in free:
            parents.setdefault(number, number)
        leaders = sorted({leader(number) for number in free})
        for other in leaders[1:]:
            parents[other] = leaders[0]
    return {number: leader(number) for number in parents}
