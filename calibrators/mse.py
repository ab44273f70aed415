"""The threshold with the smallest expected squared error of quantising and dequantising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibrators.calibrator import CalibratorSpec
from calibrators.errors import CalibratorError
from calibrators.expected_error import squared_error
from calibrators.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Mse(CalibratorSpec):
    """INT8's 127 stands for the threshold that minimises the expected squared error, clipping included.

    Attributes:
        steps: How many thresholds are tried, evenly spaced up to the largest magnitude.
    """

    name: ClassVar[str] = "mse"

    steps: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise CalibratorError(f"at least one threshold must be tried, not {self.steps}")

    def amax(self, histogram: Histogram) -> float:
        """The best of the thresholds tried; of equally good ones the largest."""
        extreme = histogram.extreme
        if extreme == 0.0:
            return 0.0
        candidates = extreme / histogram.width * np.arange(1, self.steps + 1) / self.steps
        errors = np.array([squared_error(histogram, float(threshold)) for threshold in candidates])
        best = float(candidates[errors.size - 1 - int(np.argmin(errors[::-1]))])
        return min(best * histogram.width, extreme)
