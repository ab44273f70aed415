"""The rules for weights that are stored quantised and computed with in float.

What is taken was found by building with TensorRT-RTX 1.7 for SM 8.6 and 8.9, scales in FP32 and in FP16:

* INT8 with one scale per channel: for every Conv, ConvTranspose, Gemm and MatMul, the weights on either side, batched
  or not, of odd sizes too, and for the table of a Gather. The engine keeps the INT8 numbers. By the scratch memory that
  the builder reports, a product turns them back while it reads them, and a Gather the rows it picks; a convolution
  writes all its weights in float to scratch memory at each run: it gains size there, and no speed.
* INT4 in blocks along the reduction axis: for Gemm and MatMul with the weights on the right, batched or not.
  With weights on the left the builder crashes. A convolution's weights must not be cut along their input channels, and
  one scale per channel is too coarse for 16 numbers. The number of weights must be even.
* Where the block does not divide the axis, ONNX says that the last block is shorter; TensorRT sees only how many
  scales there are. Only blocks that divide the axis mean the same to both.

A table that a Gather reads stays in INT8: every token's error would go through the whole model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.rules import COMPUTE_OPS
from trt_opt.values.placement import FormatName, Reader, WeightQuantizer

SMALLEST_BLOCK = 16
"""Below it the scales eat up what four bits save."""

NODE_BYTES = 256
"""What a DequantizeLinear and its names cost in a model file, about."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """What is asked for.

    Attributes:
        number_format: "int8" or "int4".
        block_size: How many INT4 weights share one scale at most.
        float_bytes: Of one weight that stays float: 2 with FP16, else 4.
    """

    number_format: FormatName
    block_size: int
    float_bytes: int


@dataclass(frozen=True, slots=True)
class WeightVerdict:
    """What the rules say of one node.

    Attributes:
        rule: The rule's name.
        reason: Why, in one sentence.
        quantizer: How its weights are stored; None where they stay float.
    """

    rule: str
    reason: str
    quantizer: WeightQuantizer | None = None


@dataclass(frozen=True, slots=True)
class _Weights:
    """Constant weights of a node: where they are read, and their axes."""

    position: int
    values: NDArray[np.generic]
    output_axis: int
    reduction_axis: int | None


def weight_verdict_on(node: onnx.NodeProto, index: GraphIndex, wanted: WeightFormat) -> WeightVerdict:
    """Judges one node.

    Args:
        node: The node.
        index: Its graph.
        wanted: The format asked for.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in (*COMPUTE_OPS, "Gather"):
        return WeightVerdict("not-a-compute-layer", f"{node.op_type} has no weights that could be stored smaller")
    weights = _weights_of(node, index)
    if weights is None:
        return WeightVerdict("no-constant-weights", "it has no constant weights with an output channel")
    if weights.values.dtype != np.float32:
        return WeightVerdict("not-float", f"the weights are {weights.values.dtype}, quantisation starts from float32")
    if not np.isfinite(weights.values).all():
        return WeightVerdict("weights-not-finite", "the weights hold NaN or infinity")
    tensor = node.input[weights.position]
    if index.is_read_elsewhere(tensor):
        return WeightVerdict("read-elsewhere", f"{tensor!r} is read in float too: storing it twice saves nothing")
    verdict = _in_int4(node, weights, wanted) if wanted.number_format == "int4" else _in_int8(node, weights)
    if verdict.quantizer is not None and not _saves(weights.values, verdict.quantizer, wanted.float_bytes):
        return WeightVerdict("weights-too-few", f"{weights.values.size} weights: scales and nodes eat up what is saved")
    return verdict


def _weights_of(node: onnx.NodeProto, index: GraphIndex) -> _Weights | None:
    """The node's constant weights; None without, or where both operands are constant."""
    constants = [position for position, name in enumerate(node.input[:2]) if index.is_constant(name)]
    positions = [0] if node.op_type == "Gather" else [0, 1] if node.op_type in ("Gemm", "MatMul") else [1]
    if len(constants) != 1 or constants[0] not in positions:
        return None
    position = constants[0]
    values = index.constant(node.input[position])
    if values is None or values.ndim < 2:
        return None
    match node.op_type:
        case "Gather":
            axis = attribute_of(node, "axis", 0)
            return _Weights(0, values, int(axis) % values.ndim if isinstance(axis, int) else 0, None)
        case "Conv" | "ConvTranspose":
            return _Weights(1, values, int(node.op_type == "ConvTranspose"), None)
    is_transposed = bool(attribute_of(node, "transA" if position == 0 else "transB", 0))
    rows, columns = values.ndim - 2, values.ndim - 1
    is_columns = (position == 1) != is_transposed
    return _Weights(position, values, columns if is_columns else rows, rows if is_columns else columns)


def _in_int8(node: onnx.NodeProto, weights: _Weights, why: str = "") -> WeightVerdict:
    tensor = node.input[weights.position]
    quantizer = WeightQuantizer(Reader(node.name, weights.position), tensor, weights.output_axis)
    kind = "table entries" if node.op_type == "Gather" else "weights"
    channels = weights.values.shape[weights.output_axis]
    reason = f"its {weights.values.size} {kind} in INT8, {channels} scales"
    return WeightVerdict("weights-in-int8", f"{reason}{f': {why}' if why else ''}", quantizer)


def _in_int4(node: onnx.NodeProto, weights: _Weights, wanted: WeightFormat) -> WeightVerdict:
    if node.op_type == "Gather":
        return _in_int8(node, weights, "four bits are too few for a table")
    if weights.reduction_axis is None:
        return _in_int8(node, weights, "TensorRT takes no INT4 blocks in a convolution")
    if weights.position == 0:
        return _in_int8(node, weights, "TensorRT-RTX crashes on INT4 weights on the left")
    if weights.values.size % 2:
        return _in_int8(node, weights, "TensorRT wants an even number of INT4 weights")
    inner = weights.values.shape[weights.reduction_axis]
    block = largest_block(inner, wanted.block_size)
    if block is None:
        return _in_int8(
            node, weights, f"{inner} is no multiple of a block from {SMALLEST_BLOCK} to {wanted.block_size}"
        )
    quantizer = WeightQuantizer(
        Reader(node.name, weights.position), node.input[weights.position], weights.reduction_axis, "int4", block
    )
    told = "" if block == wanted.block_size else f", which divide {inner}"
    return WeightVerdict(
        "weights-in-int4", f"its {weights.values.size} weights in INT4, in blocks of {block}{told}", quantizer
    )


def largest_block(inner: int, most: int) -> int | None:
    """The largest divisor of the axis from SMALLEST_BLOCK to `most`; None if there is none."""
    return next((size for size in range(min(most, inner), SMALLEST_BLOCK - 1, -1) if inner % size == 0), None)


def _saves(values: NDArray[np.generic], quantizer: WeightQuantizer, float_bytes: int) -> bool:
    """Whether the stored form is smaller than the float one."""
    if quantizer.block_size is None or quantizer.axis is None:
        scales, bits = values.shape[quantizer.axis or 0], 8
    else:
        scales, bits = values.size // quantizer.block_size, 4
    stored = math.ceil(values.size * bits / 8) + scales * float_bytes + NODE_BYTES
    return bool(stored < values.size * float_bytes)
