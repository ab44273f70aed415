"""A few samples that stand for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trt_opt.values.samples import Sample, Samples


@dataclass(frozen=True, slots=True)
class EvenlySpread:
    """Some of the samples, each from the middle of a stretch of them: data are often sorted by class.

    Attributes:
        samples: The whole; walked up to the last sample wanted, nothing is kept.
        most: How many are taken at most.
    """

    samples: Samples
    most: int

    def __len__(self) -> int:
        """The number of samples taken."""
        return min(len(self.samples), self.most)

    def __iter__(self) -> Iterator[Sample]:
        """The samples taken, in order."""
        total, count = len(self.samples), len(self)
        wanted = [(2 * number + 1) * total // (2 * count) for number in range(count)]
        chosen = frozenset(wanted)
        for number, sample in enumerate(islice(self.samples, wanted[-1] + 1 if wanted else 0)):
            if number in chosen:
                yield sample
