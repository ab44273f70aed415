"""One data set in two disjoint halves: one to search with, one to report from.

What was searched for on the very samples it is reported from looks better than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import compress

import numpy as np

from trt_opt.datasets.derived import Derived
from trt_opt.errors import DataError
from trt_opt.values.samples import DataProvenance, Dataset, Sample

NAMES = ("first", "second")


def halves(dataset: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A half for the search and a half for the report, drawn at random so that sorted classes fall into both.

    The report's has the odd sample. Each walks through the whole data set, in its order, and yields its own samples
    only. The number of samples is asked for here, which costs a walk where a function yields them.

    Args:
        dataset: At least two samples.
        seed: The same seed gives the same halves.

    Raises:
        DataError: Fewer than two samples.
    """
    samples = len(dataset)
    if samples < 2:
        raise DataError(
            f"{samples} sample{'s' * (samples != 1)} cannot be split into a half to search with and one to report from",
            where=dataset.source,
            hint="give more samples",
        )
    drawn = np.random.default_rng(seed).permutation(samples)[: samples // 2]
    chosen = np.zeros(samples, np.bool_)
    chosen[drawn] = True
    first, second = bytearray(chosen), bytearray(~chosen)
    return _Half(dataset, first, 0, seed), _Half(dataset, second, 1, seed)


class _Half(Derived):
    """The chosen samples of another data set.

    Args:
        dataset: The whole.
        chosen: One byte per sample: 1 if it belongs here.
        number: 0 or 1.
        seed: What the choice was drawn with.
    """

    def __init__(self, dataset: Dataset, chosen: bytearray, number: int, seed: int) -> None:
        super().__init__(dataset)
        self._chosen = chosen
        self._number = number
        self._seed = seed

    @property
    def source(self) -> str:
        """The whole's, and which half."""
        return f"{self._dataset.source} ({NAMES[self._number]} half, seed {self._seed})"

    def __len__(self) -> int:
        return sum(self._chosen)

    def __iter__(self) -> Iterator[Sample]:
        return compress(self._dataset, self._chosen)

    def provenance(self) -> DataProvenance:
        """The whole's with this half's source and size; the hash covers the whole's and which half."""
        whole = self._dataset.provenance()
        text = f"{whole.sha256} half {self._number} of 2 seed {self._seed}"
        return replace(whole, source=self.source, sha256=hashlib.sha256(text.encode()).hexdigest(), samples=len(self))
