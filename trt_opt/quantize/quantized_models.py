"""Models that were quantised before they came here."""

from __future__ import annotations

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.rules import COMPUTE_OPS, moves_data_only
from trt_opt.values.precision import LayerDecision

QUANTIZED_OPS = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
    | {"QGemm", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)

CAME_SO = "came-quantized"
"""The rule by which a layer of such a model is what it is."""


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model quantises activations already; weights stored in 8 bits alone do not count."""
    return any(node.op_type in QUANTIZED_OPS or node.op_type.startswith("QLinear") for node in model.graph.node)


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
    def told(precision: str, reason: str) -> LayerDecision:
        return LayerDecision(node.name, node.op_type, precision, CAME_SO, reason)  # type: ignore[arg-type]

    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return told("other", "converts between floats and integers")
    behind = [_comes_from_pair(name, index) for name in node.input[:2]]
    if node.op_type not in COMPUTE_OPS:
        if behind and all(behind) and node.input:
            return told("int8", "the model as given quantises what it reads")
        return told("fp32", "the model as given leaves it in float")
    if len(behind) == 2 and all(behind):
        return told("int8", "the model as given quantises its operands")
    if len(behind) == 2 and behind[1]:
        return told("int8-weights", "the model as given stores its weights quantised")
    return told("fp32", "the model as given leaves it in float")


def _comes_from_pair(tensor: str, index: GraphIndex) -> bool:
    """Whether a DequantizeLinear writes the tensor, maybe with nothing but data movement behind it."""
    maker = index.producer(tensor)
    while maker is not None and maker.op_type != "DequantizeLinear" and moves_data_only(maker, index):
        maker = index.producer(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"
