"""Rules about the scales of pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from trt_opt.graph.index import attribute_of
from trt_opt.graph.query import dtype_name
from trt_opt.quantize.fp16_risks import SMALLEST_NORMAL
from trt_opt.quantize.lint.linted_graph import LintedGraph, axis_of, is_blocked
from trt_opt.quantize.lint.rule import Breach, Rule
from trt_opt.quantize.methods.static import FP16_SCALE_OPSET
from trt_opt.values.lint import RuleDescription

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _not_constant(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        if graph.scale(node) is None and not graph.is_build_time(node.input[1]):
            yield Breach(names, f"its scale {node.input[1]!r} is computed at run time")


def _not_finite(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        scale = graph.scale(node)
        if scale is not None and not np.isfinite(scale).all():
            yield Breach(names, f"{_how_many(~np.isfinite(scale))} NaN or infinite")


def _not_positive(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        scale = graph.scale(node)
        if scale is not None and np.less_equal(scale, 0).any():
            yield Breach(names, f"{_how_many(np.less_equal(scale, 0))} zero or negative")


def _subnormal(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        scale = graph.scale(node)
        if scale is None:
            continue
        is_half = TensorProto.FLOAT16 in (graph.index.element_type(node.input[1]), _float_type(node, graph))
        smallest, name = (SMALLEST_NORMAL, "FP16") if is_half else (float(np.finfo(np.float32).tiny), "float32")
        small = (scale > 0) & (scale < smallest)
        if small.any():
            yield Breach(names, f"{_how_many(small)} below {name}'s smallest normal number, {smallest:.2g}")


def _float_type(node: onnx.NodeProto, graph: LintedGraph) -> int | None:
    """The type of the float side."""
    return graph.index.element_type(node.input[0] if graph.is_q(node) else node.output[0])


def _per_channel_activation(graph: LintedGraph) -> Iterator[Breach]:
    for node, names in graph.heads():
        scale = graph.scale(node)
        several = scale is not None and scale.size > 1 and not is_blocked(node)
        if several and not graph.is_build_time(node.input[0]):
            yield Breach(names, f"the activation {node.input[0]!r} has {scale.size if scale is not None else 0} scales")


def _wrong_weight_axis(graph: LintedGraph) -> Iterator[Breach]:
    for layer in graph.nodes:
        weights = graph.weight_dequantizer(layer)
        if weights is None or is_blocked(weights):
            continue
        scale, shape = graph.scale(weights), graph.index.shape(weights.input[0])
        if scale is None or scale.size < 2 or shape is None:
            continue
        wanted = _output_axis(layer, weights, len(shape), graph)
        axis = axis_of(weights, len(shape))
        if wanted is not None and axis != wanted:
            message = (
                f"{layer.op_type}'s weights have one scale per element of axis {axis}, the output axis is {wanted}"
            )
            yield Breach((weights.name, layer.name), message)


def _output_axis(layer: onnx.NodeProto, weights: onnx.NodeProto, rank: int, graph: LintedGraph) -> int | None:
    """The axis of the stored weights that is the layer's output; None where it cannot be told."""
    axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(layer.op_type)
    if layer.op_type == "Gemm":
        axis = 0 if attribute_of(layer, "transB", 0) else 1
    node = graph.index.producer(layer.input[1])
    while node is not None and node.name != weights.name and axis is not None:
        if node.op_type == "Transpose":
            permutation = attribute_of(node, "perm", list(range(rank))[::-1])
            axis = permutation[axis] if isinstance(permutation, list) else None
        elif not graph.is_float_cast(node):
            return None
        node = graph.index.producer(node.input[0])
    return axis


def _type_mismatch(graph: LintedGraph) -> Iterator[Breach]:
    for node in graph.quantizers():
        kind = graph.index.element_type(node.input[1])
        floats = graph.index.element_type(node.input[0]) if graph.is_q(node) else None
        if kind in _HALVES and graph.opset < FP16_SCALE_OPSET:
            message = f"its scale is {dtype_name(kind)}, which opset {graph.opset} does not have"
            yield Breach((node.name,), message)
        elif kind in _HALVES and floats == TensorProto.FLOAT:
            yield Breach((node.name,), f"its scale is {dtype_name(kind)}, the tensor {node.input[0]!r} is float32")


def _how_many(which: NDArray[np.bool_]) -> str:
    """The beginning of a sentence: its scale is …, or 3 of its 64 scales are …."""
    return "its scale is" if which.size == 1 else f"{int(which.sum())} of its {which.size} scales are"


SCALE_RULES = (
    Rule(
        RuleDescription(
            "scale-not-constant",
            "error",
            "A scale is computed while the model runs",
            "TensorRT wants scales when it builds; TensorRT-RTX 1.7 crashes on others (run).",
            "quantise the float model with `trt-opt quantize`, which writes static scales",
        ),
        _not_constant,
    ),
    Rule(
        RuleDescription(
            "scale-not-finite",
            "error",
            "A scale is NaN or infinite",
            "The parser refuses it (run); the calibration saw NaN or infinity.",
            "calibrate again: `trt-opt quantize` from the float model names the sample that becomes NaN",
        ),
        _not_finite,
    ),
    Rule(
        RuleDescription(
            "scale-not-positive",
            "error",
            "A scale is zero or negative",
            "The parser refuses it: scale coefficients must all be positive (run).",
            "calibrate again with `trt-opt quantize`, or leave the layer in float: --exclude NODE",
        ),
        _not_positive,
    ),
    Rule(
        RuleDescription(
            "scale-subnormal",
            "warning",
            "A scale is too small for its float type to hold precisely",
            "GPUs flush or round such numbers (IEEE 754): the scale is off by up to a half, or zero.",
            "leave the layer in float (`trt-opt quantize --exclude NODE`), or keep the pair in float32",
        ),
        _subnormal,
    ),
    Rule(
        RuleDescription(
            "per-channel-activation",
            "error",
            "An activation has one scale per channel",
            "NvInfer.h allows that for weights alone; the builder of TensorRT-RTX 1.7 takes it without a word (run).",
            "quantise the float model again, one scale per activation: `trt-opt quantize`",
        ),
        _per_channel_activation,
    ),
    Rule(
        RuleDescription(
            "weights-axis-wrong",
            "error",
            "Weights have one scale per element of another axis than the output's",
            "TensorRT scales outputs: Conv axis 0, ConvTranspose 1, the output axis of Gemm and MatMul "
            '("Working with Quantized Types"); TensorRT-RTX 1.7 builds others without a word (run).',
            "quantise the float model again: `trt-opt quantize` knows the axis",
        ),
        _wrong_weight_axis,
    ),
    Rule(
        RuleDescription(
            "scale-type-mismatch",
            "error",
            "A scale in half precision where ONNX has float32 alone",
            "Such a file is not valid ONNX: scales in FP16 exist from opset 19, and have the type of the tensor.",
            "store the scale in float32, between casts where the tensor is a half, or export with opset 19",
            "edit",
        ),
        _type_mismatch,
    ),
)
"""About scales."""
