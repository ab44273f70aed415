"""Candidate thresholds from one histogram: for whoever can measure which of them serves a tensor best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from calibrators.calibrator import CalibratorSpec
from calibrators.entropy import Entropy
from calibrators.expected_error import squared_error
from calibrators.histogram import Histogram
from calibrators.minmax import MinMax
from calibrators.mse import Mse
from calibrators.percentile import Percentile

CANDIDATES: Mapping[str, CalibratorSpec] = MappingProxyType(
    {
        "minmax": MinMax(),
        "entropy": Entropy(),
        "mse": Mse(),
        **{f"percentile({percent})": Percentile(percent) for percent in (99.999, 99.99, 99.9, 99.0)},
    }
)

FRACTIONS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of the largest magnitude: steps between the calibrators, which often lie far apart."""

SAME_WITHIN = 0.02
"""Thresholds this close are one candidate: their scales differ by a fiftieth of a step."""


@dataclass(frozen=True, slots=True)
class Auto(CalibratorSpec):
    """INT8's 127 stands for whichever candidate does least harm.

    The harm is measured where the tensor is read, which takes a model. From a histogram alone, `amax` can only tell the
    candidate with the smallest squared error of the tensor itself.
    """

    name: ClassVar[str] = "auto"

    def histogram(self) -> Histogram:
        """A new histogram that every candidate can read."""
        return Entropy().histogram()

    def thresholds(self, histogram: Histogram) -> dict[str, float]:
        """The candidates, from the largest threshold to the smallest, no two alike.

        Returns:
            What gives it → threshold: "minmax", "percentile(99.9)", "0.8 x minmax" …

        Raises:
            CalibratorError: The histogram saw no data, or has fewer bins than a candidate needs.
        """
        extreme = histogram.extreme
        named = {name: spec.amax(histogram) for name, spec in CANDIDATES.items()}
        named |= {f"{fraction} x minmax": fraction * extreme for fraction in FRACTIONS}
        found = {"minmax": extreme}
        least = extreme
        for name in sorted(named, key=lambda name: -named[name]):
            if 0.0 < named[name] < least * (1.0 - SAME_WITHIN):
                found[name] = least = named[name]
        return found

    def amax(self, histogram: Histogram) -> float:
        """The candidate with the smallest expected squared error; of equally good ones the largest."""
        found = list(self.thresholds(histogram).values())
        if len(found) == 1:
            return found[0]
        return min(found, key=lambda threshold: squared_error(histogram, threshold / histogram.width))
