"""Between which numbers the elements of an integer tensor lie, as far as a few nodes tell."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.integers.integer_types import CARRIERS, limits_of

_MOVES = frozenset(
    {"Identity", "Reshape", "Transpose", "Slice", "Gather", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"}
    | {"Split", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"}
)
_DEEPEST = 16

Range = tuple[int, int]


def range_of(tensor: gs.Tensor, edit: GraphEdit, depth: int = 0) -> Range:
    """The least and the largest number there can be; at worst those of INT64."""
    values = edit.value(tensor)
    if values is not None and values.dtype.kind in "iub" and values.size:
        return int(values.min()), int(values.max())
    widest = _range_of_type(edit.dtype(tensor))
    if depth > _DEEPEST or len(tensor.inputs) != 1:
        return widest
    found = _range_of_result(tensor.inputs[0], edit, depth + 1)
    return widest if found is None else (max(found[0], widest[0]), min(found[1], widest[1]))


def _range_of_type(dtype: str | None) -> Range:
    if dtype == "bool":
        return 0, 1
    return limits_of(dtype if dtype is not None and dtype in CARRIERS and dtype != "uint64" else "int64")


def _range_of_result(node: gs.Node, edit: GraphEdit, depth: int) -> Range | None:
    match node.op:
        case "Cast":
            given = edit.dtype(node.inputs[0])
            inside = range_of(node.inputs[0], edit, depth) if given in CARRIERS or given == "bool" else None
            held = _range_of_type(edit.dtype(node.outputs[0]))
            return inside if inside and held[0] <= inside[0] and inside[1] <= held[1] else None
        case "Mod":
            divisor = range_of(node.inputs[1], edit, depth)
            return (0, divisor[1] - 1) if divisor[0] > 0 and not node.attrs.get("fmod", 0) else None
        case "Where":
            parts = [range_of(tensor, edit, depth) for tensor in node.inputs[1:]]
            return min(low for low, _ in parts), max(high for _, high in parts)
        case "Max" | "Min" | "Concat":
            return _range_of_several(node, edit, depth)
    return range_of(node.inputs[0], edit, depth) if node.op in _MOVES else None


def _range_of_several(node: gs.Node, edit: GraphEdit, depth: int) -> Range:
    parts = [range_of(tensor, edit, depth) for tensor in node.inputs]
    least = (max if node.op == "Max" else min)(low for low, _ in parts)
    largest = (min if node.op == "Min" else max)(high for _, high in parts)
    return least, largest
