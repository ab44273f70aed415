"""The threshold that keeps most of the distribution's information: TensorRT's entropy calibration.

Source: Szymon Migacz, "8-bit Inference with TensorRT", NVIDIA GPU Technology Conference, 8 May 2017, slides "Entropy
Calibration - pseudocode", "Candidate distribution Q" and "Pseudocode for the INT8 conversion".

For every number i of bins from 128 up:

    P   the first i bins, the counts beyond added to bin i-1 (what clipping at i does)
    Q   the first i bins without what lies beyond, summed into 128 groups, each group's sum spread evenly over those of
        its bins that P does not leave empty
    i is the better, the smaller the Kullback-Leibler divergence of P from Q, both made to sum to one

and the threshold is (i + 0.5) bin widths for the best i. Four points are not in the slides, or are decided here:

* The bin at zero counts no more than its neighbour. A spike at zero (ReLU, padding, SiLU's tail) would otherwise be
  spread over its whole group and make every wide range look bad. (NVIDIA's pytorch-quantization copies bin 1 over
  bin 0 for the same reason.)
* Where i ends in a gap that fills its last group, Q has nothing where P has the outliers, and the divergence is
  infinite: a single far outlier would forbid all clipping. Q is given one element there.
* Of equal divergences the largest threshold wins, as in pytorch-quantization.
* The guard. The divergence looks at counts, not at values: for a softmax output, or a few hundred elements, it can be
  best where everything that matters is clipped. Only thresholds are tried whose clipping adds at most as much
  squared error as minmax has in all, so that entropy is expected to be at most 3 dB worse, or that clip at most one
  in 100 000 of the elements other than zero: the lone outliers that make minmax waste its range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from calibrators.calibrator import CalibratorSpec
from calibrators.errors import CalibratorError
from calibrators.expected_error import squared_error
from calibrators.histogram import Histogram

_RARE = 1e-5
"""Share of elements that may be clipped whatever it costs."""

_TIE = 1e-12
"""Divergences this close are equal: rounding of the sums reaches some 1e-14."""


@dataclass(frozen=True, slots=True)
class Entropy(CalibratorSpec):
    """INT8's 127 stands for the threshold with the smallest Kullback-Leibler divergence.

    Attributes:
        bins: At least so many bins lie below the largest magnitude (less than twice as many); a power of two.
        levels: Number of groups that the bins are summed into: the INT8 codes of one sign.
    """

    name: ClassVar[str] = "entropy"

    bins: int = 2048
    levels: int = 128

    def __post_init__(self) -> None:
        if self.bins < 2 or self.bins & (self.bins - 1):
            raise CalibratorError(f"entropy needs a power of two of bins, not {self.bins}")
        if not 1 <= self.levels <= self.bins:
            raise CalibratorError(f"entropy needs between 1 and {self.bins} levels, not {self.levels}")

    def histogram(self) -> Histogram:
        """A new histogram of twice as many bins: `bins` of them or more lie below the largest magnitude."""
        return Histogram(2 * self.bins)

    def amax(self, histogram: Histogram) -> float:
        """The threshold with the smallest divergence, at most the largest magnitude.

        Raises:
            CalibratorError: The histogram saw no data, or has fewer than twice as many bins as asked for.
        """
        extreme = histogram.extreme
        if extreme == 0.0:
            return 0.0
        coarse = histogram.coarsened(2 * self.bins)
        counts = coarse.counts[: coarse.used].astype(np.float64)
        allowed = _fewest_bins(counts, squared_error(coarse, extreme / coarse.width))
        first = min(max(self.levels, allowed), counts.size)
        counts[0] = counts[:2].min()
        divergences = kl_divergences(counts, self.levels, first)
        best = first + int(np.flatnonzero(divergences <= divergences.min() + _TIE)[-1])
        return min((best + 0.5) * coarse.width, extreme)


def _fewest_bins(counts: NDArray[np.float64], budget: float) -> int:
    """The smallest number of bins that the guard admits: its clipping is cheap enough, or rare enough.

    Args:
        counts: Elements per bin, float64 [n], the last bin not empty.
        budget: Sum of squared errors, in squared bin widths.
    """
    bins = np.arange(counts.size, dtype=np.float64)
    moments = [np.cumsum((counts * bins**power)[::-1])[::-1] for power in range(3)]
    # An element of bin j, at j + 0.5, is clipped to i + 0.5: the sum over j >= i of counts·(j - i)².
    clipping = moments[2] - 2.0 * bins * moments[1] + bins * bins * moments[0]
    rare = moments[0] <= _RARE * moments[0][0]
    return int(np.flatnonzero((clipping <= budget) | rare)[0])


def kl_divergences(counts: NDArray[np.float64], levels: int, first: int) -> NDArray[np.float64]:
    """The divergence of P from Q for every number of bins from `first` to all of them.

    With S the sum of a group and N the number of its bins that P does not leave empty, Q is S/N on each of those: the
    sum of P·log Q is that of S·log(S/N) over the groups, plus the outliers times the last group's log(S/N). Running
    sums of the counts give all of it without a walk over bins.

    Args:
        counts: Elements per bin, float64 [n], the last bin not empty.
        levels: Number of groups.
        first: The smallest number of bins tried, at most n.

    Returns:
        float64 [n - first + 1]; infinity where all the data would be clipped.
    """
    sizes = np.arange(first, counts.size + 1)
    sums, filled = _running_sum(counts), _running_sum((counts > 0.0).astype(np.float64))
    kept = sums[sizes]
    outliers = sums[-1] - kept
    edges = -(-np.arange(levels + 1) * sizes[:, None] // levels)
    group_sums = np.diff(sums[edges], axis=1)
    group_bins = np.diff(filled[edges], axis=1)
    group_bins[:, -1] += (outliers > 0.0) & (counts[sizes - 1] == 0.0)
    in_gap = (outliers > 0.0) & (group_sums[:, -1] == 0.0)

    logs = _log(group_sums) - _log(group_bins)
    cross = (group_sums * logs).sum(axis=1) + np.where(in_gap, 0.0, outliers * logs[:, -1])
    last = counts[sizes - 1] + outliers
    own = _running_sum(counts * _log(counts))[sizes - 1] + last * _log(last)
    divergences = (own - cross) / sums[-1] - np.log(sums[-1]) + _log(kept + in_gap)
    return np.where(kept > 0.0, divergences, np.inf)


def _running_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of the first 0, 1, … n values, float64 [n + 1]."""
    return np.concatenate(([0.0], np.cumsum(values)))


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm, and 0 for 0: counts·log(counts) is then 0 for an empty bin, as its limit is."""
    return np.log(values, out=np.zeros_like(values), where=values > 0.0)
