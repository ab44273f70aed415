"""Ranges of constant weights, one per output channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrators.errors import CalibratorError


def amax_per_channel(weights: ArrayLike, axis: int) -> NDArray[np.float32]:
    """The largest magnitude of each channel.

    Args:
        weights: Real numbers of any shape with at least one dimension.
        axis: The output-channel axis: 0 of a Conv's [M, C/group, kH, kW], 1 of a ConvTranspose's [C, M/group, kH, kW].

    Returns:
        float32 [channels]; 0.0 for a channel of nothing but zeros, whose scale is the caller's to choose.

    Raises:
        CalibratorError: The weights are no real numbers, hold NaN, infinity or values beyond float32, have no such
            axis, or have no elements.
    """
    array: NDArray[Any] = np.asarray(weights)
    if array.dtype.kind not in "fiub":
        raise CalibratorError(f"weights must be real numbers, not {array.dtype}")
    if not -array.ndim <= axis < array.ndim:
        raise CalibratorError(f"weights of shape {list(array.shape)} have no axis {axis}")
    if not array.size:
        raise CalibratorError(f"weights of shape {list(array.shape)} have no elements")
    others = tuple(index for index in range(array.ndim) if index != axis % array.ndim)
    with np.errstate(invalid="ignore", over="ignore"):
        # Not max(abs): -128 has no absolute value in int8, and a copy of the weights is saved.
        high, low = array.max(axis=others).astype(np.float64), array.min(axis=others).astype(np.float64)
        amax: NDArray[np.float32] = np.maximum(high, -low).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(amax))
    if wrong.size:
        raise CalibratorError(
            f"{wrong.size} of {amax.size} channels of the weights, first channel {wrong[0]}, "
            "hold NaN, infinity or values beyond float32"
        )
    return np.abs(amax)  # -0.0 becomes 0.0
