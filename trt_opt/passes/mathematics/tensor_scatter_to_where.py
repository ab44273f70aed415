"""TensorScatter, the update of a cache, as a selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input


class TensorScatterToWhere(NodePass):
    """Replaces TensorScatter by Where.

    What it does: For every position of the cache, its distance from the write index (modulo the length of the cache in
    circular mode) says which position of the update belongs there, and whether one does. A GatherElements fetches it,
    unless the update has one position only, and Where selects between update and cache. Without write indices, the
    update is laid before what is left of the cache.

    Why TensorRT wants it: It takes caches of rank 4 and the linear mode only.

    Example: TensorScatter(cache [B, 8, D], update [B, 1, D], w [B], axis=1) becomes Where(0…7 - w == 0, update, cache).

    When it declines: The lengths of cache or update along the axis are not static.
    """

    name = "tensor_scatter_to_where"
    operators = frozenset({"TensorScatter"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        cache, update = node.inputs[:2]
        shape, new_shape = emit.edit.shape(cache), emit.edit.shape(update)
        if shape is None or new_shape is None:
            raise DeclinedError("the rank of its cache or update is not known")
        axis = int(node.attrs.get("axis", -2)) % len(shape)
        length, written = shape[axis], new_shape[axis]
        if length is None or written is None:
            raise DeclinedError(f"the length of its cache or update along axis {axis} is not static")
        starts = optional_input(node, 2)
        if starts is None:
            rest = emit.slice(cache, [written], [length], [axis], [1])
            return (emit("Concat", update, rest, axis=axis),)
        sizes = [1] * len(shape)
        sizes[axis] = length
        first = emit.reshape(starts, [-1, *(1,) * (len(shape) - 1)])
        distance = emit("Sub", np.arange(length).reshape(sizes), first)
        if node.attrs.get("mode", "linear") == "circular":
            distance = emit("Mod", distance, np.int64(length))
        return (_selected(emit, (cache, update), distance, axis, written),)


def _selected(
    emit: Emitter, tensors: tuple[gs.Tensor, gs.Tensor], distance: gs.Tensor, axis: int, written: int
) -> gs.Tensor:
    """Cache or update, by the distance from the write index."""
    cache, update = tensors
    if written == 1:
        only: gs.Tensor = emit("Where", emit("Equal", distance, np.int64(0)), update, cache)
        return only
    at_or_behind = emit("Not", emit("Less", distance, np.int64(0)))
    within = emit("And", at_or_behind, emit("Less", distance, np.int64(written)))
    position = emit("Min", emit("Max", distance, np.int64(0)), np.int64(written - 1))
    fetched = emit("GatherElements", update, emit("Expand", position, emit("Shape", cache)), axis=axis)
    selected: gs.Tensor = emit("Where", within, fetched, cache)
    return selected
