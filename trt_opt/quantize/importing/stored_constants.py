"""Weights and biases: constants stored as integers, and what stands between them and who reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from trt_opt.graph.index import attribute_of
from trt_opt.quantize.importing.constants import Array, axis_of, dequantized, fits
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import StoredConstant, UnreadableError
from trt_opt.quantize.importing.node_reading import input_of, integer_attribute


def dequantize_constant(node: onnx.NodeProto, integers: Array, graph: FloatGraph) -> bool:
    """A DequantizeLinear of constants: INT32 ones become floats, others are stored as initialisers."""
    stored = stored_constant(node, integers, graph)
    output = node.output[0]
    if integers.dtype == np.int32 and output not in graph.index.outputs:
        value = dequantized(stored.integers, stored.scale, stored.zero, stored.axis, stored.block)
        graph.initializer(output, value)
        graph.change(node.name, "INT32 constants became floats")
        return True
    graph.stored[output] = stored
    if _is_normal(node, stored, graph):
        graph.keep(node)
    else:
        graph.dequantized_constant(stored, node.input[0], output, node.name)
        graph.change(node.name, "its integers, scale and zero-point are stored as constants")
    return True


def stored_constant(node: onnx.NodeProto, integers: Array, graph: FloatGraph) -> StoredConstant:
    """What a DequantizeLinear of constants reads.

    Raises:
        UnreadableError: Its scale is not constant, or the shapes do not fit together.
    """
    block = integer_attribute(node, "block_size")
    scale, zero = graph.constant(input_of(node, 1)), graph.constant(input_of(node, 2))
    return read_constant(
        integers, scale, zero if input_of(node, 2) else np.zeros((), integers.dtype), axis_of(node), block
    )


def read_constant(
    integers: Array, scale: Array | None, zero: Array | None, axis: int, block: int = 0
) -> StoredConstant:
    """Integers with their scales, one number as a scalar, and one zero-point for each scale.

    Raises:
        UnreadableError: A scale or zero-point is not constant, or the shapes do not fit together.
    """
    if scale is None or zero is None:
        raise UnreadableError("the scale or zero-point of its weights is only known at run time")
    if scale.size == 1 and not block:
        scale = scale.reshape(())
    if scale.ndim == 0 and zero.size > 1:
        scale = np.full(zero.shape, scale, scale.dtype)
    if zero.size == 1:
        zero = np.full(scale.shape, zero.reshape(()).astype(np.int32)).astype(zero.dtype)
    is_shaped = scale.ndim == integers.ndim if block else scale.ndim <= 1
    if not is_shaped or not fits(scale, integers.shape, axis, block) or zero.shape != scale.shape:
        raise UnreadableError("the scales or zero-points of its weights are not one per channel")
    return StoredConstant(integers, scale, zero.astype(integers.dtype), axis, block)


def _is_normal(node: onnx.NodeProto, stored: StoredConstant, graph: FloatGraph) -> bool:
    if node.domain or not all(graph.is_initializer(input_of(node, at)) for at in range(3)):
        return False
    shapes = (graph.index.shape(node.input[1]), graph.index.shape(node.input[2]))
    return shapes == (stored.scale.shape, stored.zero.shape)


def transpose(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A Transpose behind a DequantizeLinear of constants: done on the stored integers."""
    stored = graph.stored.get(input_of(node, 0))
    if stored is None:
        return False
    rank = stored.integers.ndim
    order = [int(at) for at in attribute_of(node, "perm", range(rank - 1, -1, -1))]  # type: ignore[attr-defined]
    if sorted(order) != list(range(rank)):
        return False
    moved = replace(
        stored,
        integers=np.ascontiguousarray(stored.integers.transpose(order)),
        scale=stored.scale.transpose(order) if stored.block else stored.scale,
        zero=stored.zero.transpose(order) if stored.block else stored.zero,
        axis=order.index(stored.axis % rank) if rank else 0,
    )
    graph.dequantized_constant(moved, node.input[0], node.output[0], node.name)
    graph.change(node.name, "done on the stored weights")
    return True


def reshape(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A Reshape behind a DequantizeLinear of constants with one scale: done on the stored integers."""
    stored = graph.stored.get(input_of(node, 0))
    shape = graph.constant(input_of(node, 1))
    if stored is None or shape is None or stored.scale.ndim or integer_attribute(node, "allowzero"):
        return False
    if (shape == 0).any():
        return False
    try:
        integers = stored.integers.reshape([int(size) for size in shape])
    except ValueError:
        return False
    graph.dequantized_constant(replace(stored, integers=integers), node.input[0], node.output[0], node.name)
    graph.change(node.name, "done on the stored weights")
    return True


def float_constant(name: str, scale: Array, graph: FloatGraph) -> Array:
    """An INT32 bias in the units of its scale.

    Raises:
        UnreadableError: It is not constant.
    """
    integers = graph.constant(name)
    if integers is None:
        raise UnreadableError("its bias is only known at run time")
    return np.asarray(integers.astype(np.float32) * scale.astype(np.float32), np.float32)
