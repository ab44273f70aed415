"""Which outputs are answers to "which class?", and how often they are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trt_opt.errors import DataError
from trt_opt.values.accuracy import TaskAccuracy

Array = NDArray[np.generic]

CLASS_NUMBER_TYPES = ("int32", "int64")
"""What ArgMax and TopK give (TensorRT before 10: int32); smaller integers are rather pixels or quantised values."""


def class_scores(output: Array) -> NDArray[np.floating] | None:
    """The output as scores [rows, classes], or None if it does not look like that.

    It does if it holds floating-point numbers and exactly one dimension after the first is larger than 1: [N, C],
    [N, C, 1, 1], [N, 1, 1, C]. Dense outputs ([N, anchors, classes], [N, C, H, W]) do not; an embedding [N, C] does,
    and cannot be told from scores.
    """
    classes = [size for size in output.shape[1:] if size != 1]
    if output.ndim < 2 or not np.issubdtype(output.dtype, np.floating) or len(classes) != 1 or not classes[0]:
        return None
    return output.reshape(output.shape[0], classes[0])  # type: ignore[return-value]


def holds_class_numbers(output: Array) -> bool:
    """Whether the output looks like the answers themselves: arg-max inside the graph."""
    return output.dtype.name in CLASS_NUMBER_TYPES


def rows_agreeing(reference: Array, candidate: Array) -> tuple[int, int]:
    """How many rows have the same answer, and how many rows there are; (0, 0) if the output gives no answers.

    The first of equal scores counts. A row with NaN on either side agrees with nothing.
    """
    if holds_class_numbers(reference):
        return int(np.count_nonzero(reference == candidate)), reference.size
    expected, found = class_scores(reference), class_scores(candidate)
    if expected is None or found is None:
        return 0, 0
    agree = expected.argmax(1) == found.argmax(1)
    agree &= ~(np.isnan(expected).any(1) | np.isnan(found).any(1))
    return int(np.count_nonzero(agree)), len(agree)


def labelled_output(outputs: Mapping[str, Array], labels: Array, sample: str) -> str:
    """The output that labels speak of: the first with class scores, else the first with one class number per label.

    Raises:
        DataError: There is no such output.
    """
    for name, output in outputs.items():
        if class_scores(output) is not None:
            return name
    for name, output in outputs.items():
        if holds_class_numbers(output) and output.size == labels.size:
            return name
    shapes = ", ".join(f"{name} {list(output.shape)}" for name, output in outputs.items())
    raise DataError(
        f"there are {labels.size} labels, and no output gives one class for each: {shapes}",
        where=sample,
        hint="leave the labels out, or give one label per row of the output with the class scores",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Which rows of one sample were right, bool [rows]; `top5` is None where class numbers were given."""

    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_] | None


@dataclass(slots=True)
class TaskTotals:
    """Right answers so far; adding the totals of two parts of the data gives those of both.

    Attributes:
        rows: Labelled rows judged.
        top1_right: Rows whose first answer is the label.
        top5_right: Rows with the label among the first five.
        fewest_classes: The fewest classes of any sample; None where class numbers were given.
        has_scores: Whether all samples came with scores.
        labels_seen: The smallest and the largest label.
    """

    rows: int = 0
    top1_right: int = 0
    top5_right: int = 0
    fewest_classes: int | None = None
    has_scores: bool = True
    labels_seen: tuple[int, int] | None = None

    def add(self, output: Array, labels: Array, sample: str) -> Answers:
        """Judges one sample and returns which rows were right.

        Args:
            output: Class scores [rows, classes] in any shape `class_scores` knows, or one class number per label.
            labels: Integers, shape [rows] or scalar.
            sample: The sample's name.

        Raises:
            DataError: Another number of labels than of rows, or a label beyond the last class.
        """
        scores = class_scores(output)
        rows = output.size if scores is None else len(scores)
        flat = labels.reshape(-1)
        if flat.size != rows or labels.ndim > 1:
            raise DataError(
                f"labels of shape {list(labels.shape)} for {rows} rows of answers",
                where=sample,
                hint="give one class number per row",
            )
        if rows:
            self._see(int(flat.min()), int(flat.max()))
        self.rows += rows
        if scores is None:
            self.has_scores = False
            right = np.asarray(output.reshape(-1) == flat)
            self.top1_right += int(np.count_nonzero(right))
            return Answers(right, None)
        classes = scores.shape[1]
        if rows and not 0 <= int(flat.min()) <= int(flat.max()) < classes:
            raise DataError(
                f"a label from {flat.min()} to {flat.max()}, where the model has classes 0 to {classes - 1}",
                where=sample,
                hint="check whether the labels start at 0, and whether the model has a background class",
            )
        rank = _ranks(scores, flat)
        answers = Answers(rank == 0, rank < 5)
        self.top1_right += int(np.count_nonzero(rank == 0))
        self.top5_right += int(np.count_nonzero(rank < 5))
        self.fewest_classes = min(classes, self.fewest_classes or classes)
        return answers

    def merge(self, other: TaskTotals) -> None:
        """Adds the totals of another part of the data."""
        self.rows += other.rows
        self.top1_right += other.top1_right
        self.top5_right += other.top5_right
        self.has_scores &= other.has_scores
        known = [fewest for fewest in (self.fewest_classes, other.fewest_classes) if fewest is not None]
        self.fewest_classes = min(known, default=None)
        if other.labels_seen is not None:
            self._see(*other.labels_seen)

    @property
    def has_top5(self) -> bool:
        """Whether the first five answers are fewer than all."""
        return self.has_scores and (self.fewest_classes or 0) > 5

    def accuracy(self) -> TaskAccuracy | None:
        """The shares; None without labelled rows."""
        if not self.rows:
            return None
        top5 = self.top5_right / self.rows if self.has_top5 else None
        return TaskAccuracy(self.rows, self.top1_right / self.rows, top5)

    def _see(self, smallest: int, largest: int) -> None:
        low, high = self.labels_seen or (smallest, largest)
        self.labels_seen = min(low, smallest), max(high, largest)


def _ranks(scores: NDArray[np.floating], labels: Array) -> NDArray[np.intp]:
    """How many classes come before the right one: greater scores, and equal ones with a smaller number.

    A row with NaN is as wrong as can be.
    """
    right = labels[:, None].astype(np.intp)
    own = np.take_along_axis(scores, right, axis=1)
    earlier = np.arange(scores.shape[1]) < right
    rank: NDArray[np.intp] = ((scores > own) | ((scores == own) & earlier)).sum(1, dtype=np.intp)
    rank[np.isnan(scores).any(1)] = np.iinfo(np.intp).max
    return rank
