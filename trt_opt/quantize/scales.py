"""From ranges to the scales that the graph holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INT8_LEVELS = 127
"""Symmetric INT8 uses -127 … 127 for weights; activations may reach -128, which costs nothing."""

SMALLEST_FP16 = float(np.finfo(np.float16).smallest_subnormal)
LARGEST_FP16 = float(np.finfo(np.float16).max)
SMALLEST_FP32 = float(np.finfo(np.float32).tiny)


def scale_of(amax: float, *, fp16: bool) -> np.float32:
    """The step of a symmetric INT8 grid whose 127 stands for `amax`.

    Args:
        amax: The threshold; 0 for a tensor that was zero throughout, which gets the grid of 1.0.
        fp16: Whether the scale must be exact in FP16; it is then rounded up, so that `amax` itself is not clipped.
    """
    step: np.float32 = scales_of(np.array([amax if amax > 0 else 1.0]), fp16=fp16)[0]
    return step


def scales_of(amax: NDArray[np.floating], *, fp16: bool) -> NDArray[np.float32]:
    """The steps for several thresholds at once, shape [channels]; a zero channel gets the smallest step there is.

    Steps beyond FP16 stay float32: a tensor that large stays FP32 itself.
    """
    steps = np.asarray(amax, np.float64) / INT8_LEVELS
    if not fp16 or steps.max(initial=0.0) > LARGEST_FP16:
        single: NDArray[np.float32] = np.maximum(steps, SMALLEST_FP32).astype(np.float32)
        return single
    half = steps.astype(np.float16)
    half = np.where(half.astype(np.float64) < steps, np.nextafter(half, np.float16(np.inf)), half)
    exact: NDArray[np.float32] = np.maximum(half, np.float16(SMALLEST_FP16)).astype(np.float32)
    return exact


def int8_from_weights(weights: NDArray[np.float32], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """Rounds weights to their grid, half to even as QuantizeLinear does; -128 is never used.

    Args:
        weights: Any shape.
        scales: One per channel, shape [weights.shape[axis]].
        axis: The channel axis.
    """
    shape = [1] * weights.ndim
    shape[axis] = -1
    steps = np.rint(weights / scales.reshape(shape))
    stored: NDArray[np.int8] = np.clip(steps, -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    return stored
