"""Models that were quantised before they came here."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import PAIR_OPS
from trt_opt.quantize.rules import COMPUTE_OPS, moves_data_only
from trt_opt.values.precision import LayerDecision, Precision

INTEGER_OPS = frozenset(
    {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
    | {"QGemm", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)
"""Operators that compute with integers by themselves, beside those called QLinear…: ONNX's own and ONNX Runtime's."""

_QUANTIZING_OPS = INTEGER_OPS | {"QuantizeLinear"}

_FOUR_BITS = frozenset({TensorProto.INT4, TensorProto.UINT4})

CAME_SO = "came-quantized"
"""The rule by which a layer of such a model is what it is."""


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model quantises activations already; weights stored in 8 bits alone do not count."""
    return any(node.op_type in _QUANTIZING_OPS or node.op_type.startswith("QLinear") for node in model.graph.node)


def stores_quantized_weights(model: onnx.ModelProto) -> bool:
    """Whether constants are kept as integers behind DequantizeLinear."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return any(node.op_type == "DequantizeLinear" and node.input[0] in constants for node in model.graph.node)


def decisions_of(index: GraphIndex) -> tuple[LayerDecision, ...]:
    """The precision of every node, read off the Q/DQ pairs around it.

    Args:
        index: An imported model.
    """
    return tuple(_decision(node, index) for node in index.model.graph.node)


def _decision(node: onnx.NodeProto, index: GraphIndex) -> LayerDecision:
    def told(precision: Precision, reason: str) -> LayerDecision:
        return LayerDecision(node.name, node.op_type, precision, CAME_SO, reason)

    if node.op_type in PAIR_OPS:
        return told("other", "converts between floats and integers")
    stored = [_stored_type(name, index) for name in node.input[:2]]
    precision: Precision = "fp8" if TensorProto.FLOAT8E4M3FN in stored else "int8"
    if node.op_type not in COMPUTE_OPS:
        if stored and None not in stored:
            return told(precision, "the model as given quantises what it reads")
        return told("fp32", "the model as given leaves it in float")
    if len(stored) == 2 and None not in stored:
        return told(precision, "the model as given quantises its operands")
    if len(stored) == 2 and stored[1] is not None:
        weights: Precision = "int4-weights" if stored[1] in _FOUR_BITS else "int8-weights"
        return told(weights, "the model as given stores its weights quantised")
    return told("fp32", "the model as given leaves it in float")


def _stored_type(tensor: str, index: GraphIndex) -> int | None:
    """What the tensor is dequantised from, maybe with nothing but data movement behind it; None if from nothing."""
    maker = index.producer(tensor)
    while maker is not None and maker.op_type != "DequantizeLinear" and moves_data_only(maker, index):
        maker = index.producer(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    return index.element_type(maker.input[0]) or TensorProto.UNDEFINED
