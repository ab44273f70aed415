"""Symmetric grids in place of asymmetric ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.importing.grid_reading import Grid, Pair
from trt_opt.quantize.importing.shift_rules import BOUNDED, bounds_of

Range = tuple[float, float]


def symmetric_scales(pairs: Iterable[Pair], ranges: Mapping[str, Range], index: GraphIndex) -> dict[Grid, float]:
    """The scale of the symmetric INT8 grid that takes each grid's place.

    Tensors on one grid, such as the inputs of a Concat, are on one again: it holds what any of them needs.

    Args:
        pairs: Of 8 bits.
        ranges: Tensor → the lowest and highest number seen in data; cuts what the grid represents, never widens it.
            A tensor is looked up by its dequantised name, then by the name of what is quantised.
        index: The graph; a Relu or Clip before a pair cuts what is needed, too.
    """
    needed: dict[Grid, list[Range]] = {}
    for pair in pairs:
        needed.setdefault(pair.grid, []).append(_needed(pair, ranges, index))
    return {
        grid: symmetric_scale(min(low for low, _ in found), max(high for _, high in found))
        for grid, found in needed.items()
    }


def symmetric_scale(low: float, high: float) -> float:
    """The smallest float32 scale with which -128 … 127 reaches from low to high."""
    wanted = max(high / 127, -low / 128, float(np.finfo(np.float32).tiny))
    return float(np.float32(wanted))


def _needed(pair: Pair, ranges: Mapping[str, Range], index: GraphIndex) -> Range:
    low, high = _bounded(pair, index)
    seen = ranges.get(pair.tensor)
    if seen is None and pair.quantize is not None:
        seen = ranges.get(pair.quantize.input[0])
    if seen is None or not (np.isfinite(seen[0]) and np.isfinite(seen[1])):
        return low, high
    least, most = max(low, min(seen[0], 0.0)), min(high, max(seen[1], 0.0))
    return (least, most) if most > least else (low, high)


def _bounded(pair: Pair, index: GraphIndex) -> Range:
    """What the grid represents and the Relu or Clip before it lets through: quantisers to 7 bits clip so."""
    low, high = pair.grid.ends
    maker = None if pair.quantize is None else index.producer(pair.quantize.input[0])
    if maker is None or maker.op_type not in BOUNDED:
        return low, high
    bounds = bounds_of(maker, index)
    if bounds is None:
        return low, high
    least = low if bounds.low is None else max(low, min(bounds.low, 0.0))
    most = high if bounds.high is None else min(high, max(bounds.high, 0.0))
    return (least, most) if most > least else (low, high)
