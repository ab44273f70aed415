"""Products of integers, and scales beside them that are found as the model runs: written as products of floats.

ONNX's DynamicQuantizeLinear gives integers, a scale and a zero-point; MatMulInteger or ConvInteger multiplies; a Cast
and one Mul or several bring the scales back. Once all scales have come together, the float product stands there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto

from trt_opt.quantize.importing.constants import Array
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import ConstantGrid, Held, RunTimeGrid, UnreadableError
from trt_opt.quantize.importing.node_reading import attributes_of, input_of, integer_attribute
from trt_opt.quantize.importing.stored_constants import read_constant

ROUNDING_DROPPED = "its activations are no longer rounded to 8 bits on a grid found at run time"


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """A product of scales found at run time and a constant.

    Attributes:
        found: The tensors DynamicQuantizeLinear nodes write, sorted.
        factor: The constant.
    """

    found: tuple[str, ...]
    factor: Array


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A product of integers, times scales so far.

    Attributes:
        node: MatMulInteger or ConvInteger.
        wanted: Scales found at run time that its operands need.
        scale: What it was multiplied with.
    """

    node: onnx.NodeProto
    wanted: tuple[str, ...]
    scale: Scale


def dynamic_quantize(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """Remembers what DynamicQuantizeLinear's outputs mean."""
    integers, scale, zero = node.output
    graph.held[integers] = Held(RunTimeGrid(scale, zero), float_name=node.input[0])
    graph.meanings[scale] = Scale((scale,), np.float32(1))
    graph.keep(node)
    return True


def integer_product(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """Remembers what MatMulInteger and ConvInteger multiply, if their zero-points are their operands' own."""
    wanted = [_own_scale(node, position, graph) for position in (0, 1)]
    graph.meanings[node.output[0]] = Product(
        node, tuple(sorted(name for name in wanted if name)), Scale((), np.float32(1))
    )
    graph.keep(node)
    return True


def _own_scale(node: onnx.NodeProto, position: int, graph: FloatGraph) -> str:
    """The scale found at run time of an operand; "" where it is constant."""
    name, zero = input_of(node, position), input_of(node, position + 2)
    held = graph.held.get(name)
    if held is None:
        if position == 1 and graph.constant(name) is not None and (not zero or graph.constant(zero) is not None):
            return ""
        raise UnreadableError("an operand is neither quantised nor a stored weight")
    if isinstance(held.grid, RunTimeGrid):
        if zero != held.grid.zero_point:
            raise UnreadableError("its zero-point is not that of its operand")
        return held.grid.scale
    offset = graph.constant(zero) if zero else np.zeros((), np.int64)
    if offset is None or offset.size != 1 or int(offset.reshape(-1)[0]) != held.grid.zero_point:
        raise UnreadableError("its zero-point is not that of its operand")
    return ""


def cast_product(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A Cast of a product to FLOAT is the product still."""
    meaning = graph.meanings.get(input_of(node, 0))
    if not isinstance(meaning, Product) or integer_attribute(node, "to") != TensorProto.FLOAT:
        return False
    graph.meanings[node.output[0]] = meaning
    graph.keep(node)
    return True


def multiply(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A Mul that brings scales together; where it brings the last to a product, the float product takes its place."""
    pair = [_meaning(name, graph) for name in node.input]
    products = [entry for entry in pair if isinstance(entry, Product)]
    scales = [entry for entry in pair if isinstance(entry, Scale)]
    if len(products) + len(scales) != 2 or len(products) > 1 or not any(graph.meanings.get(x) for x in node.input):
        return False
    together = scales[0] if len(scales) == 1 else _times(scales[0], scales[1])
    if not products:
        graph.meanings[node.output[0]] = together
        graph.keep(node)
        return True
    product = replace(products[0], scale=_times(products[0].scale, together))
    if product.scale.found == product.wanted:
        _write_product(node, product, graph)
        return True
    graph.meanings[node.output[0]] = product
    graph.keep(node)
    return True


def _meaning(name: str, graph: FloatGraph) -> object:
    known = graph.meanings.get(name)
    if known is not None:
        return known
    constant = graph.constant(name)
    return None if constant is None or constant.dtype != np.float32 else Scale((), constant)


def _times(one: Scale, other: Scale) -> Scale:
    return Scale(tuple(sorted(one.found + other.found)), np.asarray(one.factor * other.factor))  # type: ignore[operator]


def _write_product(node: onnx.NodeProto, product: Product, graph: FloatGraph) -> None:
    """Adds the float product in place of the Mul that completes it."""
    source = product.node
    is_conv = source.op_type == "ConvInteger"
    factor = np.asarray(product.scale.factor, np.float32)
    for name in source.input[:2]:
        held = graph.held.get(name)
        if held is not None and isinstance(held.grid, ConstantGrid):
            factor = np.asarray(factor / np.float32(held.grid.scale), np.float32)
    inputs = [graph.float_of(source.input[0])]
    weights = graph.constant(source.input[1])
    if weights is None:
        inputs.append(graph.float_of(source.input[1]))
    else:
        scales = per_channel(factor, weights, is_conv)
        factor = np.asarray(1, np.float32) if scales is not None else factor
        inputs.append(_weights(source, weights, scales, graph))
    target = node.output[0] if (factor == 1).all() else graph.tensor(f"{node.output[0]}_unscaled")
    graph.emit("Conv" if is_conv else "MatMul", inputs, [target], source.name, attributes_of(source))
    if target != node.output[0]:
        graph.emit("Mul", [target, graph.array(f"{target}_factor", factor)], [node.output[0]], node.name)
    dropped = f", and {ROUNDING_DROPPED}" if product.wanted else ""
    graph.change(source.name, f"{source.op_type} became a float product{dropped}")


def per_channel(factor: Array, weights: Array, is_conv: bool) -> Array | None:
    """A factor of the product as scales of the weights: no dimension, or one per output channel; None if it is neither.

    Args:
        factor: Broadcasts over the product.
        weights: [..., K, N] of a MatMul or [M, C/group, ...] of a convolution.
        is_conv: Which.
    """
    if factor.size == 1:
        return factor.reshape(())
    if weights.ndim < 2:
        return None
    channels, at = (weights.shape[0], 1 - weights.ndim) if is_conv else (weights.shape[-1], -1)
    if factor.size != channels or factor.ndim < -at or factor.shape[at] != channels:
        return None
    return factor.reshape(-1)


def _weights(source: onnx.NodeProto, weights: Array, scales: Array | None, graph: FloatGraph) -> str:
    zero = graph.constant(input_of(source, 3)) if input_of(source, 3) else np.zeros((), weights.dtype)
    return write_weights(
        weights,
        np.asarray(1, np.float32) if scales is None else scales,
        None if zero is None else zero.reshape(-1) if zero.ndim else zero,
        source.input[1],
        0 if source.op_type == "ConvInteger" else weights.ndim - 1,
        graph,
    )


def write_weights(
    weights: Array, scales: Array | None, zero: Array | None, base: str, axis: int, graph: FloatGraph
) -> str:
    """Adds a DequantizeLinear of weights, with as many scales as zero-points; its output."""
    if scales is not None and zero is not None and scales.size == 1 and zero.size > 1:
        scales = np.full(zero.shape, scales.reshape(()), scales.dtype)
    return graph.dequantized_constant(read_constant(weights, scales, zero, axis), base)


def dynamic_matmul(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """ONNX Runtime's DynamicQuantizeMatMul and MatMulIntegerToFloat: MatMul with stored weights, and an Add."""
    is_fused = node.op_type == "DynamicQuantizeMatMul"
    at_scale, at_zero, at_bias = (2, 3, 4) if is_fused else (3, 5, 6)
    weights = graph.constant(input_of(node, 1))
    if weights is None:
        raise UnreadableError("its weights are only known at run time")
    scales, zero = graph.constant(input_of(node, at_scale)), input_of(node, at_zero)
    zeros = graph.constant(zero) if zero else np.zeros((), weights.dtype)
    right = write_weights(weights, scales, zeros, node.input[1], weights.ndim - 1, graph)
    left = node.input[0] if is_fused else _activation(node, graph)
    bias, output = input_of(node, at_bias), node.output[0]
    product = graph.tensor(f"{output}_product") if bias else output
    graph.emit("MatMul", [left, right], [product], node.name)
    if bias:
        graph.emit("Add", [product, bias], [output])
    is_dynamic = is_fused or isinstance(graph.held[node.input[0]].grid, RunTimeGrid)
    graph.change(node.name, f"{node.op_type} became a MatMul" + (f", and {ROUNDING_DROPPED}" if is_dynamic else ""))
    return True


def _activation(node: onnx.NodeProto, graph: FloatGraph) -> str:
    name, scale, zero = input_of(node, 0), input_of(node, 2), input_of(node, 4)
    held = graph.held.get(name)
    if held is None:
        raise UnreadableError("its activation is not quantised")
    if isinstance(held.grid, RunTimeGrid):
        if (scale, zero) != (held.grid.scale, held.grid.zero_point):
            raise UnreadableError("its scale and zero-point are not those of its activation")
    elif graph.grid(scale, zero, graph.element(name)) != held.grid:
        raise UnreadableError("its scale and zero-point are not those of its activation")
    return graph.float_of(name)
