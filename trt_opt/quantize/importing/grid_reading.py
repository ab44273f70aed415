"""Which grid each quantised activation of a model in normal form lies on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.query import dtype_name
from trt_opt.values.rewriting import Decline

LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
"""Smallest and largest integer of the types that activations are quantised to."""

TO_INT8 = {"int8": 0, "uint8": 128}
"""What is subtracted from integers of the type to make the same grid one of INT8."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers scale · (q - zero_point), where q runs through an integer type.

    Attributes:
        scale: Above zero.
        zero_point: In the type.
        dtype: A key of `LIMITS`.
    """

    scale: float
    zero_point: int
    dtype: str

    @property
    def is_wide(self) -> bool:
        """Whether its integers have 16 bits."""
        return self.dtype not in TO_INT8

    @property
    def shift(self) -> float:
        """What moves the grid of an 8-bit type onto the symmetric INT8 grid of the same scale, when added."""
        return self.scale * (self.zero_point - TO_INT8[self.dtype])

    @property
    def is_symmetric(self) -> bool:
        """Whether TensorRT has it: INT8 around zero."""
        return self.dtype == "int8" and self.zero_point == 0

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest number represented."""
        low, high = LIMITS[self.dtype]
        return self.scale * (low - self.zero_point), self.scale * (high - self.zero_point)

    def swallows(self, low: float | None, high: float | None) -> bool:
        """Whether quantising saturates at least where a Clip with these bounds does; None is no bound.

        A bound less than half a step inside the grid's end rounds to that end.
        """
        first, last = self.ends
        near = 0.499 * self.scale
        return (low is None or low < first + near) and (high is None or high > last - near)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An activation on its way through integers.

    Attributes:
        quantize: The QuantizeLinear; None where the integers are a graph input.
        dequantize: The DequantizeLinear; None where the integers are a graph output.
        grid: Of both.
    """

    quantize: onnx.NodeProto | None
    dequantize: onnx.NodeProto | None
    grid: Grid

    @property
    def tensor(self) -> str:
        """The dequantised tensor, or, for a graph output, the integers."""
        node = self.dequantize or self.quantize
        return str(node.output[0]) if node is not None else ""


def pairs_of(index: GraphIndex) -> tuple[tuple[Pair, ...], tuple[Decline, ...]]:
    """The pairs of a model in normal form in graph order, and those that cannot be read, with the reason."""
    pairs: list[Pair] = []
    declined: list[Decline] = []
    for node, found in _candidates(index):
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            declined.append(Decline(node.name, found))
    return tuple(pairs), tuple(declined)


def _candidates(index: GraphIndex) -> Iterator[tuple[onnx.NodeProto, Pair | str]]:
    for node in index.model.graph.node:
        if node.op_type == "QuantizeLinear":
            yield node, _pair_from(node, index)
        elif node.op_type == "DequantizeLinear" and not index.is_constant(node.input[0]):
            producer = index.producer(node.input[0])
            if producer is not None and producer.op_type == "QuantizeLinear":
                continue
            grid = grid_of(node, index)
            if isinstance(grid, str):
                yield node, grid
            elif node.input[0] not in index.inputs:
                yield node, f"its integers come from {producer.op_type if producer is not None else 'nowhere'}"
            else:
                yield node, Pair(None, node, grid)


def _pair_from(node: onnx.NodeProto, index: GraphIndex) -> Pair | str:
    grid = grid_of(node, index)
    if isinstance(grid, str):
        return grid
    readers = [reader for reader, _ in index.readers(node.output[0])]
    if node.output[0] in index.captured:
        return "its integers are read inside a subgraph"
    if not readers and node.output[0] in index.outputs:
        return Pair(node, None, grid)
    if len(readers) != 1 or readers[0].op_type != "DequantizeLinear":
        return "its integers are not read by one DequantizeLinear alone"
    if grid_of(readers[0], index) != grid:
        return f"{readers[0].name!r} reads its integers on another grid"
    return Pair(node, readers[0], grid)


def grid_of(node: onnx.NodeProto, index: GraphIndex) -> Grid | str:
    """The grid of a QuantizeLinear or DequantizeLinear of an activation, or why it cannot be told."""
    scale = index.constant(node.input[1])
    has_zero = len(node.input) > 2 and bool(node.input[2])
    zero = index.constant(node.input[2]) if has_zero else np.zeros((), np.uint8)
    if scale is None or zero is None:
        return f"its {'scale' if scale is None else 'zero-point'} is only known at run time"
    if scale.size != 1 or zero.size != 1:
        return "an activation with one scale per channel"
    step = float(scale.reshape(-1)[0])
    if not (np.isfinite(step) and step > 0):
        return f"a scale of {step:g}"
    dtype = dtype_name(index.element_type(node.input[2]) or 0) if has_zero else _untold_type(node, index)
    if dtype not in LIMITS:
        return f"integers of type {dtype}"
    grid = Grid(step, int(zero.reshape(-1)[0]), dtype)
    if index.element_type(node.input[1]) != TensorProto.FLOAT and not grid.is_symmetric:
        return "its scale is not FLOAT, and its zero-point not 0 in INT8"
    return grid


def _untold_type(node: onnx.NodeProto, index: GraphIndex) -> str:
    """The type where no zero-point tells it: the standard's default is UINT8."""
    if node.op_type == "DequantizeLinear":
        producer = index.producer(node.input[0])
        if producer is not None and producer.op_type == "QuantizeLinear":
            return _untold_type(producer, index)
        return dtype_name(index.element_type(node.input[0]) or TensorProto.UINT8)
    told = attribute_of(node, "output_dtype", TensorProto.UNDEFINED)
    return dtype_name(int(str(told))) if told else "uint8"
