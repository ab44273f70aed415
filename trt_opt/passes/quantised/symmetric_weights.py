"""DequantizeLinear of constants without zero-points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.query import dtype_name
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input
from trt_opt.passes.quantised.granularity import Granularity

_PACKED = frozenset({"int4", "uint4", "float4e2m1"})
_TAKEN = frozenset({"int8", "int4", "float8e4m3fn", "float4e2m1"})
_SMALL_INTEGERS = frozenset({"int4", "uint4", "int8", "uint8"})


class SymmetricWeights(NodePass):
    """Takes the zero-points out of quantised constants, or the quantisation where that cannot be.

    What it does: The zero-point, a constant, is subtracted from the constant integers. Where all differences fit INT4
    (of 4-bit integers) or INT8, a DequantizeLinear of these with the same scales and blocks and no zero-point gives
    the same numbers; otherwise, and for INT32 biases, 16-bit integers and 4-bit ones of odd number, the dequantised
    numbers become a constant.

    Why TensorRT wants it: It dequantises INT8, INT4, FP8 and FP4 with a zero-point of 0 only, 4-bit ones in pairs.
    ONNX Runtime's quantiser writes INT32 biases with a DequantizeLinear, which TensorRT's parser refuses.

    Example: DequantizeLinear(uint4 [0, 8, 15], 0.1, 8) becomes DequantizeLinear(int4 [-8, 0, 7], 0.1).

    When it declines: The zero-point is no constant; the dequantised numbers are needed and
    the scale is no constant. What TensorRT takes as it is stays.
    """

    name = "symmetric_weights"
    operators = frozenset({"DequantizeLinear"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Leaves alone what dequantises no constant, and what TensorRT takes as it is."""
        if not super().wants(node, edit) or not _is_constant(node.inputs[0]):
            return False
        return self.refused is not None or not _is_taken(node, edit)

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """TensorRT has no UINT8: it reads INT8 in its place."""
        return _is_constant(node.inputs[0]) and edit.dtype(node.inputs[0]) == "uint8"

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        edit, data, offset = emit.edit, node.inputs[0], optional_input(node, 2)
        dtype, values, shift = edit.dtype(data), edit.value(data), edit.value(offset)
        if values is None or dtype is None:
            raise DeclinedError("its integers are a sparse constant")
        if offset is not None and shift is None:
            raise DeclinedError(f"its zero-point is only known at run time: --freeze-input {offset.name}=…")
        grain = Granularity.of(node, emit)
        integral = not dtype.startswith("float")
        wide = values.astype(np.int64 if integral else np.float32)
        zeros = grain.zero_point(offset, emit)
        difference = wide if zeros is None else _fitting(np.subtract, wide, np.asarray(zeros).astype(wide.dtype))
        # What is refused in a form that looks fine is not written in that form again.
        narrow = None if _is_taken(node, edit) else _narrow_type(dtype, difference)
        if narrow is not None:
            moved = emit.constant(difference.astype(onnx.helper.tensor_dtype_to_np_dtype(narrow)))
            return (emit("DequantizeLinear", moved, node.inputs[1], **node.attrs),)
        return (emit.constant(_dequantized(node, difference, grain, emit)),)


def _is_constant(tensor: gs.Tensor) -> bool:
    made_by = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    return isinstance(tensor, gs.Constant) or (made_by is not None and made_by.op == "Constant" and not made_by.domain)


def _is_taken(node: gs.Node, edit: GraphEdit) -> bool:
    """Whether the form is one that TensorRT has: no zero-point but 0, a type it knows, 4-bit numbers in pairs."""
    data, shift = node.inputs[0], edit.value(optional_input(node, 2))
    centred = optional_input(node, 2) is None or (shift is not None and not shift.astype(np.float32).any())
    dtype, shape = edit.dtype(data), edit.static_shape(data)
    return centred and dtype in _TAKEN and shape is not None and _in_pairs(dtype, math.prod(shape))


def _in_pairs(dtype: str, size: int) -> bool:
    """TensorRT reads two 4-bit numbers from a byte, and has no form for a last one alone."""
    return dtype not in _PACKED or size % 2 == 0


def _fitting(operation: np.ufunc, left: NDArray[np.generic], right: NDArray[np.generic]) -> NDArray[np.generic]:
    """The operation on both, which a broken file may give shapes that do not go together."""
    try:
        return np.asarray(operation(left, right))
    except ValueError as error:
        raise DeclinedError("its scales or zero-points do not fit its weights") from error


def _narrow_type(dtype: str, difference: NDArray[np.generic]) -> int | None:
    if dtype not in _SMALL_INTEGERS or not difference.size or not _in_pairs(dtype, difference.size):
        return None
    low, high = int(difference.min()), int(difference.max())
    if dtype in _PACKED and low >= -8 and high <= 7:
        return int(TensorProto.INT4)
    return int(TensorProto.INT8) if low >= -128 and high <= 127 else None


def _dequantized(
    node: gs.Node, difference: NDArray[np.generic], grain: Granularity, emit: Emitter
) -> NDArray[np.generic]:
    steps = node.inputs[1]
    known = emit.edit.value(steps)
    if known is None:
        raise DeclinedError(f"its scale is only known at run time: --freeze-input {steps.name}=…")
    told = int(node.attrs.get("output_dtype", TensorProto.UNDEFINED))
    wanted = told or int(onnx.helper.np_dtype_to_tensor_dtype(known.dtype))
    step: Operand = known.astype(np.float32)
    if known.ndim == 1:
        step = np.asarray(step).reshape([] if known.size == 1 else list(grain.vector_shape))
    product = _fitting(np.multiply, difference.astype(np.float32), np.asarray(grain.spread(step, steps, emit)))
    if dtype_name(wanted) == "float32":
        return product
    return product.astype(onnx.helper.tensor_dtype_to_np_dtype(wanted))
