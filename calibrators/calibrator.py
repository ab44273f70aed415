"""What every calibrator has: a frozen specification, and observers that collect data for it."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from numpy.typing import ArrayLike

from calibrators.chunks import chunk_extremes, float_chunks
from calibrators.errors import CalibratorError
from calibrators.histogram import DEFAULT_BINS, Histogram


@dataclass(frozen=True, slots=True)
class Range:
    """The range of one tensor.

    Attributes:
        low: The smallest element seen.
        high: The largest element seen.
        amax: The magnitude that INT8's 127 shall stand for, at most the largest magnitude seen. 0.0 if and only if
            every element was zero: the caller then uses a scale of 1/127, or leaves the tensor in float.
        count: How many elements were seen.
    """

    low: float
    high: float
    amax: float
    count: int


class Observer(ABC):
    """Collects the data of one tensor.

    What it finds depends on the data alone: their order, how they were split and which observers were merged change
    nothing. An observer belongs to one thread at a time; observers of different tensors may run side by side.
    """

    @abstractmethod
    def observe(self, array: ArrayLike) -> None:
        """Takes in the elements of an array of any shape; an empty one changes nothing.

        Raises:
            CalibratorError: The array holds NaN or infinity, or no real numbers; the observer is then unchanged.
        """

    @abstractmethod
    def merge(self, other: Observer) -> None:
        """Takes in what another observer has seen.

        Raises:
            CalibratorError: The other collects for another calibrator.
        """

    @abstractmethod
    def range(self) -> Range:
        """The range of what was seen.

        Raises:
            CalibratorError: Nothing was seen.
        """


class CalibratorSpec(ABC):
    """Base of the frozen specifications; `str()` of one is what `calibrator_from_text` reads."""

    __slots__ = ()

    name: ClassVar[str]

    @abstractmethod
    def amax(self, histogram: Histogram) -> float:
        """The magnitude that INT8's 127 shall stand for; 0.0 where every element is zero.

        Args:
            histogram: Counts of the tensor's magnitudes; one histogram may be asked by several calibrators.

        Raises:
            CalibratorError: The histogram saw no data, or has fewer bins than this calibrator needs.
        """

    def observer(self) -> Observer:
        """A new observer that has seen nothing."""
        return HistogramObserver(self)

    def histogram(self) -> Histogram:
        """A new histogram with as many bins as this calibrator needs."""
        return Histogram(DEFAULT_BINS)

    def __str__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        arguments = ", ".join(f"{field.name}={getattr(self, field.name)}" for field in fields)
        return f"{self.name}({arguments})" if arguments else self.name


class HistogramObserver(Observer):
    """Keeps a histogram of magnitudes.

    Attributes:
        spec: The calibrator that reads the histogram.
        histogram: What was seen; other calibrators may read it too.
    """

    def __init__(self, spec: CalibratorSpec) -> None:
        self.spec = spec
        self.histogram = spec.histogram()

    def observe(self, array: ArrayLike) -> None:
        """Counts the elements of an array."""
        self.histogram.observe(array)

    def merge(self, other: Observer) -> None:
        """Adds the counts of another observer for an equal specification."""
        if not isinstance(other, HistogramObserver) or other.spec != self.spec:
            raise CalibratorError(f"only an observer for {self.spec} can be merged into one")
        self.histogram.merge(other.histogram)

    def range(self) -> Range:
        """The extremes, and the threshold that the calibrator chooses."""
        seen = self.histogram
        return Range(seen.low, seen.high, self.spec.amax(seen), seen.count)


class ExtremesObserver(Observer):
    """Keeps the extremes and the number of elements: about a ninth of a histogram's work."""

    def __init__(self) -> None:
        self._low = math.inf
        self._high = -math.inf
        self._count = 0

    def observe(self, array: ArrayLike) -> None:
        """Takes in the extremes of an array."""
        seen = [(*chunk_extremes(chunk), chunk.size) for chunk in float_chunks(array)]
        for low, high, count in seen:
            self._add(low, high, count)

    def merge(self, other: Observer) -> None:
        """Takes in the extremes that another observer has seen."""
        if not isinstance(other, ExtremesObserver):
            raise CalibratorError("only an observer for minmax can be merged into one")
        self._add(other._low, other._high, other._count)

    def range(self) -> Range:
        """The extremes, the larger magnitude of them as amax."""
        if not self._count:
            raise CalibratorError("no data: not one element was observed")
        return Range(self._low, self._high, max(-self._low, self._high) + 0.0, self._count)

    def _add(self, low: float, high: float, count: int) -> None:
        self._low, self._high, self._count = min(self._low, low), max(self._high, high), self._count + count
