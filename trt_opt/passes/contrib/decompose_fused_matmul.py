"""ONNX Runtime's fused matrix products in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.activation_nodes import activated
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape, scalar, text

_OF_GEMM = ("alpha", "beta", "transA", "transB")


class DecomposeFusedMatmul(NodePass):
    """Writes ONNX Runtime's fused matrix products out in standard operators.

    What it does: FusedMatMul and TransposeMatMul become Transposes of the operands, MatMul, and a Mul by alpha;
    FusedGemm becomes Gemm and its activation function; FusedMatMulActivation both.

    Why TensorRT wants it: They are operators of ONNX Runtime's own domain, which an optimised model saved by it
    contains. TensorRT has no importers for them, and takes Transposes into its matrix products by itself.

    Example: com.microsoft::FusedMatMul(a, b, transB=1, alpha=0.125) becomes Transpose, MatMul, Mul.

    When it declines: An operand is transposed and its rank is not known; the result is scaled or clipped and the
    element type is not known; the activation function is none that ONNX Runtime fuses.
    """

    name = "decompose_fused_matmul"
    operators = frozenset(
        f"com.microsoft::{name}" for name in ("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", "FusedGemm")
    )
    oldest_opset = 7

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        product = _gemm(node, emit) if node.op == "FusedGemm" else _matmul(node, emit)
        activation = text(node.attrs.get("activation", ""))
        if not activation:
            return (product,)
        parameters = [node.attrs[name] for name in ("activation_alpha", "activation_beta") if name in node.attrs]
        return (activated(emit, product, activation, parameters, element_type(emit, *node.inputs[:2])),)


def _gemm(node: gs.Node, emit: Emitter) -> gs.Tensor:
    given = {name: node.attrs.get(name) for name in _OF_GEMM}
    made: gs.Tensor = emit("Gemm", *node.inputs[:2], optional_input(node, 2), **given)
    return made


def _matmul(node: gs.Node, emit: Emitter) -> gs.Tensor:
    left, right = (
        _transposed(emit, node.inputs[position], bool(node.attrs.get(f"trans{side}")), bool(node.attrs.get(batch)))
        for position, side, batch in ((0, "A", "transBatchA"), (1, "B", "transBatchB"))
    )
    made: gs.Tensor = emit("MatMul", left, right)
    alpha = node.attrs.get("alpha", 1.0)
    if alpha == 1:
        return made
    scaled: gs.Tensor = emit("Mul", made, scalar(emit, alpha, element_type(emit, *node.inputs[:2])))
    return scaled


def _transposed(emit: Emitter, operand: gs.Tensor, matrix: bool, batch: bool) -> gs.Tensor:
    """The operand with its first axis moved behind the batch axes, and then its last two exchanged, as asked for."""
    if not (matrix or batch):
        return operand
    order = list(range(len(known_shape(emit, operand))))
    if batch and len(order) > 2:
        order = [*order[1:-1], order[0], order[-1]]
    if matrix and len(order) > 1:
        order[-2:] = order[-1], order[-2]
    if order == sorted(order):
        return operand
    made: gs.Tensor = emit("Transpose", operand, perm=order)
    return made
