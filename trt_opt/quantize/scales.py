"""From ranges to the scales that the graph holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trt_opt.quantize.number_format import INT8, NumberFormat

SMALLEST_FP16 = float(np.finfo(np.float16).smallest_subnormal)
LARGEST_FP16 = float(np.finfo(np.float16).max)
SMALLEST_FP32 = float(np.finfo(np.float32).tiny)


def scale_of(amax: float, *, fp16: bool, number_format: NumberFormat = INT8) -> np.float32:
    """The scale with which the format's largest number stands for `amax`.

    Args:
        amax: The threshold; 0 for a tensor that was zero throughout, which gets the scale of 1.0.
        fp16: Whether the scale must be exact in FP16; it is then rounded up, so that `amax` itself is not clipped.
        number_format: The format.
    """
    scale: np.float32 = scales_of(np.array([amax if amax > 0 else 1.0]), fp16=fp16, number_format=number_format)[0]
    return scale


def scales_of(amax: NDArray[np.floating], *, fp16: bool, number_format: NumberFormat = INT8) -> NDArray[np.float32]:
    """The scales for several thresholds at once, of the thresholds' shape; for a threshold of 0 the smallest there is.

    FP16 counts in steps of 6e-8 below 6.1e-5, and scales that small are common: rounding up there makes a scale coarser
    by one such step at most, and the stored numbers are made for the rounded scale. Scales beyond FP16 stay float32: a
    tensor that large stays FP32 itself.
    """
    scales = np.asarray(amax, np.float64) / number_format.largest
    if not fp16 or scales.max(initial=0.0) > LARGEST_FP16:
        single: NDArray[np.float32] = np.maximum(scales, SMALLEST_FP32).astype(np.float32)
        return single
    half = scales.astype(np.float16)
    half = np.where(half.astype(np.float64) < scales, np.nextafter(half, np.float16(np.inf)), half)
    exact: NDArray[np.float32] = np.maximum(half, np.float16(SMALLEST_FP16)).astype(np.float32)
    return exact
