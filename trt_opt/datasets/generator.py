"""Samples from a function of the user's own: `package.module:function`.

The function takes no arguments and yields feeds (dictionaries from input name to array), or pairs of a feed and its
labels. It is called anew for each walk and must yield the same samples every time: ranges, hashes and accuracies would
otherwise speak of different data.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.checks import RAGGED, check_names, checked_array, checked_label
from trt_opt.datasets.content_hash import add_sample
from trt_opt.datasets.named_code import FAILURES, importable, named_code
from trt_opt.errors import DataError, RequestError
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.tensors import TensorSpec

_REFERENCE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")


def is_function_reference(source: str) -> bool:
    """Whether the text looks like `package.module:function`."""
    return _REFERENCE.fullmatch(source) is not None


@dataclass(frozen=True, slots=True)
class _Survey:
    """What one whole walk has seen."""

    samples: int
    sha256: str


class FunctionDataset:
    """The samples that a function yields.

    Its length and hash cost a walk, unless a whole walk was made before; `list(dataset)` asks for the length first, so
    it walks twice. An endless generator has no length.

    Args:
        source: "package.module:function"; the current folder is searched first.
        inputs: What the model wants.
        any_labels: Labels need not be class numbers; lists and texts become arrays.

    Raises:
        DataError: The module cannot be imported, or holds no such function, or it needs arguments.
    """

    is_random = False

    def __init__(self, source: str, inputs: tuple[TensorSpec, ...], *, any_labels: bool = False) -> None:
        self.source = source
        self._inputs = inputs
        self._any_labels = any_labels
        self._folder = str(Path.cwd())
        self._function = self._imported()
        self._labelled: bool | None = None
        self._survey: _Survey | None = None

    @property
    def has_labels(self) -> bool:
        """Whether the first sample carries labels; calls the function unless a walk was begun before."""
        if self._labelled is None:
            next(iter(self))
        return bool(self._labelled)

    def __len__(self) -> int:
        return self._surveyed().samples

    def __iter__(self) -> Iterator[Sample]:
        hasher = hashlib.sha256()
        samples = 0
        for index, item in enumerate(self._items()):
            sample = self._sample(item, f"{self.source}[{index}]")
            self._check_labelled(sample)
            add_sample(hasher, sample)
            samples += 1
            yield sample
        if samples == 0:
            raise DataError("yielded no samples", where=self.source)
        survey = _Survey(samples, hasher.hexdigest())
        if self._survey not in (None, survey):
            raise DataError(
                "yields other samples on each walk, so no result could be traced to its data",
                where=self.source,
                hint="seed its random numbers, and make every call start from the beginning",
            )
        self._survey = survey

    def provenance(self) -> DataProvenance:
        """Source, the SHA-256 over all arrays, and the number of samples."""
        survey = self._surveyed()
        return DataProvenance(self.source, survey.sha256, survey.samples)

    def _surveyed(self) -> _Survey:
        if self._survey is None:
            for _ in self:
                pass
        if self._survey is None:
            raise DataError("yielded no samples", where=self.source)
        return self._survey

    def _imported(self) -> Callable[[], object]:
        try:
            function = named_code(self.source).code
        except RequestError as error:
            raise DataError(error.what, where=error.where, hint=error.hint) from error
        try:
            inspect.signature(function).bind()
        except (TypeError, ValueError) as error:
            raise DataError(f"the function must work without arguments ({error})", where=self.source) from error
        return function

    def _items(self) -> Iterator[object]:
        """What the function yields; whatever it raises becomes a DataError with the sample's number."""
        index = 0
        iterator: Iterator[object] | None = None
        while True:
            try:
                with importable(self._folder):
                    if iterator is None:
                        iterator = self._iterator(self._function())
                    item = next(iterator)
            except StopIteration:
                return
            except DataError:
                raise
            except FAILURES as error:
                raise DataError(f"raised {type(error).__name__}: {error}", where=f"{self.source}[{index}]") from error
            yield item
            index += 1

    def _iterator(self, result: object) -> Iterator[object]:
        if isinstance(result, (Mapping, str, np.ndarray)) or not hasattr(result, "__iter__"):
            raise DataError(
                f"returned a {type(result).__name__}, where feeds were to be yielded",
                where=self.source,
                hint="yield {'input_name': array} once per sample, or return a list of such dictionaries",
            )
        return iter(result)

    def _sample(self, item: object, name: str) -> Sample:
        feed, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(feed, Mapping):
            raise DataError(
                f"yielded a {type(item).__name__}, not a feed",
                where=name,
                hint="yield {'input_name': array}, or ({'input_name': array}, labels)",
            )
        check_names(map(str, feed), self._inputs, name)
        arrays = {
            spec.name: checked_array(_array(feed[spec.name], f"the input {spec.name!r}", name), spec, name)
            for spec in self._inputs
        }
        return Sample(name, arrays, None if label is None else self._checked_label(label, name))

    def _checked_label(self, label: object, name: str) -> NDArray[np.generic]:
        array = _any_array(label, name) if self._any_labels else _array(label, "the label", name)
        return checked_label(array, name, any_labels=self._any_labels)

    def _check_labelled(self, sample: Sample) -> None:
        labelled = sample.label is not None
        if self._labelled is None:
            self._labelled = labelled
        if self._labelled != labelled:
            raise DataError("some samples have labels and some have none", where=sample.name)


def _array(value: object, what: str, where: str) -> NDArray[np.generic]:
    """A copy of the value as an array: generators often reuse one buffer for all samples."""
    if not isinstance(value, (bool, int, float)) and not hasattr(value, "__array__"):
        raise DataError(f"{what} is a {type(value).__name__}, not an array", where=where, hint="numpy.asarray(...)")
    try:
        return np.array(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} cannot be read as an array ({error})", where=where) from error


def _any_array(label: object, where: str) -> NDArray[np.generic]:
    """A copy of whatever NumPy makes an array of."""
    try:
        return np.array(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"the label cannot be read as an array ({error})", where=where, hint=RAGGED) from error
