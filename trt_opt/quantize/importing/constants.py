"""Constants of a quantised model: what is known without running it, and the arithmetic of grids on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.query import PAIR_OPS

Array = NDArray[np.generic]

Number = TypeVar("Number", bound=np.generic)

_EVALUATED = frozenset(
    {"Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Div", "Expand", "Flatten", "Identity", "Mul", "Reshape"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)

_LARGEST_MADE = 1 << 24
"""Elements that ConstantOfShape and Expand may make out of a few."""

_LONGEST_CHAIN = 64


class ConstantReader:
    """Looks up constants, and follows the short chains of nodes by which exporters compute them from others.

    Args:
        index: Of the source.
    """

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._known: dict[str, Array | None] = {}

    def __call__(self, name: str, depth: int = 0) -> Array | None:
        """The value of a tensor; None for anything computed at run time."""
        if not name or depth > _LONGEST_CHAIN:
            return None
        if name not in self._known:
            stored = self._index.constant(name)
            self._known[name] = self._computed(name, depth) if stored is None else stored
        return self._known[name]

    def _computed(self, name: str, depth: int) -> Array | None:
        node = self._index.producer(name)
        if node is None or len(node.output) != 1:
            return None
        if node.op_type not in PAIR_OPS and (node.domain or node.op_type not in _EVALUATED):
            return None
        inputs = [self(tensor, depth + 1) if tensor else None for tensor in node.input]
        if any(tensor and value is None for tensor, value in zip(node.input, inputs, strict=True)):
            return None
        try:
            return self._evaluated(node, inputs)
        except (TypeError, ValueError, RuntimeError, KeyError, IndexError, NotImplementedError):
            # onnx's reference implementation raises what NumPy raises; such a node is not valid, or not known to it.
            return None

    def _evaluated(self, node: onnx.NodeProto, inputs: list[Array | None]) -> Array | None:
        if node.op_type == "QuantizeLinear":
            return _quantize_node(node, inputs)
        if node.op_type == "DequantizeLinear":
            return _dequantize_node(node, inputs)
        shape = inputs[-1] if node.op_type in ("ConstantOfShape", "Expand") else None
        if shape is not None and math.prod(shape.astype(np.int64).reshape(-1).tolist()) > _LARGEST_MADE:
            return None
        feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
        (result,) = ReferenceEvaluator(_model_of(node, self._index)).run(None, feeds)
        return np.asarray(result)


def _model_of(node: onnx.NodeProto, index: GraphIndex) -> onnx.ModelProto:
    """The node alone."""
    untyped = onnx.TypeProto()
    untyped.tensor_type.elem_type = TensorProto.UNDEFINED
    inputs = [helper.make_value_info(name, untyped) for name in dict.fromkeys(node.input) if name]
    outputs = [helper.make_value_info(node.output[0], untyped)]
    return helper.make_model(
        helper.make_graph([node], "constant", inputs, outputs), opset_imports=list(index.model.opset_import)
    )


def _quantize_node(node: onnx.NodeProto, inputs: list[Array | None]) -> Array | None:
    values, scale = inputs[0], inputs[1]
    told = int(str(attribute_of(node, "output_dtype", 0))) or TensorProto.UINT8
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else None
    if values is None or scale is None:
        return None
    if zero is None:
        zero = np.zeros(scale.shape, helper.tensor_dtype_to_np_dtype(told))
    limits = integer_limits(zero.dtype)
    if limits is None:
        return None
    axis, block = axis_of(node), int(str(attribute_of(node, "block_size", 0)))
    steps = spread(scale, values.shape, axis, block).astype(np.float32)
    zeros = spread(zero, values.shape, axis, block).astype(np.float32)
    rounded = np.rint(values.astype(np.float32) / steps) + zeros
    return np.asarray(np.clip(rounded, *limits).astype(np.int32).astype(zero.dtype))


def _dequantize_node(node: onnx.NodeProto, inputs: list[Array | None]) -> Array | None:
    values, scale = inputs[0], inputs[1]
    if values is None or scale is None or integer_limits(values.dtype) is None:
        return None
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros(scale.shape, values.dtype)
    return dequantized(values, scale, zero, axis_of(node), int(str(attribute_of(node, "block_size", 0))))


def axis_of(node: onnx.NodeProto) -> int:
    """The axis of a QuantizeLinear or DequantizeLinear with several scales."""
    return int(str(attribute_of(node, "axis", 1)))


def integer_limits(dtype: np.dtype[np.generic]) -> tuple[int, int] | None:
    """Smallest and largest integer of a type; None for types of other numbers."""
    if np.issubdtype(dtype, np.integer):
        found = np.iinfo(dtype.name)
        return int(found.min), int(found.max)
    return {"int4": (-8, 7), "uint4": (0, 15)}.get(dtype.name)


def dequantized(values: Array, scale: Array, zero: Array, axis: int, block: int = 0) -> Array:
    """(values - zero) · scale in the scale's type.

    Args:
        values: Integers.
        scale: No dimension, one number, one per slice of the axis, or one per block of it.
        zero: Likewise, or one number.
        axis: Of the slices.
        block: Elements of a block; 0 where there are none.
    """
    exact = np.subtract(values.astype(np.int64), spread(zero.astype(np.int64), values.shape, axis, block))
    steps = spread(scale, values.shape, axis, block)
    return np.asarray((exact.astype(np.float32) * steps.astype(np.float32)).astype(scale.dtype))


def spread(values: NDArray[Number], shape: Sequence[int], axis: int, block: int = 0) -> NDArray[Number]:
    """Scales or zero-points in a shape that broadcasts over a tensor of this shape.

    Raises:
        ValueError: They do not fit it.
    """
    if values.size == 1:
        return values.reshape(())
    if not fits(values, shape, axis, block):
        raise ValueError("scales for slices or blocks of another number")
    if block:
        repeated = np.repeat(values, block, axis=axis)
        return np.asarray(np.take(repeated, np.arange(shape[axis]), axis=axis))
    return values.reshape([-1 if at == axis % len(shape) else 1 for at in range(len(shape))])


def fits(values: NDArray[np.generic], shape: Sequence[int], axis: int, block: int = 0) -> bool:
    """Whether scales or zero-points are one number, or one for each slice, or each block, of a tensor of this shape."""
    if values.size == 1:
        return True
    if not -len(shape) <= axis < len(shape):
        return False
    if not block:
        return values.size == shape[axis]
    wanted = [-(-size // block) if at == axis % len(shape) else size for at, size in enumerate(shape)]
    return list(values.shape) == wanted
