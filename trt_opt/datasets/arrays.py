"""Samples as rows of arrays: one .npz with an array per graph input, or one .npy for a model with one input.

The rank tells how an array is cut. An array of the input's rank is a pile of batches of one: sample i is `a[i:i+1]`.
An array with one dimension more is a pile of whole feeds: sample i is `a[i]`. A scalar input takes an array of
shape [N]. An input whose rank the model leaves open is read as the first kind.

Labels, one entry along the first dimension per sample, are cut like the inputs: `labels[i:i+1]` where any input is cut
into batches of one, else `labels[i]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.checks import (
    check_dtype,
    check_label_dtype,
    check_names,
    check_shape,
    checked_array,
    checked_label,
    label_name,
    shape_text,
)
from trt_opt.datasets.content_hash import sha256_from_file
from trt_opt.datasets.stored_arrays import StoredArray, array_in_npy, arrays_in_npz
from trt_opt.errors import DataError
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class Column:
    """The array behind one input.

    Attributes:
        stored: The array.
        keeps_rank: True where sample i is `a[i:i+1]`, False where it is `a[i]`.
    """

    stored: StoredArray
    keeps_rank: bool

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of every sample's array."""
        return (1, *self.stored.shape[1:]) if self.keeps_rank else self.stored.shape[1:]

    def sample(self, row: NDArray[np.generic]) -> NDArray[np.generic]:
        """A sample's array from the stored array's row."""
        return row[np.newaxis] if self.keeps_rank else row


class ArrayDataset:
    """The samples of one .npz or .npy file, streamed: one row of each array is in memory at a time.

    Args:
        source: What the user wrote.
        path: The file.
        inputs: What the model wants.
        any_labels: Labels need not be class numbers.

    Raises:
        DataError: Names, ranks, sizes, element types or the numbers of rows do not fit; known from the headers alone.
    """

    is_random = False

    def __init__(self, source: str, path: Path, inputs: tuple[TensorSpec, ...], *, any_labels: bool = False) -> None:
        self.source = source
        self._path = path
        self._inputs = inputs
        self._any_labels = any_labels
        labels = label_name(inputs)
        arrays = _arrays_of(path, inputs, labels if any_labels else None)
        stored_labels = arrays.pop(labels, None) if labels is not None else None
        check_names(arrays, inputs, str(path))
        self._columns = {spec.name: _column(arrays[spec.name], spec) for spec in inputs}
        self._labels = None
        if stored_labels is not None:
            self._labels = _label_column(stored_labels, self._columns, any_labels=any_labels)
        self._samples = _row_count(self._columns, self._labels, str(path))

    @property
    def has_labels(self) -> bool:
        """Whether the file has an array of labels."""
        return self._labels is not None

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[Sample]:
        with ExitStack() as stack:
            rows = {name: stack.enter_context(closing(column.stored.rows())) for name, column in self._columns.items()}
            labels = None if self._labels is None else stack.enter_context(closing(self._labels.stored.rows()))
            for index in range(self._samples):
                name = f"{self._path.name}[{index}]"
                feed = {
                    spec.name: checked_array(self._columns[spec.name].sample(next(rows[spec.name])), spec, name)
                    for spec in self._inputs
                }
                label = None
                if self._labels is not None and labels is not None:
                    label = self._labels.sample(next(labels))
                    label = checked_label(label, name, any_labels=self._any_labels)
                yield Sample(name, feed, label)

    def provenance(self) -> DataProvenance:
        """Source, the file's SHA-256 and the number of samples."""
        return DataProvenance(self.source, self._sha256, self._samples)

    @cached_property
    def _sha256(self) -> str:
        return sha256_from_file(self._path)


def _arrays_of(path: Path, inputs: tuple[TensorSpec, ...], labels: str | None) -> dict[str, StoredArray]:
    if path.suffix.lower() == ".npz":
        return arrays_in_npz(path, labels)
    if len(inputs) != 1:
        raise DataError(
            f"an .npy file holds one array, and the model has {len(inputs)} inputs",
            where=str(path),
            hint=f"write an .npz with {', '.join(map(str, inputs))}",
        )
    return {inputs[0].name: array_in_npy(path)}


def _column(stored: StoredArray, spec: TensorSpec) -> Column:
    check_dtype(stored.dtype, spec, stored.where)
    rank = len(stored.shape)
    wanted = rank if spec.shape is None else len(spec.shape)
    if rank not in (wanted, wanted + 1) or rank == 0:
        ranks = f"rank {wanted} (sample i is a[i:i+1]) or rank {wanted + 1} (sample i is a[i])"
        raise DataError(
            f"an array of rank {rank} ({shape_text(stored.shape)}) for the input {spec}",
            where=stored.where,
            hint=f"give {ranks if wanted else 'an array of shape [N], one number per sample'}",
        )
    column = Column(stored, keeps_rank=rank == wanted)
    check_shape(column.sample_shape, spec, stored.where, _batch_hint(column, spec))
    return column


def _batch_hint(column: Column, spec: TensorSpec) -> str | None:
    """What to try where the model's first dimension is fixed at another size than one."""
    batch = spec.shape[0] if spec.shape else None
    if not column.keeps_rank or not isinstance(batch, int) or batch == 1:
        return None
    return (
        f"the input's first dimension is fixed at {batch}: give one more dimension, sample i being a[i] "
        f"of shape {shape_text(spec.shape)}, for example array.reshape(-1, {batch}, *array.shape[1:])"
    )


def _label_column(stored: StoredArray, columns: Mapping[str, Column], *, any_labels: bool) -> Column:
    """How labels are cut: like the inputs, so [N] with arrays of the inputs' rank; [N] or [N, batch] with one more.

    Any labels may have more dimensions.
    """
    check_label_dtype(stored.dtype, stored.where, any_labels=any_labels)
    keeps_rank = any(column.keeps_rank for column in columns.values())
    rank = len(stored.shape)
    if any_labels:
        if not rank:
            raise DataError("a single label, where every sample needs its own", where=stored.where)
        return Column(stored, keeps_rank)
    batches = {column.sample_shape[0] for column in columns.values() if column.sample_shape}
    if rank == 1 or (rank == 2 and not keeps_rank and stored.shape[1] in batches):
        return Column(stored, keeps_rank)
    raise DataError(
        f"labels of shape {shape_text(stored.shape)}, where one class number per row is needed",
        where=stored.where,
        hint="for one-hot labels, labels.argmax(-1); for a column, labels[:, 0]",
    )


def _row_count(columns: Mapping[str, Column], labels: Column | None, where: str) -> int:
    counts = {name: column.stored.shape[0] for name, column in columns.items()}
    if labels is not None:
        counts["labels"] = labels.stored.shape[0]
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise DataError(
            f"the arrays disagree about the number of samples: {listed}",
            where=where,
            hint="every array needs one row per sample, also those whose value never changes",
        )
    samples = next(iter(counts.values()), 0)
    if samples == 0:
        raise DataError("holds no samples", where=where)
    return samples
