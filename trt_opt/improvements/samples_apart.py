"""The samples that a change is fitted to, and those that it is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.values.samples import Dataset, Sample

MOST_SAMPLES = 32
"""Which channels are small, and what that costs, is known from few samples."""

FEWEST_TO_SPLIT = 4

ONE_SAMPLE = "there is one sample, and what is fitted to it has to be judged on another"


@dataclass(frozen=True, slots=True)
class Half:
    """Every other sample of a data set.

    Attributes:
        data: The whole.
        first: 0 for the samples that are fitted to, 1 for those held out.
    """

    data: Dataset
    first: int

    def __len__(self) -> int:
        """The number of samples."""
        return (len(self.data) + 1 - self.first) // 2

    def __iter__(self) -> Iterator[Sample]:
        """The samples, one at a time."""
        return islice(self.data, self.first, None, 2)


def samples_apart(data: Dataset) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Both halves of a few samples, in memory; all of them for both where there are fewer than four.

    A range that holds on the samples it was taken from alone then shows as clipping.
    """
    samples = tuple(EvenlySpread(data, MOST_SAMPLES))
    return (samples, samples) if len(samples) < FEWEST_TO_SPLIT else (samples[::2], samples[1::2])
