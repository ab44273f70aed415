"""random:N."""

from __future__ import annotations

import numpy as np
import pytest

from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError
from trt_opt.values.tensors import TensorSpec

INPUTS = (
    TensorSpec("x", "float32", ("N", 3, 64)),
    TensorSpec("half", "float16", (2, 5)),
    TensorSpec("tokens", "int64", ("N", 50)),
    TensorSpec("pixels", "uint8", (1, 3, 20, 20)),
    TensorSpec("mask", "bool", (1, 50)),
    TensorSpec("rate", "int32", ()),
)


def test_every_type_gets_numbers_it_can_use() -> None:
    """Normal floats, small integers, whole bytes, coin flips, scalars; a dynamic batch is one."""
    dataset = open_dataset("random:8", INPUTS)
    samples = list(dataset)
    assert (len(samples), len(dataset), dataset.has_labels) == (8, 8, False)
    feed = samples[3].feed
    assert samples[3].name == "random:8[3]"
    assert {name: (array.dtype.name, array.shape) for name, array in feed.items()} == {
        "x": ("float32", (1, 3, 64)),
        "half": ("float16", (2, 5)),
        "tokens": ("int64", (1, 50)),
        "pixels": ("uint8", (1, 3, 20, 20)),
        "mask": ("bool", (1, 50)),
        "rate": ("int32", ()),
    }
    everything = np.concatenate([sample.feed["x"].ravel() for sample in samples])
    assert abs(everything.mean()) < 0.1
    assert abs(everything.std() - 1) < 0.1
    assert set(np.unique(feed["tokens"])) == {0, 1}
    assert set(np.unique(feed["mask"])) == {False, True}
    assert feed["pixels"].max() > 200


def test_walks_are_identical_and_samples_are_not() -> None:
    """Seeded per sample."""
    dataset = open_dataset("random:4", INPUTS[:1])
    first, second = list(dataset), list(dataset)
    assert all(np.array_equal(a.feed["x"], b.feed["x"]) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].feed["x"], first[1].feed["x"])


def test_it_says_that_it_is_random() -> None:
    """In the data set and in the provenance, whose hash depends on N and shapes."""
    dataset = open_dataset("random:4", INPUTS[:1])
    assert dataset.is_random
    assert dataset.provenance().random
    assert dataset.provenance().samples == 4
    others = [open_dataset("random:5", INPUTS[:1]), open_dataset("random:4", INPUTS[:1], shapes={"x": (2, 3, 64)})]
    assert len({each.provenance().sha256 for each in (dataset, *others)}) == 3


def test_shapes_fill_the_dynamic_dimensions() -> None:
    """And must fit the fixed ones."""
    spec = TensorSpec("x", "float32", ("N", 3, "H", "W"))
    dataset = open_dataset("random:1", (spec,), shapes={"x": (2, 3, 32, 16)})
    assert next(iter(dataset)).feed["x"].shape == (2, 3, 32, 16)
    with pytest.raises(DataError, match="dimension 1 is 4, not 3"):
        open_dataset("random:1", (spec,), shapes={"x": (2, 4, 32, 16)})
    with pytest.raises(DataError, match="'y', which is not an input"):
        open_dataset("random:1", (spec,), shapes={"y": (2, 3, 32, 16)})


@pytest.mark.parametrize("shape", [("N", 3, "H", 8), None])
def test_a_size_that_cannot_be_known_is_asked_for(shape: tuple[int | str, ...] | None) -> None:
    """Only the first dimension has a sensible guess."""
    with pytest.raises(DataError, match="--opt-shapes x:"):
        open_dataset("random:1", (TensorSpec("x", "float32", shape),))


@pytest.mark.parametrize("source", ["random:", "random:0", "random:-1", "random:many", "random:1.5", "random:²"])
def test_a_count_that_is_none_is_refused(source: str) -> None:
    """With how to write it."""
    with pytest.raises(DataError, match="random:16"):
        open_dataset(source, INPUTS)


def test_elements_numpy_lacks_are_refused() -> None:
    """Strings, for example."""
    with pytest.raises(DataError, match="takes object elements"):
        open_dataset("random:1", (TensorSpec("text", "object", (1,)),))
