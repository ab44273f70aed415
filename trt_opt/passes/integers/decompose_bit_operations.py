"""Bit operators as integer arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.integers.bit_arithmetic import Bits
from trt_opt.passes.integers.bit_operators import BIT_OPERATORS, bit_operation
from trt_opt.passes.integers.integer_types import CARRIERS, carried
from trt_opt.passes.node_pass import DeclinedError, NodePass


class DecomposeBitOperations(NodePass):
    """Replaces BitShift, BitwiseAnd, BitwiseOr, BitwiseXor and BitwiseNot by integer arithmetic.

    What it does: A shift multiplies or divides by a power of two, with everything beyond the type's width cut off and
    negative numbers shifted as their complement. AND takes the operands apart into bits, multiplies, and adds up; with
    a constant it needs two remainders for each run of ones. OR, XOR and NOT follow from AND by adding and subtracting.
    Types narrower than INT32, and unsigned ones, are carried in INT32 or INT64 between two Casts. Nothing overflows and
    nothing negative is divided.

    Why TensorRT wants it: It has no bit operators.

    Example: BitwiseAnd(x, 255) of INT32 becomes a remainder by 256; BitShift(x, 3, RIGHT) of UINT8 becomes
    Cast(Div(Cast(x), 8)).

    When it declines: The type of the input is not known. The bits of two tensors (not of a tensor and a number) are
    laid along a new axis, which takes that many times their memory and one of TensorRT's eight dimensions.
    """

    name = "decompose_bit_operations"
    operators = BIT_OPERATORS

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        dtype = emit.edit.dtype(node.inputs[0])
        if dtype is None or dtype not in CARRIERS:
            raise DeclinedError(f"the type of its input is {dtype or 'not known'}")
        operands = [_carried(emit, tensor, dtype) for tensor in node.inputs]
        if all(isinstance(operand, np.ndarray) for operand in operands):
            raise DeclinedError("its inputs are constant: folding constants computes it")
        found = bit_operation(emit, node, operands, dtype)
        if CARRIERS[dtype] != dtype:
            return (emit.cast(found, dtype),)
        return (found if isinstance(found, gs.Tensor) else emit.constant(found),)


def _carried(emit: Emitter, tensor: gs.Tensor, dtype: str) -> Bits:
    values = emit.edit.value(tensor)
    if values is not None:
        return carried(values, dtype)
    return tensor if CARRIERS[dtype] == dtype else emit.cast(tensor, CARRIERS[dtype])
