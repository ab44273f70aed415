"""Rules about layers and their weights, and about what FP16 cannot hold."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from trt_opt.graph.float_types import holds_half_floats
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.quantize.fp16_risks import GENERATING_OPS, constant_risk, extremes, risk_of
from trt_opt.quantize.lint.linted_graph import STANDARD, LintedGraph, is_blocked
from trt_opt.quantize.lint.rule import Breach, Rule
from trt_opt.quantize.rules import SMALLEST_USEFUL_MATMUL
from trt_opt.values.lint import RuleDescription

BIASED_OPS = ("Conv", "ConvTranspose", "Gemm")


def _batch_normalization(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.nodes:
        layer = graph.index.producer(node.input[0]) if node.op_type == "BatchNormalization" else None
        if layer is None or not graph.is_compute(layer) or len(layer.input) < 2:
            continue
        if any(graph.dequantizer_of(name, moved=True) is not None for name in layer.input[:2]):
            yield Breach((node.name, layer.name), f"it follows the quantised {layer.op_type} {layer.name!r}")


def _per_tensor_weights(graph: LintedGraph) -> Iterator[Breach]:
    for layer in graph.nodes:
        weights = graph.weight_dequantizer(layer) if layer.op_type in ("Conv", "ConvTranspose") else None
        if weights is None or is_blocked(weights) or not graph.holds_integers(weights):
            continue
        scale, shape = graph.scale(weights), graph.index.shape(layer.input[1])
        channels = (shape[0] if layer.op_type == "Conv" else shape[1]) if shape is not None and len(shape) > 1 else None
        if scale is not None and scale.size == 1 and channels != 1:
            yield Breach(
                (layer.name, weights.name), f"one scale for all {channels or ''} output channels".replace("  ", " ")
            )


def _not_stored(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        if graph.is_q(node) and graph.is_build_time(node.input[0]):
            yield Breach((node.name,), f"{node.input[0]!r} is stored in float and quantised when the engine is built")


def _quantized_bias(graph: LintedGraph) -> Iterator[Breach]:
    for layer in graph.nodes:
        if (
            layer.op_type not in BIASED_OPS
            or layer.domain not in STANDARD
            or len(layer.input) < 3
            or not layer.input[2]
        ):
            continue
        maker = graph.dequantizer_of(layer.input[2])
        if maker is not None and graph.integer_type(maker) != TensorProto.INT32:
            yield Breach((maker.name, layer.name), f"it quantises the bias of {layer.op_type} {layer.name!r}")


def _small_matmul(graph: LintedGraph) -> Iterator[Breach]:
    for layer in graph.nodes:
        if layer.op_type not in ("MatMul", "Gemm") or not graph.runs_in_int8(layer):
            continue
        shape = graph.index.shape(layer.input[1])
        sizes = [size for size in shape[-2:] if size is not None] if shape is not None else []
        if len(sizes) == 2 and min(sizes) < SMALLEST_USEFUL_MATMUL:
            yield Breach((layer.name,), f"its right operand is {sizes[0]}x{sizes[1]}, INT8 tiles are 16 wide")


def _fp16(graph: LintedGraph) -> Iterator[Breach]:
    """Without data constants alone are judged; a model with FP16 in it has decided already what stays in FP32."""
    if holds_half_floats(graph.index.model):
        return
    seen = extremes(graph.index, graph.ranges) if graph.ranges else {}
    for node in graph.nodes:
        if node.op_type in GENERATING_OPS or node.domain not in STANDARD or any(True for _ in subgraphs_of(node)):
            continue
        if graph.ranges:
            reason = risk_of(node, graph.index, seen, graph.ranges)
        else:  # the scales of pairs have rules of their own
            reason = None if graph.is_q(node) or graph.is_dq(node) else constant_risk(node, graph.index)
        if reason is not None:
            yield Breach((node.name,), reason)


LAYER_RULES = (
    Rule(
        RuleDescription(
            "batchnorm-not-folded",
            "warning",
            "A BatchNormalization behind a quantised layer",
            "It stands between the INT8 layer and its activation and keeps them from fusing.",
            "fold it into the layer's scales and bias",
            "edit",
        ),
        _batch_normalization,
    ),
    Rule(
        RuleDescription(
            "weights-per-tensor",
            "note",
            "A convolution's weights share one scale",
            "TensorRT takes one per output channel at no cost; one for all loses accuracy where channels differ "
            "(Krishnamoorthi 2018, arXiv 1806.08342, section 3).",
            "quantise the float model with `trt-opt quantize`: one scale per output channel",
        ),
        _per_tensor_weights,
    ),
    Rule(
        RuleDescription(
            "weights-not-stored-quantized",
            "note",
            "Weights are stored in float in front of a QuantizeLinear",
            "The same engine from a file four times as large.",
            "store them quantised",
            "edit",
        ),
        _not_stored,
    ),
    Rule(
        RuleDescription(
            "bias-quantized",
            "warning",
            "A bias comes through a pair",
            'TensorRT adds biases in float: 8 bits only make them inexact ("Working with Quantized Types").',
            "store the bias in float",
            "edit",
        ),
        _quantized_bias,
    ),
    Rule(
        RuleDescription(
            "matmul-too-small",
            "note",
            "A small matrix product in INT8",
            "INT8 tensor-core tiles are 16 wide: with fewer rows or columns the conversions cost more than is gained.",
            "leave it in float: `trt-opt quantize --exclude NODE`",
        ),
        _small_matmul,
    ),
    Rule(
        RuleDescription(
            "fp16-overflow-risk",
            "warning",
            "FP16 cannot hold a constant or, with data, a tensor",
            "FP16 ends at 65504 and reads what is below 6e-8 as zero (IEEE 754 binary16).",
            "`trt-opt build --fp16` keeps such nodes in FP32 by itself; other tools need them named",
        ),
        _fp16,
    ),
)
"""About layers."""
