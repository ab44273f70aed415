"""Operators that pick, move or join elements: the unknowns move with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx

from trt_opt.graph.index import attribute_of
from trt_opt.improvements.channel_flow import ChannelFlow, Rule
from trt_opt.improvements.channel_layers import int_attribute
from trt_opt.improvements.channel_unknowns import Ids, compressed

LARGEST_RESHAPE = 1 << 22
"""Elements whose unknowns are followed through a Reshape one by one."""


def transpose(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """The axes change places."""
    ids, axes = flow.of(node.input[0]), attribute_of(node, "perm")
    flow.ids[node.output[0]] = np.transpose(ids, axes if isinstance(axes, list) else None)


def reshape(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: every element keeps its own; a batch axis of any size stays in front."""
    ids = flow.of(node.input[0])
    before, after = flow.index.shape(node.input[0]), flow.index.shape(node.output[0])
    if after is None or before is None:
        return
    if ids.size == 1:
        flow.ids[node.output[0]] = ids.reshape([1] * len(after))
        return
    moved = _reshaped(ids, before, after)
    if moved is None and ids.shape[0] == 1 and len(after) > 0:
        inner = _reshaped(ids[0], before[1:], after[1:])
        moved = None if inner is None else inner[None]
    if moved is not None:
        flow.ids[node.output[0]] = moved


def concat(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Joined along an axis with the same factors everywhere, operands must agree; along another they lie in a row."""
    operands = [flow.of(name) for name in node.input]
    rank = operands[0].ndim
    if rank == 0 or any(ids.ndim != rank for ids in operands):
        return
    axis = int_attribute(node, "axis", 0) % rank
    if any(ids.shape[axis] > 1 for ids in operands):
        sizes = [(flow.index.shape(name) or (None,) * rank)[axis] for name in node.input]
        row = _in_a_row(operands, sizes, axis)
        if row is not None:
            flow.ids[node.output[0]] = row
        return
    flow.ids[node.output[0]] = flow.agreed(operands)


def split(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Every output has its share."""
    ids = flow.of(node.input[0])
    axis = int_attribute(node, "axis", 0) % max(ids.ndim, 1)
    start = 0
    for name in (name for name in node.output if name):
        size = (flow.index.shape(name) or (None,) * max(ids.ndim, 1))[axis]
        if ids.ndim == 0 or (ids.shape[axis] > 1 and size is None):
            return
        flow.ids[name] = ids if ids.shape[axis] == 1 else np.take(ids, range(start, start + (size or 0)), axis)
        start += size or 0


def cut(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Slice by constants."""
    ids = flow.of(node.input[0])
    operands = [flow.index.constant(name) if name else None for name in node.input[1:]]
    if len(node.input) < 3 or any(found is None for found, name in zip(operands, node.input[1:], strict=True) if name):
        if ids.size == 1:
            flow.ids[node.output[0]] = ids
        return
    starts, ends = (np.asarray(found).reshape(-1).tolist() for found in operands[:2])
    axes = np.asarray(operands[2]).reshape(-1).tolist() if len(operands) > 2 and operands[2] is not None else None
    steps = np.asarray(operands[3]).reshape(-1).tolist() if len(operands) > 3 and operands[3] is not None else None
    places = [slice(None)] * ids.ndim
    for number, axis in enumerate(axes if axes is not None else range(len(starts))):
        if ids.shape[axis] > 1:
            step = 1 if steps is None else steps[number]
            if step < 0:
                return
            places[axis] = slice(starts[number], ends[number], step)
    flow.ids[node.output[0]] = ids[tuple(places)]


def pad(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Zeros may have any factor; other constants, and copies of other channels, none."""
    ids = flow.of(node.input[0])
    widths = attribute_of(node, "pads")
    if len(node.input) > 1 and node.input[1]:
        found = flow.index.constant(node.input[1])
        widths = None if found is None else found.tolist()
    has_axes = len(node.input) > 3 and bool(node.input[3])
    mode = attribute_of(node, "mode", b"constant")
    if not isinstance(widths, list) or has_axes or len(widths) != 2 * ids.ndim:
        return
    if mode == b"constant" and not _pads_zero(flow, node):
        return
    pairs = list(zip(widths[: ids.ndim], widths[ids.ndim :], strict=True))
    wide = [axis for axis, pair in enumerate(pairs) if any(pair) and ids.shape[axis] > 1]
    if not wide:
        flow.ids[node.output[0]] = ids
    elif len(wide) == 1 and mode == b"constant" and min(pairs[wide[0]]) >= 0:
        flow.ids[node.output[0]] = _with_fresh(flow, ids, wide[0], pairs[wide[0]])


def resize(flow: ChannelFlow, node: onnx.NodeProto) -> None:
    """Interpolation within each channel is linear in the channel."""
    ids = flow.of(node.input[0])
    before, after = flow.index.shape(node.input[0]), flow.index.shape(node.output[0])
    if before is None or after is None or attribute_of(node, "coordinate_transformation_mode") == b"tf_crop_and_resize":
        return
    if all(size == 1 or before[axis] == after[axis] == size for axis, size in enumerate(ids.shape)):
        flow.ids[node.output[0]] = ids


def _reshaped(ids: Ids, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> Ids | None:
    """The unknowns of every element in the new shape; None where sizes are not known, or too large to follow."""
    if any(size is None for size in (*before, *after)):
        return None
    old, new = [size or 0 for size in before], [size or 0 for size in after]
    if math.prod(old) != math.prod(new) or math.prod(old) > LARGEST_RESHAPE or not math.prod(old):
        return None
    return compressed(np.broadcast_to(ids, old).reshape(new))


def _in_a_row(operands: list[Ids], sizes: list[int | None], axis: int) -> Ids | None:
    rows = []
    shape = np.broadcast_shapes(*((*ids.shape[:axis], 1, *ids.shape[axis + 1 :]) for ids in operands))
    for ids, size in zip(operands, sizes, strict=True):
        length = size if ids.shape[axis] == 1 else ids.shape[axis]
        if length is None:
            return None
        rows.append(np.broadcast_to(ids, (*shape[:axis], length, *shape[axis + 1 :])))
    return np.concatenate(rows, axis)


def _with_fresh(flow: ChannelFlow, ids: Ids, axis: int, widths: tuple[int, int]) -> Ids:
    parts = []
    for width in widths:
        shape = [*ids.shape[:axis], width, *ids.shape[axis + 1 :]]
        parts.append(flow.unknowns.fresh(math.prod(shape)).reshape(shape))
    return np.concatenate([parts[0], ids, parts[1]], axis)


def _pads_zero(flow: ChannelFlow, node: onnx.NodeProto) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return attribute_of(node, "value", 0.0) == 0.0
    value = flow.index.constant(node.input[2])
    return value is not None and not np.any(value)


def _of(rule: Rule, *operators: str) -> dict[str, Rule]:
    return dict.fromkeys(operators, rule)


MOVEMENT_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Concat": concat,
        "Pad": pad,
        "Slice": cut,
        "Split": split,
        "Transpose": transpose,
        **_of(reshape, "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
        **_of(resize, "Resize", "Upsample"),
    }
)
"""Their output's first operand is the only one with factors, but for Concat."""
