"""A folder of .npz files, one sample each: the way to give samples of different shapes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from trt_opt.datasets.checks import (
    check_dtype,
    check_label_dtype,
    check_names,
    check_shape,
    checked_array,
    checked_label,
    label_name,
)
from trt_opt.datasets.content_hash import sha256_from_folder
from trt_opt.datasets.stored_arrays import StoredArray, arrays_in_npz
from trt_opt.errors import DataError
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.tensors import TensorSpec


class NpzFolderDataset:
    """The samples of a folder, in the order of the files' names; arrays are taken as they are, batch included.

    Args:
        source: What the user wrote.
        paths: The .npz files, sorted.
        inputs: What the model wants.
        any_labels: Labels need not be class numbers.

    Raises:
        DataError: A file's names, ranks, fixed dimensions or element types do not fit, or only some files have labels.
    """

    is_random = False

    def __init__(
        self, source: str, paths: tuple[Path, ...], inputs: tuple[TensorSpec, ...], *, any_labels: bool = False
    ) -> None:
        self.source = source
        self._paths = paths
        self._inputs = inputs
        self._label = label_name(inputs)
        self._any_labels = any_labels
        labelled = {path: self._check_headers(path) for path in paths}
        self.has_labels = any(labelled.values())
        bare = [path for path, has_label in labelled.items() if not has_label]
        if self.has_labels and bare:
            raise DataError("has no labels, and other files of the folder do", where=str(bare[0]))

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[Sample]:
        for path in self._paths:
            name = f"{path.parent.name}/{path.name}"
            arrays = self._arrays(path)
            check_names([given for given in arrays if given != self._label], self._inputs, name)
            feed = {spec.name: checked_array(arrays[spec.name].whole(), spec, name) for spec in self._inputs}
            label = None
            if self.has_labels and self._label is not None:
                label = checked_label(arrays[self._label].whole(), name, any_labels=self._any_labels)
            yield Sample(name, feed, label)

    def provenance(self) -> DataProvenance:
        """Source, the SHA-256 over the files' names and bytes, and the number of samples."""
        return DataProvenance(self.source, self._sha256, len(self._paths))

    @cached_property
    def _sha256(self) -> str:
        return sha256_from_folder(self._paths)

    def _arrays(self, path: Path) -> dict[str, StoredArray]:
        return arrays_in_npz(path, self._label if self._any_labels else None)

    def _check_headers(self, path: Path) -> bool:
        """Checks a file without reading its data; returns whether it has labels."""
        arrays = self._arrays(path)
        label = arrays.pop(self._label, None) if self._label is not None else None
        check_names(arrays, self._inputs, str(path))
        for spec in self._inputs:
            stored = arrays[spec.name]
            check_dtype(stored.dtype, spec, stored.where)
            check_shape(
                stored.shape, spec, stored.where, "one file of a folder is one sample, batch dimension included"
            )
        if label is not None:
            check_label_dtype(label.dtype, label.where, any_labels=self._any_labels)
        return label is not None
