"""Which inputs of an operator on integers are integers, their scale and their zero-point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx

Operand = tuple[int, int, int]
"""Positions among a node's inputs: integers, scale, zero-point."""

_FIRST: Sequence[Operand] = ((0, 1, 2),)
_FIRST_TWO: Sequence[Operand] = ((0, 1, 2), (3, 4, 5))

OPERANDS: Mapping[str, Sequence[Operand]] = MappingProxyType(
    {
        "DequantizeLinear": _FIRST,
        "MatMulIntegerToFloat": ((0, 2, 4),),
        "QGemm": _FIRST_TWO,
        "QLinearAdd": _FIRST_TWO,
        "QLinearAveragePool": _FIRST,
        "QLinearConv": _FIRST_TWO,
        "QLinearGlobalAveragePool": _FIRST,
        "QLinearLeakyRelu": _FIRST,
        "QLinearMatMul": _FIRST_TWO,
        "QLinearMul": _FIRST_TWO,
        "QLinearReduceMean": _FIRST,
        "QLinearSigmoid": _FIRST,
        "QLinearSoftmax": _FIRST,
        "QLinearWhere": ((1, 2, 3), (4, 5, 6)),
    }
)
"""Operator → its quantised operands, as ONNX's and ONNX Runtime's operator documentation list them."""


def operands_of(node: onnx.NodeProto) -> Sequence[Operand]:
    """The quantised operands of a node; nothing for operators that have none."""
    if node.op_type == "QLinearConcat":
        return tuple((at, at + 1, at + 2) for at in range(2, len(node.input) - 2, 3))
    return OPERANDS.get(node.op_type, ())
