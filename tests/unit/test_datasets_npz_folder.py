"""A folder of .npz files, one sample each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError
from trt_opt.values.tensors import TensorSpec

TOKENS = TensorSpec("tokens", "int64", ("N", "length"))
RATE = TensorSpec("rate", "float32", ())


def folder_of(tmp_path: Path, lengths: tuple[int, ...] = (3, 5, 2)) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index, length in enumerate(lengths):
        np.savez(folder / f"{index}.npz", tokens=np.full((1, length), index), rate=np.float32(index))
    return folder


def test_shapes_may_differ_and_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    """Arrays are taken as they are, scalars included; hidden and foreign files are passed over."""
    folder = folder_of(tmp_path)
    (folder / "README.txt").write_text("notes")
    (folder / ".hidden.npz").write_text("not one of them")
    dataset = open_dataset(str(folder), (TOKENS, RATE))
    samples = list(dataset)
    assert [sample.name for sample in samples] == ["texts/0.npz", "texts/1.npz", "texts/2.npz"]
    assert [sample.feed["tokens"].shape for sample in samples] == [(1, 3), (1, 5), (1, 2)]
    assert [sample.feed["rate"].shape for sample in samples] == [()] * 3
    assert len(dataset) == 3
    again = list(dataset)
    assert all(np.array_equal(a.feed["tokens"], b.feed["tokens"]) for a, b in zip(samples, again, strict=True))


def test_labels_in_every_file_become_labels(tmp_path: Path) -> None:
    """As they are."""
    folder = tmp_path
    for index in range(3):
        np.savez(folder / f"{index}.npz", tokens=np.zeros((2, 4), np.int64), labels=np.array([index, 7]))
    dataset = open_dataset(str(folder), (TOKENS,))
    assert dataset.has_labels
    assert [sample.label.tolist() for sample in dataset if sample.label is not None] == [[0, 7], [1, 7], [2, 7]]


def test_any_labels_are_what_each_file_holds(tmp_path: Path) -> None:
    """Other numbers of boxes, other types, a text; class numbers are demanded at opening where nobody says so."""
    held = [np.zeros((2, 4), np.float32), np.zeros((0, 4)), np.array("cat"), np.array([-1])]
    for index, labels in enumerate(held):
        np.savez(tmp_path / f"{index}.npz", tokens=np.zeros((1, 4), np.int64), labels=labels)
    dataset = open_dataset(str(tmp_path), (TOKENS,), any_labels=True)
    assert dataset.has_labels
    found = [sample.label for sample in dataset]
    assert [(label.dtype, label.shape) for label in found if label is not None] == [
        (labels.dtype, labels.shape) for labels in held
    ]
    assert found[2] == "cat"
    with pytest.raises(DataError, match=r"0\.npz: labels: labels are class numbers"):
        open_dataset(str(tmp_path), (TOKENS,))
    np.savez(tmp_path / "4.npz", tokens=np.zeros((1, 4), np.int64))
    with pytest.raises(DataError, match=r"4\.npz: has no labels"):
        open_dataset(str(tmp_path), (TOKENS,), any_labels=True)


def test_labels_in_some_files_only_are_refused(tmp_path: Path) -> None:
    """The file without is named."""
    np.savez(tmp_path / "a.npz", tokens=np.zeros((1, 4), np.int64), labels=np.array([1]))
    np.savez(tmp_path / "b.npz", tokens=np.zeros((1, 4), np.int64))
    with pytest.raises(DataError, match=r"b\.npz: has no labels"):
        open_dataset(str(tmp_path), (TOKENS,))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"token": np.zeros((1, 4), np.int64)}, "no data for the input 'tokens'"),
        ({"tokens": np.zeros(4, np.int64)}, "rank 1(.|\n)*batch dimension included"),
        ({"tokens": np.zeros((1, 4), np.float32)}, "float32 data for the input 'tokens', which is int64"),
    ],
)
def test_a_file_that_does_not_fit_is_named_at_opening(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    """Though it is the last one."""
    np.savez(tmp_path / "a.npz", tokens=np.zeros((1, 4), np.int64))
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(DataError, match=r"b\.npz") as caught:
        open_dataset(str(tmp_path), (TOKENS,))
    assert caught.match(message)


def test_nan_is_named_with_its_file(tmp_path: Path) -> None:
    """When it is read."""
    np.savez(tmp_path / "a.npz", rate=np.float32(1))
    np.savez(tmp_path / "b.npz", rate=np.float32(np.nan))
    with pytest.raises(DataError, match=r"/b\.npz: the input 'rate' holds NaN"):
        list(open_dataset(str(tmp_path), (RATE,)))


def test_the_hash_depends_on_names_and_bytes(tmp_path: Path) -> None:
    """Also where a new name leaves the order as it was."""
    folder = folder_of(tmp_path)
    before = open_dataset(str(folder), (TOKENS, RATE)).provenance()
    assert before.sha256 == open_dataset(str(folder), (TOKENS, RATE)).provenance().sha256
    (folder / "2.npz").rename(folder / "9.npz")
    renamed = open_dataset(str(folder), (TOKENS, RATE)).provenance()
    np.savez(folder / "9.npz", tokens=np.full((1, 2), 3), rate=np.float32(2))
    changed = open_dataset(str(folder), (TOKENS, RATE)).provenance()
    assert len({before.sha256, renamed.sha256, changed.sha256}) == 3
    assert before.samples == 3
