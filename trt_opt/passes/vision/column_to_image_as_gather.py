"""Col2Im as sums of looked-up columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

MOST_ELEMENTS = 1 << 22
"""The table has a row per overlap and a column per pixel; above this the pass declines."""


@dataclass(frozen=True)
class Blocks:
    """Where the blocks of a Col2Im node lie in the image, one value per spatial axis."""

    image: tuple[int, ...]
    block: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many blocks there are along each axis."""
        rank = len(self.image)
        return tuple(
            (self.image[axis] + self.pads[axis] + self.pads[rank + axis] - span) // self.strides[axis] + 1
            for axis, span in enumerate(
                (size - 1) * step + 1 for size, step in zip(self.block, self.dilations, strict=True)
            )
        )


class ColumnToImageAsGather(NodePass):
    """Replaces Col2Im by a Gather and a ReduceSum.

    What it does: A constant table says which entries of the columns fall on each pixel; one Gather looks them up, and
    ReduceSum adds those of one pixel. Pixels with fewer of them look up a zero behind the columns. Every number stays
    what it is until it is added.

    Why TensorRT wants it: It has no Col2Im.

    Example: Col2Im of [N, C * 9, L] with blocks of 3 x 3 becomes Reshape [N, C, 9 * L] → Pad → Gather [9, H * W] →
    ReduceSum → Reshape [N, C, H, W].

    When it declines: The sizes of image or block are only known at run time, and do not follow from the shapes of
    input and output; the number of columns is not static; the table would have more than 4 million elements.
    """

    name = "column_to_image_as_gather"
    operators = frozenset({"Col2Im"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        source = node.inputs[0]
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if shape is None or dtype is None or shape[1] is None:
            raise DeclinedError("the type of its input, or the number of rows in it, is not known")
        blocks = _blocks(node, shape, emit.edit)
        table = _overlaps(blocks)
        if table.size > MOST_ELEMENTS:
            raise DeclinedError(f"the table of {table.shape[1]} pixels would be too large")
        taps = math.prod(blocks.block)
        entries, channels = taps * math.prod(blocks.counts), shape[1] // taps
        columns = emit.reshape(source, [0, channels, entries])
        wide = emit("Pad", columns, np.array([0, 0, 0, 0, 0, 1]), emit.constant(0, dtype))
        total = emit.reduce("ReduceSum", emit("Gather", wide, table, axis=2), [2], keepdims=False)
        return (emit.reshape(total, [0, channels, *blocks.image]),)


def _overlaps(blocks: Blocks) -> NDArray[np.int64]:
    """[overlaps, pixels]: the entries [taps * blocks] that fall on a pixel; behind the last one there is a zero."""
    taps = np.array(list(itertools.product(*map(range, blocks.block)))) * blocks.dilations
    starts = np.array(list(itertools.product(*map(range, blocks.counts)))) * blocks.strides
    places = (taps[:, None] + starts[None] - blocks.pads[: len(blocks.image)]).reshape(-1, len(blocks.image))
    inside = np.all((places >= 0) & (places < blocks.image), axis=1)
    pixels = np.ravel_multi_index(tuple(places[inside].T), blocks.image)
    order = np.argsort(pixels, kind="stable")
    found = np.bincount(pixels, minlength=math.prod(blocks.image))
    rank = np.arange(len(pixels)) - np.repeat(np.cumsum(found) - found, found)
    table = np.full((max(int(found.max()), 1), len(found)), len(places), np.int64)
    table[rank, pixels[order]] = np.flatnonzero(inside)[order]
    return table


def _blocks(node: gs.Node, shape: Sequence[int | None], edit: GraphEdit) -> Blocks:
    image, block = edit.value(node.inputs[1]), edit.value(node.inputs[2])
    declared = edit.declared_shape(node.outputs[0])
    sizes = None if image is None else tuple(int(size) for size in image)
    if sizes is None and declared is not None:
        known = tuple(size for size in declared[2:] if size is not None)
        sizes = known if len(known) == len(declared) - 2 else None
    if sizes is None:
        raise DeclinedError(f"the size of its image is only known at run time: --freeze-input {node.inputs[1].name}=…")
    rank = len(sizes)

    def with_block(taps: tuple[int, ...]) -> Blocks:
        strides, dilations, pads = (
            tuple(int(value) for value in node.attrs.get(name) or default)
            for name, default in (("strides", (1,) * rank), ("dilations", (1,) * rank), ("pads", (0,) * 2 * rank))
        )
        return Blocks(sizes, taps, strides, dilations, pads)

    if block is not None:
        return with_block(tuple(int(size) for size in block))
    possible: list[Blocks] = []
    if declared is not None and declared[1] and shape[1] and shape[2] is not None:
        fitting = (with_block(taps) for taps in _factorisations(shape[1] // declared[1], rank))
        possible = [one for one in fitting if min(one.counts) > 0 and math.prod(one.counts) == shape[2]]
    if len(possible) == 1:
        return possible[0]
    raise DeclinedError(f"the size of its blocks is only known at run time: --freeze-input {node.inputs[2].name}=…")


def _factorisations(product: int, count: int) -> list[tuple[int, ...]]:
    """All ways to write a number as a product of this many."""
    if count == 1:
        return [(product,)]
    divisors = [size for size in range(1, product + 1) if product % size == 0]
    return [(first, *rest) for first in divisors for rest in _factorisations(product // first, count - 1)]
