"""Constant weights as the graph stores them: numbers of a small format, and the scales that turn them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibrators import amax_per_channel
from trt_opt.quantize.number_format import FORMATS, NumberFormat
from trt_opt.quantize.scales import scale_of, scales_of
from trt_opt.values.placement import WeightQuantizer

CLIPPING_RATIOS = np.arange(1.0, 0.59, -0.025)
"""Thresholds tried for a block of INT4 weights, as a share of its largest magnitude."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeights:
    """What a DequantizeLinear reads.

    Attributes:
        numbers: float32, of the weights' shape, each exactly a number of the format.
        scales: float32; no dimension, [channels], or the weights' shape with one entry per block on the blocked axis.
        attributes: The DequantizeLinear's.
    """

    numbers: NDArray[np.float32]
    scales: NDArray[np.float32]
    attributes: Mapping[str, int] = field(default_factory=dict)


def stored_weights(weights: NDArray[np.float32], quantizer: WeightQuantizer, *, fp16: bool) -> StoredWeights:
    """Rounds weights to the numbers of their format.

    Args:
        weights: Finite, of any shape.
        quantizer: Their format, and what shares one scale.
        fp16: Whether scales must be exact in FP16.
    """
    number_format = FORMATS[quantizer.number_format]
    if quantizer.block_size is not None and quantizer.axis is not None:
        return _in_blocks(weights, quantizer.axis, quantizer.block_size, number_format, fp16=fp16)
    if quantizer.axis is None:
        amax = float(np.abs(weights).max(initial=0.0))
        scale = np.asarray(scale_of(amax, fp16=fp16, number_format=number_format))
        return StoredWeights(number_format.rounded(weights / scale), scale)
    scales = scales_of(amax_per_channel(weights, quantizer.axis), fp16=fp16, number_format=number_format)
    shape = [1] * weights.ndim
    shape[quantizer.axis] = -1
    numbers = number_format.rounded(weights / scales.reshape(shape))
    return StoredWeights(numbers, scales, {"axis": quantizer.axis})


def _in_blocks(
    weights: NDArray[np.float32], axis: int, size: int, number_format: NumberFormat, *, fp16: bool
) -> StoredWeights:
    """One scale per block of `size` weights along the axis, each the one with the least squared error.

    With four bits, cutting off a block's few largest weights buys finer steps for all others. How much to cut off is
    found by trying: for every block, the threshold among CLIPPING_RATIOS whose rounded weights are nearest to the real
    ones (plain mean-squared-error clipping, done per block).
    """
    shape = weights.shape
    blocks = weights.reshape(*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
    amax = np.abs(blocks).max(axis=axis + 1, keepdims=True)
    best, least = np.zeros_like(amax), np.full_like(amax, np.inf)
    for ratio in CLIPPING_RATIOS:
        scales = scales_of(amax * ratio, fp16=fp16, number_format=number_format)
        errors = number_format.rounded(blocks / scales)
        errors *= scales
        errors -= blocks
        squares = np.square(errors, out=errors).sum(axis=axis + 1, keepdims=True)
        best = np.where(squares < least, scales, best)
        least = np.minimum(squares, least)
    numbers = number_format.rounded(blocks / best).reshape(shape)
    return StoredWeights(numbers, best.squeeze(axis + 1), {"axis": axis, "block_size": size})
