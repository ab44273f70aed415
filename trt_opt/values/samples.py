"""The data a model is calibrated and judged with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One feed of the model.

    Attributes:
        name: Where it comes from, fit for an error message: "calibration.npz[12]", "photos/cat.jpg".
        feed: One array per graph input, with the input's rank and element type.
        label: The sample's own labels: class numbers of shape [batch] or scalar, or whatever array a metric of the
            user's own reads; None where there are none.
    """

    name: str
    feed: Mapping[str, NDArray[np.generic]]
    label: NDArray[np.generic] | None = None


@dataclass(frozen=True, slots=True)
class DataProvenance:
    """Which data a result rests on.

    Attributes:
        source: What the user wrote after --calib-data or --eval-data.
        sha256: A hash of the content and of the preprocessing.
        samples: How many samples were consumed.
        random: True for `random:N`; the results then say so everywhere.
        preprocess: The preprocessing as written, or None.
        cache: The TensorRT calibration cache that ranges come from, which says nothing of the model and data behind
            it; `samples` then counts those that filled its gaps. None without one.
    """

    source: str
    sha256: str
    samples: int
    random: bool = False
    preprocess: str | None = None
    cache: str | None = None


class Samples(Protocol):
    """Samples that can be counted and walked through any number of times: a Dataset, a list, a tuple."""

    def __len__(self) -> int:
        """The number of samples."""

    def __iter__(self) -> Iterator[Sample]:
        """The samples, one at a time; nothing already yielded is kept."""


class Dataset(Samples, Protocol):
    """A source of samples that can be walked through any number of times, in the same order."""

    @property
    def source(self) -> str:
        """What the user wrote."""

    @property
    def is_random(self) -> bool:
        """Whether the samples are random numbers."""

    @property
    def has_labels(self) -> bool:
        """Whether samples carry labels."""

    def provenance(self) -> DataProvenance:
        """Source, content hash and number of samples; computed once."""
