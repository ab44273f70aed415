"""Samples that stand for a whole data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.values.samples import Sample


def samples(count: int) -> list[Sample]:
    return [Sample(str(number), {"x": np.zeros(1, np.float32)}) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "most", "numbers"),
    [
        (10, 3, [1, 5, 8]),
        (10, 1, [5]),
        (100, 4, [12, 37, 62, 87]),
        (3, 3, [0, 1, 2]),
        (2, 5, [0, 1]),
        (5, 0, []),
        (0, 4, []),
    ],
)
def test_samples_are_spread_over_the_data(count: int, most: int, numbers: Sequence[int]) -> None:
    """Data are often sorted by class: neither the first ones nor one end alone; all where there are fewer."""
    few = EvenlySpread(samples(count), most)
    for _ in range(2):
        assert [int(sample.name) for sample in few] == numbers
    assert len(few) == len(numbers)
