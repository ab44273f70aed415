"""MatMul of vectors as MatMul of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass


class MultiplyVectorsAsMatrices(NodePass):
    """Makes the vectors that a MatMul multiplies rows and columns.

    What it does: A vector on the left becomes a matrix of one row, one on the right a matrix of one column; the axis
    of size 1 that leaves in the product is taken out again.

    Why TensorRT wants it: It squeezes the product of a vector and a batch of matrices at the wrong place.

    Example: MatMul(v [4], x [2, 4, 3]) becomes Squeeze(MatMul(Unsqueeze(v, 0), x), -2).

    When it declines: The rank of an operand is not known. Products of matrices are left alone.
    """

    name = "multiply_vectors_as_matrices"
    operators = frozenset({"MatMul"})

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only those that may have a vector among their operands."""
        return super().wants(node, edit) and any(edit.rank(operand) in {1, None} for operand in node.inputs)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        left, right = node.inputs
        ranks = emit.edit.rank(left), emit.edit.rank(right)
        if None in ranks:
            raise DeclinedError("the rank of an operand is not known")
        row = emit.unsqueeze(left, [0]) if ranks[0] == 1 else left
        column = emit.unsqueeze(right, [1]) if ranks[1] == 1 else right
        left_over = [axis for axis, rank in zip((-2, -1), ranks, strict=True) if rank == 1]
        return (emit.squeeze(emit("MatMul", row, column), left_over),)
