"""A percentile of the magnitudes: a fixed share of the elements is clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calibrators.calibrator import CalibratorSpec
from calibrators.errors import CalibratorError
from calibrators.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Percentile(CalibratorSpec):
    """INT8's 127 stands for a percentile of |x|.

    Exact zeros have no say: any scale represents them, and with them a tensor that is mostly zero (after ReLU, one-hot)
    would be clipped far harder than asked, down to a range of nothing.

    Attributes:
        percent: Share of the magnitudes other than zero that is not clipped, above 0 and up to 100.
    """

    name: ClassVar[str] = "percentile"

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 0.0 < self.percent <= 100.0:
            raise CalibratorError(f"a percentile lies above 0 and at most at 100, not at {self.percent}")

    def amax(self, histogram: Histogram) -> float:
        """The percentile, interpolated linearly inside its bin: at most one bin's width off that of the data."""
        extreme = histogram.extreme
        if extreme == 0.0:
            return 0.0
        below = np.cumsum(histogram.counts)
        target = self.percent / 100.0 * float(below[-1])
        index = int(np.searchsorted(below, target))
        inside = float(histogram.counts[index])
        position = index + 1 - (float(below[index]) - target) / inside
        return min(position * histogram.width, extreme)
