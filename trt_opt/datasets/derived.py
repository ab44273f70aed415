"""What data sets made of another one have in common with it."""

from __future__ import annotations

from trt_opt.values.samples import Dataset


class Derived:
    """Base of the data sets that yield some of another's samples, or all of them changed.

    Args:
        dataset: The data set it is made of.
    """

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

    @property
    def has_labels(self) -> bool:
        """Whether samples carry labels."""
        return self._dataset.has_labels
