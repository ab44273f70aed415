"""Samples from a user's function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trt_opt.datasets import open_dataset
from trt_opt.errors import DataError
from trt_opt.values.samples import Dataset
from trt_opt.values.tensors import TensorSpec

PLAIN = TensorSpec("x", "float32", ("N", 4))
RATE = TensorSpec("rate", "int64", ())
Write = Callable[[str], str]


def opened(source: str, *inputs: TensorSpec) -> Dataset:
    return open_dataset(source, inputs or (PLAIN,))


def test_feeds_and_labels_are_read(module: Write) -> None:
    """Pairs of feed and labels; the path for imports is left as it was."""
    name = module("""
        def feeds():
            for i in range(3):
                yield {"x": np.full((1, 4), i, np.float32), "rate": 8000}, np.array([i])
    """)
    before = list(sys.path)
    dataset = opened(f"{name}:feeds", PLAIN, RATE)
    samples = list(dataset)
    assert sys.path == before
    assert dataset.has_labels
    assert len(dataset) == 3
    assert [sample.name for sample in samples] == [f"{name}:feeds[{i}]" for i in range(3)]
    assert [sample.feed["x"].tolist() for sample in samples] == [[[float(i)] * 4] for i in range(3)]
    assert samples[0].feed["rate"].shape == ()
    assert [sample.label.tolist() for sample in samples if sample.label is not None] == [[0], [1], [2]]


def feeds_labelled(*labels: str) -> str:
    pairs = ", ".join(f'({{"x": np.zeros((1, 4), np.float32)}}, {label})' for label in labels)
    return f"def feeds():\n    return [{pairs}]"


def test_any_labels_are_what_is_yielded(module: Write) -> None:
    """Boxes, masks, lists, texts, a scalar, nothing found: each as an array of its own shape and type."""
    labels = ("np.full((2, 4), 0.5)", "np.ones((3, 3), bool)", "[[1, 2], [3, 4]]", "'cat'", "-1.5", "np.zeros((0, 4))")
    dataset = open_dataset(module(feeds_labelled(*labels)) + ":feeds", (PLAIN,), any_labels=True)
    assert dataset.has_labels
    found = [sample.label for sample in dataset]
    expected = [np.full((2, 4), 0.5), np.ones((3, 3), bool), [[1, 2], [3, 4]], "cat", -1.5, np.zeros((0, 4))]
    for label, array in zip(found, map(np.asarray, expected), strict=True):
        assert isinstance(label, np.ndarray)
        assert (label.dtype, label.shape, label.tolist()) == (array.dtype, array.shape, array.tolist())


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("{'boxes': [1.0]}", r"feeds\[0\]: labels of dtype object are Python objects"),
        ("np.array([None, 1])", "labels of dtype object"),
        ("[[1.0], [1.0, 2.0]]", "the label cannot be read as an array(.|\n)*an .npz per sample"),
        ("1), ({'x': np.zeros((1, 4))}, None", "some have none"),
    ],
)
def test_what_numpy_cannot_hold_is_refused_as_any_labels_too(module: Write, label: str, message: str) -> None:
    """Objects have no bytes to hash."""
    with pytest.raises(DataError, match=message):
        list(open_dataset(module(feeds_labelled(label)) + ":feeds", (PLAIN,), any_labels=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("np.array([0.5])", "np.array([0.25])"),
        ("np.array(['cat'])", "np.array(['dog'])"),
        ("np.zeros((2, 3))", "np.zeros((3, 2))"),
        ("np.zeros(2, 'f4')", "np.zeros(2, 'i4')"),
        ("np.zeros(1, [('a', 'f4')])", "np.zeros(1, [('a', 'i4')])"),
        ("np.zeros(1, [('a', 'f4')])", "np.zeros(1, [('b', 'f4')])"),
    ],
)
def test_the_hash_covers_any_labels(module: Write, one: str, other: str) -> None:
    """Values, shape and type, that of records included; the same labels give the same hash."""

    def sha256(label: str) -> str:
        dataset = open_dataset(module(feeds_labelled(label)) + ":feeds", (PLAIN,), any_labels=True)
        return dataset.provenance().sha256

    assert sha256(one) == sha256(one) != sha256(other)


def test_plain_feeds_have_no_labels_and_may_come_as_a_list(module: Write) -> None:
    """A list of dictionaries is as good as a generator."""
    dataset = opened(module('def feeds():\n    return [{"x": np.zeros((1, 4))}] * 2') + ":feeds")
    assert not dataset.has_labels
    assert len(list(dataset)) == len(dataset) == 2


def test_a_reused_buffer_does_no_harm(module: Write) -> None:
    """Samples kept by the reader stay what they were."""
    name = module("""
        def feeds():
            buffer = np.zeros((1, 4), np.float32)
            for i in range(3):
                buffer[:] = i
                yield {"x": buffer}
    """)
    assert [sample.feed["x"][0, 0] for sample in list(opened(f"{name}:feeds"))] == [0, 1, 2]


def test_the_function_may_import_its_neighbours_while_it_runs(module: Write, folder: Path) -> None:
    """The current folder is searched during the walk, too."""
    (folder / "neighbour_of_test.py").write_text("VALUE = 5\n")
    name = module("""
        def feeds():
            from neighbour_of_test import VALUE
            yield {"x": np.full((1, 4), VALUE, np.float32)}
    """)
    assert next(iter(opened(f"{name}:feeds"))).feed["x"][0, 0] == 5


def test_it_is_called_anew_for_each_walk_and_hashed_alike(module: Write) -> None:
    """The hash is over the arrays, so another function with the same arrays has the same hash."""
    body = """
        def feeds():
            for i in range(3):
                yield {"x": np.full((1, 4), i, np.float32)}
        def others():
            for i in range(3):
                yield {"x": np.full((1, 4), i + 1, np.float32)}
    """
    name, twin = module(body), module(body)
    dataset = opened(f"{name}:feeds")
    assert len(list(dataset)) == len(list(dataset)) == dataset.provenance().samples == 3
    assert dataset.provenance().sha256 == opened(f"{twin}:feeds").provenance().sha256
    assert dataset.provenance().sha256 != opened(f"{name}:others").provenance().sha256


def test_length_and_hash_cost_no_walk_of_their_own_after_a_whole_one(module: Write) -> None:
    """A slow function is called once for calibration and its provenance."""
    name = module("""
        calls = []
        def feeds():
            calls.append(1)
            yield {"x": np.zeros((1, 4), np.float32)}
    """)
    dataset = opened(f"{name}:feeds")
    assert [sample.label for sample in dataset] == [None]
    assert (len(dataset), dataset.provenance().samples, dataset.has_labels) == (1, 1, False)
    assert len(sys.modules[name].calls) == 1


def test_other_samples_on_the_second_walk_are_an_error(module: Write) -> None:
    """An unseeded generator would make the hash a lie."""
    name = module("""
        rng = np.random.default_rng(0)
        def feeds():
            yield {"x": rng.standard_normal((1, 4))}
    """)
    dataset = opened(f"{name}:feeds")
    assert dataset.provenance().samples == 1
    with pytest.raises(DataError, match="other samples on each walk"):
        for _ in dataset:
            pass


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def feeds():\n    return None", "feeds: returned a NoneType"),
        ("def feeds():\n    return {'x': np.zeros((1, 4))}", "returned a dict, where feeds were to be yielded"),
        ("def feeds():\n    return iter(())", "yielded no samples"),
        ("def feeds():\n    yield {'x': np.zeros((1, 4))}\n    1 / 0", r"feeds\[1\]: raised ZeroDivisionError"),
        ("def feeds():\n    raise RuntimeError('no disk')", r"feeds\[0\]: raised RuntimeError: no disk"),
        (
            "def feeds():\n    yield {'x': np.zeros((1, 4))}\n    raise SystemExit(0)",
            r"feeds\[1\]: raised SystemExit: 0",
        ),
        ("def feeds():\n    yield np.zeros((1, 4))", r"feeds\[0\]: yielded a ndarray, not a feed"),
        ("def feeds():\n    yield {'x': [[1.0, 2.0, 3.0, 4.0]]}", "'x' is a list, not an array"),
        ("def feeds():\n    yield {'x': np.array([None])}", "object data"),
        ("def feeds():\n    yield {'y': np.zeros((1, 4))}", "no data for the input 'x'"),
        ("def feeds():\n    yield {'x': np.zeros((1, 5))}", "dimension 1 is 5, not 4"),
        ("def feeds():\n    yield {'x': np.zeros((1, 4), np.uint8)}", "uint8 data"),
        ("def feeds():\n    yield {'x': np.full((1, 4), np.nan)}", r"feeds\[0\]: the input 'x' holds NaN"),
        ("def feeds():\n    yield {'x': np.zeros((1, 4))}, 'cat'", "the label is a str"),
        ("def feeds():\n    yield {'x': np.zeros((1, 4))}, 1\n    yield {'x': np.zeros((1, 4))}", "some have none"),
    ],
)
def test_a_function_that_misbehaves_is_named_with_the_samples_number(module: Write, body: str, message: str) -> None:
    """While walking; `len` finds the same."""
    name = module(body)
    with pytest.raises(DataError, match=message) as caught:
        list(opened(f"{name}:feeds"))
    assert name in str(caught.value)
    with pytest.raises(DataError, match=message):
        len(opened(f"{name}:feeds"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def feed():\n    yield {}", "no function 'feeds'(.|\n)*did you mean 'feed'"),
        ("feeds = 5", "a int, not a function"),
        ("def feeds(path):\n    yield {}", "without arguments .*'path'"),
        ("import a_module_that_is_nowhere", "failed with ModuleNotFoundError"),
        ("1 / 0", "failed with ZeroDivisionError"),
        ("def feeds(:", "failed with SyntaxError"),
    ],
)
def test_what_cannot_be_called_is_refused_at_opening(module: Write, body: str, message: str) -> None:
    """Before anything slow begins."""
    with pytest.raises(DataError, match=message):
        opened(module(body) + ":feeds")


def test_a_module_that_does_not_exist_says_where_it_was_sought(module: Write, folder: Path) -> None:
    """The current folder."""
    with pytest.raises(DataError, match="ModuleNotFoundError") as caught:
        opened("nowhere_at_all.feeds:feeds")
    assert str(folder) in str(caught.value)
