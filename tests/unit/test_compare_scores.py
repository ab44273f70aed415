"""Top-1, top-5, agreement, and which output is meant."""

from __future__ import annotations

import numpy as np
import pytest

from trt_opt.compare.scores import TaskTotals, class_scores, labelled_output, rows_agreeing
from trt_opt.errors import DataError
from trt_opt.values.accuracy import TaskAccuracy


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 10), (4, 10)),
        ((4, 10, 1, 1), (4, 10)),
        ((4, 1, 1, 10), (4, 10)),
        ((1, 10), (1, 10)),
        ((4, 1), None),
        ((10,), None),
        ((), None),
        ((1, 100, 91), None),
        ((1, 21, 64, 64), None),
    ],
)
def test_class_scores_have_one_dimension_after_the_batch(
    shape: tuple[int, ...], expected: tuple[int, int] | None
) -> None:
    """[N, C] with ones around it is taken for class scores, dense outputs are not."""
    scores = class_scores(np.zeros(shape, np.float32))
    assert (None if scores is None else scores.shape) == expected


def test_integers_are_no_scores() -> None:
    """Class numbers [N, K] of TopK are not arg-maxed again."""
    assert class_scores(np.zeros((4, 10), np.int64)) is None


def test_agreement_counts_rows() -> None:
    """Rows agree by arg-max, the first of equal scores counts, and NaN agrees with nothing."""
    reference = np.float32([[1, 2], [2, 1], [1, 1], [1, 2]])
    candidate = np.float32([[0, 9], [1, 2], [5, 5], [1, np.nan]])
    assert rows_agreeing(reference, candidate) == (2, 4)
    assert rows_agreeing(np.array([1, 2, 3]), np.array([1, 2, 4], np.int32)) == (2, 3)
    assert rows_agreeing(np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8)) == (0, 0)


def test_top1_and_top5_follow_the_rank() -> None:
    """The right class counts for top-5 as fifth and not as sixth."""
    scores = np.tile(np.arange(10, dtype=np.float32)[::-1], (4, 1))
    totals = TaskTotals()
    totals.add(scores, np.array([0, 4, 5, 9]), "sample")
    assert totals.accuracy() == TaskAccuracy(rows=4, top1=0.25, top5=0.5)


def test_equal_scores_are_not_all_right() -> None:
    """A model that gives every class the same score is right about the first class only."""
    totals = TaskTotals()
    totals.add(np.zeros((8, 8), np.float32), np.arange(8), "sample")
    assert totals.accuracy() == TaskAccuracy(rows=8, top1=1 / 8, top5=5 / 8)


def test_nan_is_wrong() -> None:
    """A row with NaN is no right answer, wherever the NaN stands."""
    totals = TaskTotals()
    totals.add(np.float32([[np.nan, 1, 0, 0, 0, 0], [5, np.nan, 0, 0, 0, 0]]), np.array([0, 0]), "sample")
    assert totals.accuracy() == TaskAccuracy(rows=2, top1=0.0, top5=0.0)


def test_top5_needs_six_classes() -> None:
    """With five classes everything is among the first five, which says nothing."""
    totals = TaskTotals()
    totals.add(np.zeros((2, 5), np.float32), np.array([0, 1]), "sample")
    assert totals.accuracy() == TaskAccuracy(rows=2, top1=0.5, top5=None)


def test_merged_task_totals_are_those_of_all() -> None:
    """Two parts of the data add up."""
    left, right = TaskTotals(), TaskTotals()
    left.add(np.eye(8, dtype=np.float32), np.arange(8), "a")
    right.add(np.eye(8, dtype=np.float32)[::-1], np.arange(8), "b")
    left.merge(right)
    assert left.accuracy() is not None
    assert left.accuracy().top1 == 0.5
    assert TaskTotals().accuracy() is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1, 2, 3]), r"npz\[7\]: labels of shape \[3\] for 2 rows"),
        (np.array([[1, 0], [0, 1]]), r"npz\[7\]: labels of shape \[2, 2\] for 2 rows"),
        (np.array([3, 10]), r"npz\[7\]: a label from 3 to 10, where the model has classes 0 to 9"),
        (np.array([3, -1]), r"npz\[7\]: a label from -1"),
    ],
)
def test_labels_that_do_not_fit_name_the_sample(labels: np.ndarray, message: str) -> None:
    """Too many labels, one-hot labels and labels beyond the last class are refused."""
    with pytest.raises(DataError, match=message):
        TaskTotals().add(np.zeros((2, 10), np.float32), labels, "npz[7]")


def test_labels_speak_of_scores_first() -> None:
    """Class scores win over class numbers, so that top-5 is there; class numbers do where there are no scores."""
    outputs = {"label": np.array([3]), "boxes": np.zeros((1, 5, 4), np.float32), "scores": np.zeros((1, 9), np.float32)}
    assert labelled_output(outputs, np.array([3]), "s") == "scores"
    del outputs["scores"]
    assert labelled_output(outputs, np.array([3]), "s") == "label"
    totals = TaskTotals()
    totals.add(outputs["label"], np.array(3), "s")
    assert totals.accuracy() == TaskAccuracy(rows=1, top1=1.0, top5=None)


def test_labels_without_a_fitting_output_are_refused() -> None:
    """A detector has no output that a class number per row speaks of."""
    with pytest.raises(DataError, match=r"npz\[0\].*boxes \[1, 5, 4\]"):
        labelled_output({"boxes": np.zeros((1, 5, 4), np.float32)}, np.array([3]), "npz[0]")


def test_wilson_interval_matches_the_published_example() -> None:
    """Newcombe 1998 (Statistics in Medicine 17, table I): 81 of 263 gives 0.2553 to 0.3662; 0 of 20 to 0.1611."""
    low, high = TaskAccuracy(263, 81 / 263, None).top1_interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = TaskAccuracy(20, 0.0, None).top1_interval
    assert (round(low, 4), round(high, 4)) == (0.0, 0.1611)
