"""Det by expansion into minors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

LARGEST = 10
"""Rows of the largest matrix; its 252 minors of five rows are the widest step."""

_WIDENED = frozenset({"float16", "bfloat16"})


class UnrollDeterminant(NodePass):
    """Replaces Det by Laplace's expansion, which needs no pivots and no division.

    What it does: The minors of the first rows, for every choice of columns, are made from those of one row less: each
    is a sum of elements of the new row times smaller minors. One Gather of elements, one of minors, two products and a
    ReduceSum make all minors of a size. Half precision is computed in float32.

    Why TensorRT wants it: It has no determinant.

    Example: Det(x [B, 2, 2]) becomes ReduceSum(x[:, 1] * x[:, 0, [1, 0]] * [-1, 1]).

    When it declines: The size of the matrices is not static, or above 10.
    """

    name = "unroll_determinant"
    operators = frozenset({"Det"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        size = shape[-1] if shape else None
        if not shape or dtype is None or size is None or not 1 <= size <= LARGEST:
            raise DeclinedError(f"the size of its matrices is not static, or not between 1 and {LARGEST}")
        matrix = emit.cast(source, "float32") if dtype in _WIDENED else source
        minors = _row(emit, matrix, 0)
        for row in range(1, size):
            minors = _larger_minors(emit, _row(emit, matrix, row), minors, (row, size, dtype))
        result = emit.squeeze(minors, [-1])
        return (emit.cast(result, dtype) if dtype in _WIDENED else result,)


def _row(emit: Emitter, matrix: gs.Tensor, row: int) -> gs.Tensor:
    made: gs.Tensor = emit("Gather", matrix, np.int64(row), axis=-2)
    return made


def _larger_minors(emit: Emitter, elements: gs.Tensor, minors: gs.Tensor, step: tuple[int, int, str]) -> gs.Tensor:
    """Minors with one row more; `step` is that row, the size of the matrix and its type."""
    row, size, dtype = step
    smaller = {columns: number for number, columns in enumerate(combinations(range(size), row))}
    larger = list(combinations(range(size), row + 1))
    without = [[smaller[columns[:one] + columns[one + 1 :]] for one in range(row + 1)] for columns in larger]
    signs = np.asarray([(-1.0) ** (row + one) for one in range(row + 1)])
    factors = emit("Gather", elements, np.asarray(larger, np.int64), axis=-1)
    cofactors = emit("Gather", minors, np.asarray(without, np.int64), axis=-1)
    signed = emit("Mul", factors, emit.constant(signs, "float32" if dtype in _WIDENED else dtype))
    return emit.reduce("ReduceSum", emit("Mul", signed, cofactors), [-1], keepdims=False)
