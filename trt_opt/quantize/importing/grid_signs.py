"""Where a grid's end at zero does a Relu's work.

Quantisers that fuse a Relu into the layer before leave it out of the graph: integers that begin at zero cannot be
negative. On a symmetric grid they can.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.importing.grid_reading import Grid, Pair
from trt_opt.quantize.importing.shift_rules import bounds_of, passes_shifts

NOT_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Softplus"})


def missing_bounds(grid: Grid) -> tuple[float | None, float | None]:
    """The bounds at zero that the grid has and a symmetric one has not."""
    low, high = grid.ends
    return (0.0 if low == 0 else None), (0.0 if high == 0 else None)


def tensors_not_negative(index: GraphIndex, pairs: Iterable[Pair]) -> frozenset[str]:
    """The tensors that hold no negative numbers whatever the grids do."""
    grids = {pair.dequantize.name: pair.grid for pair in pairs if pair.dequantize is not None}
    found: set[str] = set()
    for node in index.model.graph.node:
        if _gives_none(node, index, grids, found):
            found.update(node.output)
    return frozenset(found)


def _gives_none(node: onnx.NodeProto, index: GraphIndex, grids: dict[str, Grid], found: set[str]) -> bool:
    if node.op_type in NOT_NEGATIVE:
        return True
    if node.op_type == "DequantizeLinear":
        return node.name in grids and grids[node.name].ends[0] >= 0
    if node.op_type == "Clip":
        bounds = bounds_of(node, index)
        return node.input[0] in found or (bounds is not None and bounds.low is not None and bounds.low >= 0)
    if node.op_type in ("Concat", "Add"):
        return all(name in found for name in node.input)
    return bool(node.input) and passes_shifts(node) and node.input[0] in found
