"""What quantising costs, read off a histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibrators.histogram import Histogram

LARGEST_CODE = 127.0
"""INT8 is symmetric in TensorRT: codes -127 … 127."""


def squared_error(histogram: Histogram, threshold: float) -> float:
    """The expected sum of (x - dequantise(quantise(x)))² over all elements, those of a bin spread evenly in it.

    With u = |x| / scale and k = min(round(u), 127), the integral of the squared error (u - k)² from 0 to u is
    k/12 + (u - k)³/3: every whole step contributes 1/12, the rest is the parabola of the step, or of the clipping, that
    u lies in. A bin's error is the difference between its edges.

    Args:
        histogram: The magnitudes; at least one is not zero.
        threshold: The magnitude that 127 stands for, above 0, in bin widths.

    Returns:
        The sum in squared bin widths, which no magnitude of the data makes overflow.
    """
    scale = threshold / LARGEST_CODE
    counts = histogram.counts[: histogram.used]
    edges = np.arange(counts.size + 1, dtype=np.float64) / scale
    return float(counts @ np.diff(_error_integral(edges))) * scale**3


def _error_integral(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    codes = np.minimum(np.rint(magnitudes), LARGEST_CODE)
    rest = magnitudes - codes
    # Not rest**3: a general power takes ten times as long.
    return codes / 12.0 + rest * rest * rest / 3.0
