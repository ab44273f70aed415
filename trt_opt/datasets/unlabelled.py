"""A data set without its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trt_opt.datasets.derived import Derived
from trt_opt.values.samples import DataProvenance, Sample


class Unlabelled(Derived):
    """The samples of a data set without their labels: for what would take boxes or texts for class numbers.

    Args:
        dataset: The samples.
    """

    @property
    def has_labels(self) -> bool:
        """None has any."""
        return False

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset)

    def __iter__(self) -> Iterator[Sample]:
        """The samples, in order."""
        return (replace(sample, label=None) for sample in self._dataset)

    def provenance(self) -> DataProvenance:
        """The data set's own, labels included."""
        return self._dataset.provenance()
