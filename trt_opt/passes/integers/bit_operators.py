"""ONNX's bit operators, by the functions that compute them on carried values."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.integers.bit_arithmetic import (
    Bits,
    complement,
    conjunction,
    disjunction,
    exclusive_disjunction,
    shifted,
)

BIT_OPERATORS = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"})


def bit_operation(emit: Emitter, node: gs.Node, operands: Sequence[Bits], dtype: str) -> Bits:
    """What the node computes, of carried operands that stand for `dtype`."""
    match node.op:
        case "BitShift":
            return shifted(emit, operands[0], operands[1], dtype, str(node.attrs["direction"]))
        case "BitwiseAnd":
            return conjunction(emit, operands[0], operands[1], dtype)
        case "BitwiseOr":
            return disjunction(emit, operands[0], operands[1], dtype)
        case "BitwiseXor":
            return exclusive_disjunction(emit, operands[0], operands[1], dtype)
    return complement(emit, operands[0], dtype)
