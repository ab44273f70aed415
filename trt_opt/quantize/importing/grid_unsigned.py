"""Signed weights of integer operators as unsigned ones, on which ONNX Runtime is exact on every CPU.

Its UINT8 x INT8 kernels add pairs of products in saturating 16-bit integers where the CPU has no VNNI; the
UINT8 x UINT8 kernels do not.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import infer_shapes
from trt_opt.graph.writer import GraphWriter

WEIGHTS_AT = MappingProxyType(
    {"QLinearConv": (3, 5), "QLinearMatMul": (3, 5), "QGemm": (3, 5), "ConvInteger": (1, 3), "MatMulInteger": (1, 3)}
)
"""Operator → the positions of its weights and of their zero-point."""

ACTIVATION_ZERO_AT = 2
"""The position of the activation's zero-point in all of them."""


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with 128 added to constant INT8 weights, and their zero-points, where UINT8 meets them.

    The model itself where there is none. INT8 activations are left alone: there is no kernel for INT8 x UINT8.
    """
    named = with_unique_node_names(model)
    index = GraphIndex(infer_shapes(named))
    concerned = [node for node in named.graph.node if node.op_type in WEIGHTS_AT and _is_signed(node, index)]
    if not concerned:
        return model
    writer = GraphWriter(named)
    for node in concerned:
        edited = writer.nodes[node.name]
        at, zero_at = WEIGHTS_AT[node.op_type]
        edited.input.extend([""] * (zero_at + 1 - len(edited.input)))
        zero = edited.input[zero_at]
        for position, array in (
            (at, index.constant(node.input[at])),
            (zero_at, index.constant(zero) if zero else np.zeros((), np.int8)),
        ):
            moved = (np.asarray(array, np.int16) + 128).astype(np.uint8)
            edited.input[position] = writer.constant(f"{node.input[at]}_unsigned", moved)
    return writer.finished()


def _is_signed(node: onnx.NodeProto, index: GraphIndex) -> bool:
    at, zero_at = WEIGHTS_AT[node.op_type]
    weights = index.constant(node.input[at])
    zero = node.input[zero_at] if len(node.input) > zero_at else ""
    meets = index.element_type(node.input[ACTIVATION_ZERO_AT] if len(node.input) > ACTIVATION_ZERO_AT else "")
    if meets is None:
        meets = index.element_type(node.input[0])
    if meets != onnx.TensorProto.UINT8 or weights is None or weights.dtype != np.int8:
        return False
    return not zero or index.is_constant(zero)
