"""Rules about the integers of pairs: their type, their zero-point, and operators that compute with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from trt_opt.graph.index import attribute_of
from trt_opt.graph.query import all_nodes, dtype_name, node_label
from trt_opt.quantize.lint.linted_graph import STANDARD, LintedGraph, has_zero_point
from trt_opt.quantize.lint.rule import Breach, Rule
from trt_opt.quantize.quantized_models import INTEGER_OPS
from trt_opt.values.lint import RuleDescription

QOPERATORS = INTEGER_OPS | {"DynamicQuantizeLSTM", "QEmbedLayerNormalization", "MatMulNBits"}
"""With those whose activations stay float, or that are not imported."""

SUPPORTED_TYPES = frozenset(
    {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1}
)
"""What pairs run through in TensorRT; UINT8 it reads as INT8."""

_IMPORT = "`trt-opt rewrite` brings it into symmetric INT8"


def _uint8(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        zero = graph.zero_point(node)
        told = has_zero_point(node) or graph.is_dq(node) or attribute_of(node, "output_dtype", 0)
        if told and graph.integer_type(node) == TensorProto.UINT8 and zero is not None and not np.any(zero):
            yield Breach(names, "its integers are UINT8, TensorRT reads INT8: what is above 127 saturates")


def _zero_point_missing(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        if graph.is_q(node) and not has_zero_point(node) and not attribute_of(node, "output_dtype", 0):
            yield Breach(names, "without a zero-point ONNX means UINT8 and TensorRT reads INT8")


def _zero_point_not_zero(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        kind = graph.integer_type(node)
        zero = graph.zero_point(node)
        if kind == TensorProto.INT32 or not has_zero_point(node):
            continue
        if zero is None:
            if not graph.is_build_time(node.input[2]):
                yield Breach(names, f"its zero-point {node.input[2]!r} is computed at run time")
        elif np.any(zero):
            which = f"zero-point {zero[0]:g}" if zero.size == 1 else f"{int(np.count_nonzero(zero))} zero-points"
            yield Breach(names, f"{which} of {dtype_name(kind).upper()}: TensorRT takes symmetric quantisation only")


def _unsupported_type(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        kind = graph.integer_type(node)
        if kind not in SUPPORTED_TYPES and kind != TensorProto.INT32:
            yield Breach(names, f"its integers are {dtype_name(kind).upper()}, which TensorRT does not have")


def _int32_bias(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        if graph.is_dq(node) and graph.integer_type(node) == TensorProto.INT32:
            yield Breach((node.name,), f"it dequantises the INT32 tensor {node.input[0]!r}")


def _leftover(graph: LintedGraph) -> Iterator[Breach]:
    for node in all_nodes(graph.index.model):
        is_contrib_pair = node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain not in STANDARD
        if is_contrib_pair or node.op_type in QOPERATORS or node.op_type.startswith("QLinear"):
            where = f" of {node.domain}" if node.domain not in STANDARD else ""
            yield Breach((node_label(node),), f"{node.op_type}{where} computes with integers outside Q/DQ pairs")


INTEGER_RULES = (
    Rule(
        RuleDescription(
            "uint8-read-as-int8",
            "error",
            "A pair runs through UINT8",
            "TensorRT-RTX 1.7 takes UINT8 with zero-point 0 and reads it as INT8: what is above 127 · scale saturates "
            "(run).",
            _IMPORT,
            "import",
        ),
        _uint8,
    ),
    Rule(
        RuleDescription(
            "zero-point-missing",
            "error",
            "A QuantizeLinear without a zero-point",
            "ONNX's default is UINT8; TensorRT-RTX 1.7 reads INT8: what is above 127 · scale saturates (run).",
            _IMPORT,
            "import",
        ),
        _zero_point_missing,
    ),
    Rule(
        RuleDescription(
            "zero-point-not-zero",
            "error",
            "Asymmetric quantisation",
            "The parser refuses it: non-zero zero-points are for DLA alone (run).",
            _IMPORT,
            "import",
        ),
        _zero_point_not_zero,
    ),
    Rule(
        RuleDescription(
            "quantized-type-unsupported",
            "error",
            "A pair runs through integers that TensorRT does not have",
            "The parser refuses INT16, UINT16, UINT4 and the other FP8 formats (run for the 16-bit ones).",
            _IMPORT,
            "import",
        ),
        _unsupported_type,
    ),
    Rule(
        RuleDescription(
            "int32-bias",
            "error",
            "A DequantizeLinear of INT32, as ONNX Runtime's quantizer writes for biases",
            "The parser refuses it: TensorRT wants biases in float (run).",
            "store the bias in float",
            "edit",
        ),
        _int32_bias,
    ),
    Rule(
        RuleDescription(
            "qoperator-leftover",
            "error",
            "An operator that computes with integers by itself",
            "The parser knows Q/DQ pairs alone: QLinear…, …Integer, DynamicQuantizeLinear and ONNX Runtime's own are "
            "refused (run).",
            "`trt-opt rewrite` writes it as Q/DQ pairs, or in floats where it quantises dynamically",
            "import",
        ),
        _leftover,
    ),
)
"""About integers."""
