"""MaxPool with Indices as a lookup of every window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used
from trt_opt.passes.vision.pooling_windows import Windows, spatial_sizes, windows_of
from trt_opt.passes.vision.unroll_max_pooling import FLOATS

MOST_ELEMENTS = 1 << 22
"""The table has a row per tap and a column per window; above this the pass declines."""

Table = NDArray[np.int64]


class GatherMaxPoolingIndices(NodePass):
    """Replaces a MaxPool that also gives Indices.

    What it does: A constant table [taps, windows] says which element of the image each tap of each window is. One
    Gather looks them all up, ReduceMax over the taps gives the values, and the Indices are the smallest position
    whose element equals the maximum: the first one, as ONNX wants it. With `storage_order` 1 another lookup turns
    positions by rows into positions by columns. The start of each channel is added at last.

    Why TensorRT wants it: Its pooling gives no indices.

    Example: MaxPool(kernel 2, stride 2) → (y, Indices) of [N, C, 4, 4] becomes Gather [N, C, 4, 4] (taps, windows) →
    ReduceMax → y, and Equal → Where → ReduceMin → Add → Indices.

    When it declines: The spatial sizes are not static; the table would have more than 4 million elements; the
    elements are integers (another pass casts them first); its padding is as large as its window. Where nobody reads
    the Indices the output is left out, if TensorRT takes the rest as it is.
    """

    name = "gather_max_pooling_indices"
    operators = frozenset({"MaxPool"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Leaves alone what gives no Indices."""
        return len(node.outputs) > 1 and bool(node.outputs[1].name) and super().wants(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if not is_used(node.outputs[1], emit.edit):
            return (emit("MaxPool", node.inputs[0], **node.attrs), None)
        source = node.inputs[0]
        dtype = emit.edit.dtype(source)
        if dtype not in FLOATS:
            raise DeclinedError(f"its elements are {dtype or 'not known'}; integers need to be floats first")
        windows = windows_of(node, emit.edit)
        sizes = spatial_sizes(node, emit.edit)
        if sizes is None:
            raise DeclinedError("the positions in Indices follow from spatial sizes that are not static")
        counts = windows.counts(sizes)
        if math.prod(windows.kernel) * math.prod(counts) > MOST_ELEMENTS:
            raise DeclinedError(f"the table of {math.prod(counts)} windows would be too large")
        table, inside = _positions(windows, sizes, counts)
        values, positions = _largest(source, table, inside, dtype, emit)
        if node.attrs.get("storage_order", 0):
            by_columns = np.arange(math.prod(sizes)).reshape(sizes[::-1]).T.reshape(-1)
            positions = emit("Gather", by_columns, positions, axis=0)
        positions = emit("Add", positions, _channel_starts(source, math.prod(sizes), emit))
        return tuple(emit.reshape(tensor, [0, 0, *counts]) for tensor in (values, positions))


def _largest(
    source: gs.Tensor, table: Table, inside: NDArray[np.bool_], dtype: str, emit: Emitter
) -> tuple[gs.Tensor, gs.Tensor]:
    """The largest element of each window and where in the image it lies first, both [N, C, windows]."""
    image = emit.reshape(source, [0, 0, -1])
    taps = emit("Gather", image, table, axis=2)
    if not inside.all():
        taps = emit("Where", inside, taps, emit.constant(-np.inf, dtype))
    largest = emit.reduce("ReduceMax", taps, [2])
    # Behind the last true position lies the last one: of a window of NaN, which equals nothing, that one is told.
    last = np.where(inside, table, table.max())
    where = emit("Where", emit("Equal", taps, largest), last, table.max())
    return emit.squeeze(largest, [2]), emit.reduce("ReduceMin", where, [2], keepdims=False)


def _positions(windows: Windows, sizes: tuple[int, ...], counts: tuple[int, ...]) -> tuple[Table, NDArray[np.bool_]]:
    """For [taps, windows], the position in the image by rows, and whether the tap lies inside the image."""
    taps = np.array(list(itertools.product(*map(range, windows.kernel)))) * windows.dilations
    starts = np.array(list(itertools.product(*map(range, counts)))) * windows.strides - windows.begin
    places = taps[:, None, :] + starts[None, :, :]
    inside = np.all((places >= 0) & (places < np.array(sizes)), axis=-1, keepdims=True)[..., 0]
    clipped = np.moveaxis(np.clip(places, 0, np.array(sizes) - 1), -1, 0)
    return np.ravel_multi_index(tuple(clipped), sizes).astype(np.int64), inside


def _channel_starts(source: gs.Tensor, elements: int, emit: Emitter) -> gs.Tensor:
    """Where in the whole tensor each channel begins, [N, C, 1]."""
    shape = emit.edit.shape(source) or (None, None)
    if shape[0] is not None and shape[1] is not None:
        return emit.constant(np.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], 1) * elements, "int64")
    leading = emit("Slice", emit("Shape", source), *(np.array([bound]) for bound in (0, 2)))
    count = emit.reduce("ReduceProd", leading, [0], keepdims=False)
    numbers = emit("Mul", emit("Range", np.int64(0), count, np.int64(1)), np.int64(elements))
    made: gs.Tensor = emit("Reshape", numbers, emit("Concat", leading, np.array([1]), axis=0))
    return made
