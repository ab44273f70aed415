"""Layers of a quantised model put back into float."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.errors import RequestError
from trt_opt.graph.float_types import dequantized
from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.query import PAIR_OPS
from trt_opt.graph.writer import GraphWriter


def without_pairs(model: onnx.ModelProto, nodes: Iterable[str]) -> onnx.ModelProto:
    """A copy in which the named nodes read floats: what was in front of their Q/DQ pairs, and dequantised weights.

    Pairs that nobody reads any more are gone; the model itself comes back where no node was named.

    Args:
        model: Node names unique.
        nodes: Names of nodes.

    Raises:
        RequestError: There is no such node.
    """
    wanted = tuple(nodes)
    if not wanted:
        return model
    index, writer = GraphIndex(model), GraphWriter(model)
    for name in wanted:
        if name not in writer.nodes:
            raise RequestError(f"no node is called {name!r}", hint="`trt-opt inspect` lists the nodes")
        node = writer.nodes[name]
        for position, tensor in enumerate(node.input):
            node.input[position] = _float_form(tensor, index, writer)
    for name in _unread_pairs(writer.model):
        writer.remove(name)
    return writer.finished()


def _float_form(tensor: str, index: GraphIndex, writer: GraphWriter) -> str:
    """The tensor that a Q/DQ pair was made of; the tensor itself where there is none."""
    back = index.producer(tensor)
    if back is None or back.op_type != "DequantizeLinear":
        return tensor
    forth = index.producer(back.input[0])
    if forth is not None and forth.op_type == "QuantizeLinear":
        return str(forth.input[0])
    operands = [index.constant(name) for name in back.input if name]
    constants = [array for array in operands if array is not None]
    if len(constants) < len(operands):
        return tensor
    values, *grids = constants
    floats = dequantized(back, [values, *(_for_each(grid, back, values.shape) for grid in grids)])
    return writer.constant(tensor, floats.astype(grids[0].dtype))


def _for_each(grid: NDArray[np.generic], back: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Scales or zero-points of blocks repeated for each of their elements; others as they are."""
    size, axis = attribute_of(back, "block_size", 0), attribute_of(back, "axis", 1)
    if not isinstance(size, int) or not isinstance(axis, int) or not size:
        return grid
    return np.repeat(grid, size, axis).take(range(shape[axis]), axis)


def _unread_pairs(model: onnx.ModelProto) -> set[str]:
    """The names of the quantisers whose result leads nowhere."""
    index = GraphIndex(model)
    unread: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in PAIR_OPS and not index.is_read_elsewhere(node.output[0]):
            readers = {reader.name for reader, _ in index.readers(node.output[0])}
            if readers <= unread:
                unread.add(node.name)
    return unread
