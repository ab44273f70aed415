"""A histogram of magnitudes that widens without losing counts and does not depend on the order of the data."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrators.chunks import WORKSPACE, FloatArray, chunk_extremes, float_chunks
from calibrators.errors import CalibratorError

DEFAULT_BINS = 4096
MOST_BINS = 1 << 20
SMALLEST_EXPONENT = -1000
"""No range is narrower than 2**-1000: the reciprocal of a bin's width has to be a float64."""

_MOSTLY_ZERO = 0.4
"""Share of zeros from which picking out the other elements costs less than counting all of them."""


class Histogram:
    """Counts of |x| in equal bins over [0, 2**exponent).

    The range is the smallest power of two above the largest magnitude (but see `SMALLEST_EXPONENT`), so at least half
    of the bins lie below that magnitude. Multiplying by a power of two is exact, so the bins of a range nest exactly in
    those of the doubled one: widening adds pairs of bins, and the counts depend on the data alone, never on its order,
    its batches or merging.

    Exact zeros are counted apart: any scale represents them exactly. Before an element other than zero was seen, the
    range is undefined.

    A histogram belongs to one thread at a time; different histograms may be filled by different threads. It can be
    pickled.

    Args:
        bins: Number of bins, a power of two from 2 to 2**20.

    Raises:
        CalibratorError: The number of bins is no such power of two.
    """

    def __init__(self, bins: int = DEFAULT_BINS) -> None:
        if not 2 <= bins <= MOST_BINS or bins & (bins - 1):
            raise CalibratorError(f"the number of bins must be a power of two from 2 to {MOST_BINS}, not {bins}")
        self._counts = np.zeros(bins, np.int64)
        self._exponent: int | None = None
        self._zeros = 0
        self._low = math.inf
        self._high = -math.inf

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self._counts.size

    @property
    def counts(self) -> NDArray[np.int64]:
        """Elements other than zero per bin, int64 [bins], read-only: bin i holds i·width <= |x| < (i+1)·width."""
        view: NDArray[np.int64] = self._counts.view()
        view.flags.writeable = False
        return view

    @property
    def zeros(self) -> int:
        """Number of elements that are exactly zero."""
        return self._zeros

    @property
    def count(self) -> int:
        """Number of elements seen, zeros included."""
        return self._zeros + int(self._counts.sum())

    @property
    def low(self) -> float:
        """The smallest element.

        Raises:
            CalibratorError: Nothing was observed.
        """
        self._require_data()
        return self._low

    @property
    def high(self) -> float:
        """The largest element.

        Raises:
            CalibratorError: Nothing was observed.
        """
        self._require_data()
        return self._high

    @property
    def extreme(self) -> float:
        """The largest magnitude; 0.0 where every element is zero.

        Raises:
            CalibratorError: Nothing was observed.
        """
        return max(-self.low, self.high) + 0.0

    @property
    def width(self) -> float:
        """Width of a bin, a power of two.

        Raises:
            CalibratorError: No element other than zero was observed.
        """
        if self._exponent is None:
            raise CalibratorError("a histogram of nothing but zeros has no range")
        return math.ldexp(1.0, self._exponent - self.bins.bit_length() + 1)

    @property
    def used(self) -> int:
        """Number of bins up to and with that of the largest magnitude; 0 where every element is zero."""
        filled = np.flatnonzero(self._counts)
        return int(filled[-1]) + 1 if filled.size else 0

    def share_above(self, magnitude: float) -> float:
        """The share of all elements, zeros included, whose magnitude is above this one; by whole bins, 0.0 to 1.0.

        A bin counts if its middle is above.

        Raises:
            CalibratorError: Nothing was observed.
        """
        if magnitude >= self.extreme:
            return 0.0
        first = max(0, math.ceil(magnitude / self.width - 0.5))
        return int(self._counts[first:].sum()) / self.count

    def observe(self, array: ArrayLike) -> None:
        """Counts the elements of an array; an empty one changes nothing.

        Args:
            array: Real numbers, any shape and memory order.

        Raises:
            CalibratorError: The array holds NaN or infinity, or no real numbers; the histogram is then unchanged.
        """
        part = Histogram(self.bins)
        part._exponent = self._exponent
        with np.errstate(all="ignore"):
            for chunk in float_chunks(array):
                part._count(chunk)
        self.merge(part)

    def merge(self, other: Histogram) -> None:
        """Adds the counts of another histogram, as if its data had been observed here.

        Raises:
            CalibratorError: The other has another number of bins.
        """
        if other.bins != self.bins:
            raise CalibratorError(f"a histogram of {other.bins} bins cannot be merged into one of {self.bins}")
        if other._exponent is not None:
            exponent = self._widen(other._exponent)
            self._counts += _fold(other._counts, exponent - other._exponent)
        self._zeros += other._zeros
        self._low = min(self._low, other._low)
        self._high = max(self._high, other._high)

    def coarsened(self, bins: int) -> Histogram:
        """The same data in fewer bins: what a histogram of that many bins would have counted.

        Raises:
            CalibratorError: The number is no power of two, or larger than this histogram's.
        """
        coarse = Histogram(bins)
        if bins > self.bins:
            raise CalibratorError(f"{bins} bins were asked for and {self.bins} were counted")
        coarse._counts[:] = self._counts.reshape(bins, -1).sum(axis=1)
        coarse._exponent, coarse._zeros, coarse._low, coarse._high = self._exponent, self._zeros, self._low, self._high
        return coarse

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine = (self._exponent, self._zeros, self._low, self._high)
        theirs = (other._exponent, other._zeros, other._low, other._high)
        return mine == theirs and np.array_equal(self._counts, other._counts)

    __hash__ = None  # type: ignore[assignment]

    def _require_data(self) -> None:
        if self._low > self._high:
            raise CalibratorError("no data: not one element was observed")

    def _widen(self, exponent: int) -> int:
        """Makes the range at least 2**exponent wide and returns the exponent it now has."""
        if self._exponent is None:
            self._exponent = exponent
        elif exponent > self._exponent:
            self._counts = _fold(self._counts, exponent - self._exponent)
            self._exponent = exponent
        return self._exponent

    def _count(self, chunk: FloatArray) -> None:
        low, high = chunk_extremes(chunk)
        self._low, self._high = min(self._low, low), max(self._high, high)
        if low == high == 0.0:
            self._zeros += chunk.size
            return
        self._widen(max(math.frexp(max(-low, high))[1], SMALLEST_EXPONENT))
        zeros = 0
        if low <= 0.0 <= high:
            flags = WORKSPACE.flags(chunk.size)
            np.not_equal(chunk, 0.0, out=flags)
            zeros = chunk.size - int(np.count_nonzero(flags))
        self._zeros += zeros
        if zeros > _MOSTLY_ZERO * chunk.size:
            # Runs of one bin number make bincount wait for its own last store: half its time on a ReLU's output.
            chunk, zeros = chunk[np.flatnonzero(flags)], 0
        self._counts += np.bincount(self._indices(chunk, has_negative=low < 0.0), minlength=self.bins)
        self._counts[0] -= zeros

    def _indices(self, chunk: FloatArray, *, has_negative: bool) -> NDArray[np.intp]:
        """Bin numbers floor(|x| / width), intp [chunk's size], in this thread's workspace."""
        scale = 1.0 / self.width
        kind = chunk.dtype if scale <= np.finfo(chunk.dtype).max else np.dtype(np.float64)
        scaled, indices = WORKSPACE.floats(chunk.size, kind), WORKSPACE.indices(chunk.size)
        if has_negative:
            chunk = np.abs(chunk, out=scaled)
        np.multiply(chunk, kind.type(scale), out=scaled)
        np.copyto(indices, scaled, casting="unsafe")
        return indices


def _fold(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """The counts over a range doubled so many times, int64 [bins]."""
    folded = np.zeros_like(counts)
    if (1 << doublings) >= counts.size:
        folded[0] = counts.sum()
    else:
        folded[: counts.size >> doublings] = counts.reshape(-1, 1 << doublings).sum(axis=1)
    return folded
