"""Scatters that combine values, written as scatters that overwrite them, or as masked reductions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError

MOST_MASKED = 1 << 24
"""Elements of mask x updates; a scatter of more is declined unless its indices are constant."""

MOST_ROUNDS = 64
"""How often constant indices may name one element."""


@dataclass(frozen=True)
class Combination:
    """How updates enter the data.

    Attributes:
        pair: The operator for two tensors.
        reduction: The operator along an axis.
        neutral: What changes nothing; None where the data itself is used for that (a repeated maximum is no other).
    """

    pair: str
    reduction: str
    neutral: int | None


COMBINATIONS: Mapping[str, Combination] = MappingProxyType(
    {
        "add": Combination("Add", "ReduceSum", 0),
        "mul": Combination("Mul", "ReduceProd", 1),
        "max": Combination("Max", "ReduceMax", None),
        "min": Combination("Min", "ReduceMin", None),
    }
)
"""The `reduction` attribute → how it combines."""


def combination_of(node: gs.Node) -> Combination | None:
    """None where the node only overwrites."""
    return COMBINATIONS.get(str(node.attrs.get("reduction", "none")))


def counted_from_front(indices: NDArray[np.integer], sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Constant indices without negative ones; `sizes` broadcasts."""
    return np.where(indices < 0, indices + sizes, indices).astype(np.int64)


def counted_from_front_at_run_time(indices: gs.Tensor, sizes: NDArray[np.integer], emit: Emitter) -> gs.Tensor:
    """Indices without negative ones; `sizes` broadcasts and has their type."""
    negative = emit("Less", indices, np.zeros((), sizes.dtype))
    counted: gs.Tensor = emit("Where", negative, emit("Add", indices, sizes), indices)
    return counted


def scattered_in_rounds(
    emit: Emitter, data: gs.Tensor, places: NDArray[np.int64], updates: gs.Tensor, how: Combination
) -> gs.Tensor:
    """Gathers, combines and scatters as often as the same place is named.

    Args:
        emit: Where the nodes are written.
        data: What is updated.
        places: Coordinates `[updates, coordinates]`, none of them negative.
        updates: One for each place, along axis 0.
        how: What becomes of old and new value.
    """
    rounds = _rounds(places)
    if len(rounds) > MOST_ROUNDS:
        raise DeclinedError(f"its indices name one element {len(rounds)} times; up to {MOST_ROUNDS} are unrolled")
    result = data
    for chosen in rounds:
        every = len(rounds) == 1
        new = updates if every else emit("Gather", updates, chosen, axis=0)
        combined = emit(how.pair, emit("GatherND", result, places[chosen]), new)
        result = emit("ScatterND", result, places[chosen], combined)
    return result


def masked_reduction(
    emit: Emitter, data: gs.Tensor, named: tuple[gs.Tensor, gs.Tensor], axis: int, how: Combination, dtype: str
) -> gs.Tensor:
    """Reduces, for every element of the data, the updates whose mask names it.

    Args:
        emit: Where the nodes are written.
        data: What is updated.
        named: The mask and the updates; both have one axis more than the data, over which the updates run.
        axis: That axis.
        how: What becomes of old and new values.
        dtype: Of the data.
    """
    mask, updates = named
    filler = emit.unsqueeze(data, [axis]) if how.neutral is None else emit.constant(how.neutral, dtype)
    reduced = emit.reduce(how.reduction, emit("Where", mask, updates, filler), [axis], keepdims=False)
    combined: gs.Tensor = emit(how.pair, data, reduced)
    return combined


def _rounds(places: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions of the places, so distributed that no round names one twice, in order."""
    seen: dict[tuple[int, ...], int] = {}
    rounds: list[list[int]] = []
    for position, place in enumerate(map(tuple, places.tolist())):
        number = seen.get(place, 0)
        seen[place] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(position)
    return [np.asarray(chosen, np.int64) for chosen in rounds]
