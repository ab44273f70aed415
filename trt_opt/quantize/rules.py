"""The placement rules: which layers run quantised, in INT8 or FP8, each with its reason.

Sources: NVIDIA's "Working with Quantized Types" (TensorRT developer guide) for the fusions, measured behaviour of
TensorRT-RTX 1.7 for what its builder takes. The rules are tried in the order of the functions here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex, attribute_of

SMALLEST_USEFUL_MATMUL = 16
"""Tensor-core tiles for INT8 and FP8 are 16 wide: a MatMul with K or N below seldom gains."""

COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

COMMUTING_OPS = frozenset(
    {
        "MaxPool",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "DepthToSpace",
        "SpaceToDepth",
        "Identity",
        "Expand",
        "Tile",
    }
)
"""Operators that only pick or move elements: quantising before them equals quantising after them."""

AVERAGING_OPS = frozenset({"AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of one node.

    Attributes:
        quantized: Whether it runs in INT8 or FP8.
        rule: The rule's name.
        reason: Why, in one sentence.
        weight_axis: The output-channel axis of its weights; None without constant weights.
    """

    quantized: bool
    rule: str
    reason: str
    weight_axis: int | None = None


def verdict_on(node: onnx.NodeProto, index: GraphIndex, *, activation_products: bool = False) -> Verdict:
    """Judges one node by itself, without looking at its neighbours.

    Args:
        node: The node.
        index: Its graph.
        activation_products: Whether products of two activations may be quantised.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in COMPUTE_OPS:
        return Verdict(False, "not-a-compute-layer", f"{node.op_type} gains nothing from quantisation by itself")
    weights = index.constant(node.input[1]) if len(node.input) > 1 else None
    if weights is None:
        return _without_constant_weights(node, index, activation_products)
    return _unfit(node, weights, index) or _fit(node, weights)


def _unfit(node: onnx.NodeProto, weights: NDArray[np.generic], index: GraphIndex) -> Verdict | None:
    """What forbids quantisation whatever the operator."""
    if weights.dtype != np.float32 or index.element_type(node.input[0]) != onnx.TensorProto.FLOAT:
        return Verdict(False, "not-float", f"the weights are {weights.dtype}, quantisation starts from float32")
    if not np.isfinite(weights).all():
        return Verdict(False, "weights-not-finite", "the weights hold NaN or infinity")
    if index.is_constant(node.input[0]):
        return Verdict(False, "constant-input", "its input is constant: it is computed once, at build time")
    return None


def _fit(node: onnx.NodeProto, weights: NDArray[np.generic]) -> Verdict:
    match node.op_type:
        case "Conv":
            return Verdict(True, "convolution", _convolution_reason(node, weights), 0)
        case "ConvTranspose":
            return Verdict(True, "transposed-convolution", "constant weights, one scale per output channel", 1)
        case "Gemm":
            return _gemm(node, weights)
        case _:
            return _matmul(weights)


def _without_constant_weights(node: onnx.NodeProto, index: GraphIndex, activation_products: bool) -> Verdict:
    maker = index.producer(node.input[1]) if len(node.input) > 1 else None
    if maker is not None and maker.op_type == "DequantizeLinear" and index.is_constant(maker.input[0]):
        return Verdict(False, "weights-stored-quantised", "its weights are stored quantised already, and stay so")
    if node.op_type in ("MatMul", "Gemm") and len(node.input) > 1 and index.is_constant(node.input[0]):
        return Verdict(
            False, "weights-on-the-left", "the constant is the left operand, a quantised product wants it on the right"
        )
    if node.op_type in ("MatMul", "Gemm"):
        if activation_products and node.op_type == "MatMul" and _both_float(node, index):
            return Verdict(True, "activation-by-activation", "both operands are activations, quantised as asked")
        return Verdict(False, "activation-by-activation", "both operands are activations: off by default")
    return Verdict(False, "weights-at-run-time", "the weights are computed at run time")


def _both_float(node: onnx.NodeProto, index: GraphIndex) -> bool:
    return all(index.element_type(name) == onnx.TensorProto.FLOAT for name in node.input[:2])


def _convolution_reason(node: onnx.NodeProto, weights: NDArray[np.generic]) -> str:
    groups = attribute_of(node, "group", 1)
    if groups == weights.shape[0] and groups != 1:
        return "depthwise convolution, one weight scale per channel"
    return "constant weights, one scale per output channel"


def _gemm(node: onnx.NodeProto, weights: NDArray[np.generic]) -> Verdict:
    if attribute_of(node, "transA", 0):
        return Verdict(False, "transposed-activations", "transA moves the reduction axis of the activations")
    axis = 0 if attribute_of(node, "transB", 0) else 1
    return _worth_it(inner=weights.shape[1 - axis], outer=weights.shape[axis], axis=axis)


def _matmul(weights: NDArray[np.generic]) -> Verdict:
    if weights.ndim != 2:
        return Verdict(False, "batched-weights", f"weights of rank {weights.ndim} have no single output axis")
    return _worth_it(inner=weights.shape[0], outer=weights.shape[1], axis=1)


def _worth_it(*, inner: int, outer: int, axis: int) -> Verdict:
    if min(inner, outer) < SMALLEST_USEFUL_MATMUL:
        return Verdict(
            False,
            "matmul-too-small",
            f"{inner}x{outer} weights: below {SMALLEST_USEFUL_MATMUL}, quantisation seldom gains",
        )
    return Verdict(True, "matrix-product", f"constant {inner}x{outer} weights, one scale per output column", axis)


def moves_data_only(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether quantising the node's first input equals quantising its output."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "MaxPool":
        return len([output for output in node.output if output]) == 1
    if node.op_type == "Resize":
        return attribute_of(node, "mode", b"nearest") == b"nearest"
    if node.op_type == "Pad":
        return _pads_with_zero(node, index)
    return node.op_type in COMMUTING_OPS


def _pads_with_zero(node: onnx.NodeProto, index: GraphIndex) -> bool:
    if attribute_of(node, "mode", b"constant") != b"constant":
        return True
    if len(node.input) < 3 or not node.input[2]:
        return attribute_of(node, "value", 0.0) == 0.0
    value = index.constant(node.input[2])
    return value is not None and not np.any(value)
