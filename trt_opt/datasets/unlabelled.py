"""A data set without its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trt_opt.values.samples import DataProvenance, Dataset, Sample


class Unlabelled:
    """The samples of a data set without their labels: for what would take boxes or texts for class numbers.

    Args:
        dataset: The samples.
    """

    has_labels = False

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def source(self) -> str:
        """What the user wrote."""
        return self._dataset.source

    @property
    def is_random(self) -> bool:
        """Whether the samples are random numbers."""
        return self._dataset.is_random

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset)

    def __iter__(self) -> Iterator[Sample]:
        """The samples, in order."""
        return (replace(sample, label=None) for sample in self._dataset)

    def provenance(self) -> DataProvenance:
        """The data set's own, labels included."""
        return self._dataset.provenance()
