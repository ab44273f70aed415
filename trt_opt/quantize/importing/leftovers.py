"""What of a model is not in normal form."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import PAIR_OPS
from trt_opt.graph.tensors import graphs_of, subgraphs_of
from trt_opt.quantize.importing.constants import ConstantReader
from trt_opt.values.changes import Decline

DYNAMIC = frozenset(
    {"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger"}
    | {"MatMulIntegerToFloat"}
)
"""Operators of models whose activations are quantised as they run."""

_MATCHED = DYNAMIC - {"DynamicQuantizeLSTM"}

_OTHERS = frozenset(
    {
        "MatMulInteger16",
        "MatMulNBits",
        "MulInteger",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
        "ReduceSumInteger",
    }
    | {"QOrderedAttention", "QOrderedGelu", "QOrderedLayerNormalization", "QOrderedLongformerAttention"}
    | {"QOrderedMatMul", "QuantizeBFP", "DequantizeBFP", "QuantizeWithOrder", "DequantizeWithOrder"}
)

_LINEAR = frozenset(
    {"Add", "AveragePool", "Concat", "Conv", "GlobalAveragePool", "LeakyRelu", "MatMul", "Mul", "ReduceMean"}
    | {"Sigmoid", "Softmax", "Where"}
)

QUANTISED = PAIR_OPS | DYNAMIC | _OTHERS | frozenset(f"QLinear{name}" for name in _LINEAR)
"""Every operator by which a model is quantised."""


def is_linear_operator(node: onnx.NodeProto) -> bool:
    """Whether a node computes on integers with their grids among its inputs."""
    return node.op_type in QUANTISED - PAIR_OPS - DYNAMIC - {"MatMulNBits"}


def leftovers(model: onnx.ModelProto) -> Iterator[Decline]:
    """The nodes of a rewritten model that are not in normal form, each with the reason."""
    index = GraphIndex(model)
    constant = ConstantReader(index)
    for node in model.graph.node:
        why = _reason(node, index, constant)
        if why is not None:
            yield Decline(node.name, why)


def _reason(node: onnx.NodeProto, index: GraphIndex, constant: ConstantReader) -> str | None:
    if node.op_type in QUANTISED - PAIR_OPS:
        return _DYNAMIC_LEFT if node.op_type in _MATCHED else f"{node.op_type} has no form in Q/DQ"
    if node.op_type in PAIR_OPS and node.domain not in {"", "ai.onnx"}:
        return f"{node.op_type} of {node.domain}"
    if node.op_type == "QuantizeLinear":
        others = [reader for reader, _ in index.readers(node.output[0]) if reader.op_type != "DequantizeLinear"]
        return f"{others[0].op_type} {others[0].name!r} reads its integers" if others else None
    if node.op_type == "DequantizeLinear" and constant(node.input[0]) is None and node.input[0] not in index.inputs:
        maker = index.producer(node.input[0])
        if maker is None or maker.op_type != "QuantizeLinear":
            return f"its integers come from {maker.op_type if maker is not None else 'nowhere'}"
    inside = {inner.op_type for outer in subgraphs_of(node) for graph in graphs_of(outer) for inner in graph.node}
    return "its subgraphs are quantised, and left as they are" if inside & QUANTISED else None


_DYNAMIC_LEFT = "the scale of its result is not one this reader recognises"
