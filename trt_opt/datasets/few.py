"""The beginning of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from trt_opt.datasets.derived import Derived
from trt_opt.values.samples import DataProvenance, Dataset, Sample


class Few(Derived):
    """The first samples of a data set, itself a data set.

    Args:
        dataset: The samples.
        most: How many are taken at most, 1 or more.
    """

    def __init__(self, dataset: Dataset, most: int) -> None:
        super().__init__(dataset)
        self._most = most

    def __len__(self) -> int:
        """The number of samples taken."""
        return min(len(self._dataset), self._most)

    def __iter__(self) -> Iterator[Sample]:
        """The samples taken, in order."""
        return islice(iter(self._dataset), self._most)

    def provenance(self) -> DataProvenance:
        """The whole data set's, with the number of samples taken."""
        return replace(self._dataset.provenance(), samples=len(self))
