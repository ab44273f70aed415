"""ScatterElements that adds, multiplies or takes the maximum or minimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.scatter_reduction import (
    MOST_MASKED,
    Combination,
    combination_of,
    counted_from_front,
    counted_from_front_at_run_time,
    masked_reduction,
    scattered_in_rounds,
)
from trt_opt.passes.node_pass import DeclinedError, NodePass

Shape = tuple[int | None, ...]


class ScatterElementsWithReduction(NodePass):
    """Replaces ScatterElements with a reduction by ScatterND without one, or by a masked reduction.

    What it does: Where the indices are constant, the elements they name are gathered, combined with the updates and
    scattered back, in as many rounds as the same element is named. Where they are only known at run time, every
    position along the axis is compared with every index, and the updates that name it are reduced, so that elements
    named several times come out right as well.

    Why TensorRT wants it: Its ScatterElements only overwrites.

    Example: ScatterElements(x [4, 8], i [2, 8], u [2, 8], axis=0, reduction="max") becomes
    ReduceMax(Where(i [1, 2, 8] == 0…3 [4, 1, 1], u, x [4, 1, 8]), axes=[1]).

    When it declines: The length of the axis is not static; the indices cover less than the data off the axis and those
    sizes are not static; the mask would be larger than 16 million elements; constant indices name one element more than
    64 times.
    """

    name = "scatter_elements_with_reduction"
    operators = frozenset({"ScatterElements"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only those with a reduction."""
        return combination_of(node) is not None and super().wants(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        how = combination_of(node)
        data, indices, updates = node.inputs
        shape, index_shape = emit.edit.shape(data), emit.edit.shape(indices)
        if how is None or shape is None or index_shape is None or emit.edit.dtype(data) is None:
            raise DeclinedError("the rank or type of its data is not known")
        axis = int(node.attrs.get("axis", 0)) % len(shape)
        length = shape[axis]
        if length is None:
            raise DeclinedError(f"the length of axis {axis} is not static")
        values = emit.edit.value(indices)
        if values is None:
            return (_masked(node, emit, (shape, index_shape), axis, how),)
        places = _places(counted_from_front(values.astype(np.int64), np.asarray(length)), axis)
        return (scattered_in_rounds(emit, data, places, emit.reshape(updates, [-1]), how),)


def _places(indices: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """The full coordinates `[updates, rank]` that the indices along one axis stand for."""
    coordinates = [indices if number == axis else grid for number, grid in enumerate(np.indices(indices.shape))]
    return np.stack(coordinates, axis=-1).reshape(-1, indices.ndim)


def _masked(node: gs.Node, emit: Emitter, shapes: tuple[Shape, Shape], axis: int, how: Combination) -> gs.Tensor:
    """The position along the axis stays where it is, the updates run over a new axis behind it."""
    data, indices, updates = node.inputs
    shape, index_shape = shapes
    length = shape[axis] or 0
    if length * int(np.prod([size or 1 for size in index_shape], dtype=np.int64)) > MOST_MASKED:
        raise DeclinedError("its mask would be larger than 16 million elements; constant indices need none")
    dtype = np.dtype(emit.edit.dtype(indices) or "int64")
    counted = counted_from_front_at_run_time(indices, np.asarray(length, dtype), emit)
    missing = _missing(shapes, axis)
    if any(missing):
        # Where the indices cover less than the data, -1 names no position.
        behind = np.asarray([0] * len(missing) + missing, np.int64)
        counted = emit("Pad", counted, behind, np.asarray(-1, dtype))
        updates = emit("Pad", updates, behind)
    positions = np.arange(length, dtype=dtype).reshape(length, *(1,) * (len(shape) - axis))
    mask = emit("Equal", emit.unsqueeze(counted, [axis]), positions)
    named = (mask, emit.unsqueeze(updates, [axis]))
    return masked_reduction(emit, data, named, axis + 1, how, emit.edit.dtype(data) or "float32")


def _missing(shapes: tuple[Shape, Shape], axis: int) -> list[int]:
    """By how much the indices are smaller than the data, off the axis."""
    missing = []
    for number, (size, covered) in enumerate(zip(*shapes, strict=True)):
        if number == axis or (size is None and covered is None):
            missing.append(0)
        elif size is None or covered is None:
            raise DeclinedError(f"whether its indices cover all of axis {number} is not known")
        else:
            missing.append(size - covered)
    return missing
