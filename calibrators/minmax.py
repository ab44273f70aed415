"""The largest magnitude seen: nothing is clipped, outliers widen the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from calibrators.calibrator import CalibratorSpec, ExtremesObserver, Observer
from calibrators.histogram import Histogram


@dataclass(frozen=True, slots=True)
class MinMax(CalibratorSpec):
    """INT8's 127 stands for the largest magnitude seen."""

    name: ClassVar[str] = "minmax"

    def amax(self, histogram: Histogram) -> float:
        """The largest magnitude seen."""
        return histogram.extreme

    def observer(self) -> Observer:
        """A new observer of the extremes alone."""
        return ExtremesObserver()
