"""ScatterND that adds, multiplies or takes the maximum or minimum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

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


class ScatterNdWithReduction(NodePass):
    """Replaces ScatterND with a reduction by one without, or by a masked reduction.

    What it does: Where the indices are constant, the elements they name are gathered, combined with the updates and
    scattered back, in as many rounds as the same element is named. Where they are only known at run time, every element
    of the data is compared with every index, and the updates that name it are reduced, so that elements named several
    times come out right as well.

    Why TensorRT wants it: Its ScatterND only overwrites.

    Example: ScatterND(x [4, 8], i [2, 1], u [2, 8], reduction="add") becomes x + ReduceSum(Where(i == 0…3, u, 0)).

    When it declines: The indexed sizes of the data are not static; mask times updates are more than 16 million
    elements; constant indices name one element more than 64 times.
    """

    name = "scatter_nd_with_reduction"
    operators = frozenset({"ScatterND"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only those with a reduction."""
        return combination_of(node) is not None and super().wants(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        how = combination_of(node)
        data, indices, updates = node.inputs
        shape, index_shape = emit.edit.shape(data), emit.edit.shape(indices)
        coordinates = index_shape[-1] if index_shape else None
        if how is None or shape is None or index_shape is None or coordinates is None or emit.edit.dtype(data) is None:
            raise DeclinedError("the rank or type of its data, or how many coordinates its indices have, is not known")
        sizes = [size for size in shape[:coordinates] if size is not None]
        if len(sizes) != coordinates:
            raise DeclinedError(f"the first {coordinates} sizes of its data are not all static")
        values = emit.edit.value(indices)
        if values is None:
            return (_masked(node, emit, (shape, index_shape), sizes, how),)
        places = counted_from_front(values.reshape(-1, coordinates).astype(np.int64), np.asarray(sizes))
        if len(index_shape) != 2:
            updates = emit("Reshape", updates, _row_shape(emit, shape, coordinates, len(places)))
        return (scattered_in_rounds(emit, data, places, updates, how),)


def _row_shape(emit: Emitter, shape: Shape, coordinates: int, rows: int) -> gs.Tensor:
    """The shape of the updates with one axis for all indices: rows, and then the sizes that are not indexed."""
    rest = shape[coordinates:]
    if None not in rest:
        return emit.constant([rows, *(size or 0 for size in rest)], "int64")
    if rest.count(None) == 1:
        return emit.constant([rows, *(-1 if size is None else size for size in rest)], "int64")
    raise DeclinedError("more than one of the sizes of its updates is not static")


def _masked(node: gs.Node, emit: Emitter, shapes: tuple[Shape, Shape], sizes: list[int], how: Combination) -> gs.Tensor:
    """Data, updates and mask as `[places, 1 or indices, elements of each place]`."""
    data, indices, updates = node.inputs
    shape, index_shape = shapes
    places, elements, rows = (_product(part) for part in (tuple(sizes), shape[len(sizes) :], index_shape[:-1]))
    if rows is None and elements is None:
        raise DeclinedError("neither how many indices nor how many elements of each place there are is static")
    if (places or 0) * (elements or 1) * (rows or 1) > MOST_MASKED:
        raise DeclinedError("its mask would be larger than 16 million elements; constant indices need none")
    dtype = np.dtype(emit.edit.dtype(indices) or "int64")
    counted = counted_from_front_at_run_time(indices, np.asarray(sizes, dtype), emit)
    if len(sizes) > 1:
        strides = np.cumprod([1, *sizes[:0:-1]])[::-1].astype(dtype)
        counted = emit.reduce("ReduceSum", emit("Mul", counted, strides), [-1])
    mask = emit("Equal", np.arange(places or 0, dtype=dtype).reshape(-1, 1, 1), emit.reshape(counted, [1, -1, 1]))
    new = emit.reshape(updates, [1, -1 if rows is None else rows, -1 if elements is None else elements])
    flat = emit.reshape(data, [places or 0, -1 if elements is None else elements])
    made = masked_reduction(emit, flat, (mask, new), 1, how, emit.edit.dtype(data) or "float32")
    unknown = shape.count(None)
    if unknown > 1:
        result: gs.Tensor = emit("Reshape", made, emit("Shape", data))
        return result
    return emit.reshape(made, [-1 if size is None else size for size in shape])


def _product(sizes: Shape) -> int | None:
    if any(size is None for size in sizes):
        return None
    return int(np.prod([size or 0 for size in sizes], dtype=np.int64))
