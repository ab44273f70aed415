"""Which shapes the samples of a data set have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trt_opt.values.samples import Sample
from trt_opt.values.shapes import Shape, ShapeRange


class ShapesSeen:
    """Collects the shapes of every input over the samples."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples = 0
        self._seen: dict[str, Counter[Shape]] = {}
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        """Takes note of one sample."""
        self.samples += 1
        for name, array in sample.feed.items():
            self._seen.setdefault(name, Counter())[tuple(array.shape)] += 1

    def ranges(self) -> dict[str, ShapeRange]:
        """Input → smallest, most frequent and largest size per dimension; inputs whose rank varies are left out."""
        return {name: _range_of(seen) for name, seen in self._seen.items() if len({len(shape) for shape in seen}) == 1}


def _range_of(seen: Counter[Shape]) -> ShapeRange:
    smallest = tuple(min(sizes) for sizes in zip(*seen, strict=True))
    largest = tuple(max(sizes) for sizes in zip(*seen, strict=True))
    return ShapeRange(smallest, seen.most_common(1)[0][0], largest)
