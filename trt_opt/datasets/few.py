"""The beginning of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from trt_opt.values.samples import DataProvenance, Dataset, Sample


class Few:
    """The first samples of a data set, itself a data set.

    Args:
        dataset: The samples.
        most: How many are taken at most, 1 or more.
    """

    def __init__(self, dataset: Dataset, most: int) -> None:
        self._dataset = dataset
        self._most = most

    @property
    def source(self) -> str:
        """What the user wrote."""
        return self._dataset.source

    @property
    def is_random(self) -> bool:
        """Whether the samples are random numbers."""
        return self._dataset.is_random

    @property
    def has_labels(self) -> bool:
        """Whether samples carry labels."""
        return self._dataset.has_labels

    def __len__(self) -> int:
        """The number of samples taken."""
        return min(len(self._dataset), self._most)

    def __iter__(self) -> Iterator[Sample]:
        """The samples taken, in order."""
        return islice(iter(self._dataset), self._most)

    def provenance(self) -> DataProvenance:
        """The whole data set's, with the number of samples taken."""
        return replace(self._dataset.provenance(), samples=len(self))
