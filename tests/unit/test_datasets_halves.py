"""A data set in two halves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trt_opt.datasets import open_dataset
from trt_opt.datasets.halves import halves
from trt_opt.errors import DataError
from trt_opt.values.samples import Dataset
from trt_opt.values.tensors import TensorSpec

INPUTS = (TensorSpec("x", "float32", (1, 2)),)


def sorted_classes(folder: Path, samples: int = 101) -> Dataset:
    """Ten classes in order, each sample recognisable by its number."""
    x = np.arange(samples, dtype=np.float32)[:, None, None] * np.ones((1, 1, 2), np.float32)
    np.savez(folder / "data.npz", x=x, labels=np.arange(samples) * 10 // samples)
    return open_dataset(str(folder / "data.npz"), INPUTS)


def numbers(dataset: Dataset) -> list[int]:
    return [int(sample.feed["x"][0, 0]) for sample in dataset]


def test_halves_are_disjoint_whole_and_in_order(tmp_path: Path) -> None:
    """Every sample is in exactly one, the second has the odd one, and each is walked in order, any number of times."""
    whole = sorted_classes(tmp_path)
    search, report = halves(whole)
    assert (len(search), len(report)) == (50, 51)
    for half in (search, report):
        assert numbers(half) == sorted(numbers(half)) == numbers(half)
        assert len(numbers(half)) == len(half)
    assert sorted(numbers(search) + numbers(report)) == list(range(101))
    assert [sample.name for sample in search] == [f"data.npz[{number}]" for number in numbers(search)]


def test_sorted_classes_fall_into_both(tmp_path: Path) -> None:
    """Ten samples a class: each half has at least two of each."""
    for half in halves(sorted_classes(tmp_path, 100)):
        counts = np.bincount([int(sample.label) for sample in half if sample.label is not None], minlength=10)
        assert counts.min() >= 2
        assert (half.has_labels, half.is_random) == (True, False)


def test_the_seed_decides(tmp_path: Path) -> None:
    """The same seed gives the same halves, another one others."""
    whole = sorted_classes(tmp_path)
    assert numbers(halves(whole, 3)[0]) == numbers(halves(whole, 3)[0])
    assert numbers(halves(whole, 3)[0]) != numbers(halves(whole, 4)[0])


def test_provenance_says_which_half(tmp_path: Path) -> None:
    """Source, count and hash differ from the whole's and from the other half's, and follow the content and the seed."""
    whole = sorted_classes(tmp_path)
    search, report = (half.provenance() for half in halves(whole, 5))
    assert search.source == f"{whole.source} (first half, seed 5)"
    assert report.source == f"{whole.source} (second half, seed 5)"
    assert (search.samples, report.samples, search.random) == (50, 51, False)
    hashes = {whole.provenance().sha256, search.sha256, report.sha256, halves(whole, 6)[0].provenance().sha256}
    assert len(hashes) == 4
    assert halves(whole, 5)[0].provenance() == search


def test_random_data_stay_random() -> None:
    """What is told everywhere is told of the halves too."""
    first, _ = halves(open_dataset("random:4", INPUTS))
    assert first.is_random
    assert first.provenance().random


def test_a_function_of_unknown_length_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is walked once to be counted, and each half walks it again for its own samples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feeds_for_halves.py").write_text(
        "import numpy as np\n"
        "def feeds():\n    for i in range(9):\n        yield {'x': np.full((1, 2), i, np.float32)}, i % 3\n"
    )
    search, report = halves(open_dataset("feeds_for_halves:feeds", INPUTS))
    assert (len(search), len(report)) == (4, 5)
    assert sorted(numbers(search) + numbers(report)) == list(range(9))
    assert next(iter(report)).label is not None


def test_one_sample_cannot_be_split(tmp_path: Path) -> None:
    """It would be searched with or reported from, not both; two can."""
    with pytest.raises(DataError, match=r"data\.npz: 1 sample cannot be split"):
        halves(sorted_classes(tmp_path, 1))
    assert [len(half) for half in halves(sorted_classes(tmp_path, 2))] == [1, 1]
