"""Which shapes the samples of a data set have, and which values its small integer inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from trt_opt.values.samples import Sample
from trt_opt.values.shapes import Shape, ShapeRange, ValueRange

MOST_VALUES = 64
"""What decides shapes (axes, sizes, repeats) is short: longer integer inputs are data."""


class ShapesSeen:
    """Collects the shapes of every input over the samples, and the values of those that may decide shapes."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples = 0
        self._seen: dict[str, Counter[Shape]] = {}
        self._values: dict[str, Counter[tuple[int, ...]]] = {}
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        """Takes note of one sample."""
        self.samples += 1
        for name, array in sample.feed.items():
            self._seen.setdefault(name, Counter())[tuple(array.shape)] += 1
            if array.size <= MOST_VALUES and array.dtype in (np.int32, np.int64):
                self._values.setdefault(name, Counter())[tuple(int(value) for value in array.reshape(-1))] += 1

    def ranges(self) -> dict[str, ShapeRange]:
        """Input → smallest, most frequent and largest size per dimension; inputs whose rank varies are left out."""
        return {name: _range_of(seen) for name, seen in self._seen.items() if len({len(shape) for shape in seen}) == 1}

    def values(self) -> dict[str, ValueRange]:
        """Small integer input → smallest, most frequent and largest values, where every sample has as many."""
        alike = {name: seen for name, seen in self._values.items() if len({len(values) for values in seen}) == 1}
        return {name: _values_of(seen) for name, seen in alike.items()}


def _values_of(seen: Counter[tuple[int, ...]]) -> ValueRange:
    smallest = tuple(min(values) for values in zip(*seen, strict=True))
    largest = tuple(max(values) for values in zip(*seen, strict=True))
    return ValueRange(smallest, seen.most_common(1)[0][0], largest)


def _range_of(seen: Counter[Shape]) -> ShapeRange:
    smallest = tuple(min(sizes) for sizes in zip(*seen, strict=True))
    largest = tuple(max(sizes) for sizes in zip(*seen, strict=True))
    return ShapeRange(smallest, seen.most_common(1)[0][0], largest)
