"""What every sample must satisfy, whichever reader it came through: names, rank, sizes, element type, finite values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trt_opt.errors import DataError
from trt_opt.values.tensors import TensorSpec

LABELS = "labels"
"""The name under which array files carry the right answers, unless the graph has an input of that name."""


RAGGED = (
    "the labels of a sample are one array of numbers or texts; where samples have different numbers of them, a folder "
    "with an .npz per sample takes them, and package.module:function"
)
"""What to do about labels that make no array."""


def dtype_of(spec: TensorSpec) -> np.dtype[np.generic]:
    """NumPy's element type of an input.

    Raises:
        DataError: NumPy has no such type (bfloat16, float8 …), or the elements are strings.
    """
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "fiubc":
        raise DataError(
            f"the input {spec.name!r} takes {spec.dtype} elements, which no data source can give",
            hint="give the model a float32 or integer input and cast inside the graph",
        )
    return dtype


def closest_hint(name: str, known: Iterable[str]) -> str | None:
    """A hint naming the known name nearest to the one given, or None if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else None


def shape_text(shape: Iterable[int | str] | None) -> str:
    """A shape as users read it: `[1, 3, 224, 224]`, `[batch, 10]`, `[]`; `of any rank` for None."""
    return "of any rank" if shape is None else "[" + ", ".join(str(size) for size in shape) + "]"


def label_name(inputs: tuple[TensorSpec, ...]) -> str | None:
    """The name that stands for labels, or None where the graph has an input of that name."""
    return None if any(spec.name == LABELS for spec in inputs) else LABELS


def check_names(given: Iterable[str], inputs: tuple[TensorSpec, ...], where: str) -> None:
    """Refuses a feed that lacks an input or holds something that is none.

    Args:
        given: The names of the feed, without labels.
        inputs: What the model wants.
        where: The file or sample.

    Raises:
        DataError: Says which names the model wants and which is closest.
    """
    given = list(given)
    wanted = [spec.name for spec in inputs]
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if not missing and not unknown:
        return
    problems = [f"no data for the input {name!r}" for name in missing]
    problems += [f"{name!r} is not an input of the model" for name in unknown]
    hints = [f"the model wants {', '.join(map(str, inputs))}"]
    for name in unknown:
        near = closest_hint(name, missing or wanted)
        hints += [f"{name!r}: {near}"] if near else []
    raise DataError("; ".join(problems), where=where, hint="; ".join(hints))


def check_shape(shape: tuple[int, ...], spec: TensorSpec, where: str, hint: str | None = None) -> None:
    """Refuses a sample's array whose rank or fixed dimensions differ from the input's.

    Raises:
        DataError: Names the dimension.
    """
    if spec.shape is None:
        return
    wants = f"the input {spec.name!r} wants {shape_text(spec.shape)}"
    if len(shape) != len(spec.shape):
        raise DataError(f"rank {len(shape)} ({shape_text(shape)}) does not fit: {wants}", where=where, hint=hint)
    for axis, (size, fixed) in enumerate(zip(shape, spec.shape, strict=True)):
        if isinstance(fixed, int) and size != fixed:
            raise DataError(
                f"{shape_text(shape)} does not fit: {wants}, and dimension {axis} is {size}, not {fixed}",
                where=where,
                hint=hint,
            )


def check_dtype(dtype: np.dtype[np.generic], spec: TensorSpec, where: str) -> None:
    """Refuses element types of another kind than the input's.

    Floats of any width pass for floats, integers of any width for integers; whether the values survive is seen when
    they are read. An integer is never taken for a float: uint8 pixels fed unscaled ruin every range without a word.

    Raises:
        DataError: Names both types.
    """
    wanted = dtype_of(spec)
    if _kind(dtype) == _kind(wanted):
        return
    hint = f"convert it yourself: array.astype({spec.dtype!r})"
    if dtype == np.uint8 and wanted.kind == "f":
        hint = f"scale pixels as in training, for example (array / 255).astype({spec.dtype!r})"
    raise DataError(f"{dtype.name} data for the input {spec.name!r}, which is {wanted.name}", where=where, hint=hint)


def checked_array(array: NDArray[np.generic], spec: TensorSpec, where: str) -> NDArray[np.generic]:
    """The array in the input's element type, C-contiguous, after every check.

    Args:
        array: One sample's data for one input.
        spec: The input.
        where: The sample's name.

    Raises:
        DataError: Rank, sizes or type do not fit; a value is NaN or infinite, or does not fit the input's type.
    """
    check_dtype(array.dtype, spec, where)
    check_shape(array.shape, spec, where)
    wanted = dtype_of(spec)
    _check_finite(array, spec, where)
    if wanted.kind in "iu":
        _check_integers_fit(array, wanted, spec, where)
    with np.errstate(over="ignore"):
        converted = np.asarray(array, dtype=wanted, order="C")
    if wanted.kind in "fc" and wanted.itemsize < array.dtype.itemsize and not np.isfinite(converted).all():
        raise DataError(f"the input {spec.name!r} holds values too large for {wanted.name}", where=where)
    return converted


def checked_label(label: NDArray[np.generic], where: str, *, any_labels: bool) -> NDArray[np.generic]:
    """The labels of one sample, once they are known to be class numbers: shape [batch] or scalar.

    Args:
        label: The labels.
        where: The sample's name.
        any_labels: They need not be class numbers.

    Raises:
        DataError: Not integers, negative, or of rank above 1 (one-hot, for example); or Python objects.
    """
    check_label_dtype(label.dtype, where, any_labels=any_labels)
    if any_labels:
        return label
    if label.ndim > 1:
        raise DataError(
            f"labels of shape {shape_text(label.shape)}, where one class number per row is needed",
            where=where,
            hint="for one-hot labels, labels.argmax(-1)",
        )
    if label.size and int(label.min()) < 0:
        raise DataError(f"the label {label.min()} is negative; labels are class numbers from 0", where=where)
    return label


def check_label_dtype(dtype: np.dtype[np.generic], where: str, *, any_labels: bool) -> None:
    """Refuses labels that are not integers; where any labels will do, those that are Python objects.

    Raises:
        DataError: Names the type.
    """
    if any_labels:
        if dtype.hasobject:  # their bytes are addresses, of which no hash can be made
            raise DataError(
                f"labels of dtype {dtype.name} are Python objects, not numbers or texts", where=where, hint=RAGGED
            )
        return
    if dtype.kind not in "iu":
        raise DataError(
            f"labels are class numbers, so integers, not {dtype.name}", where=where, hint="labels.astype('int64')"
        )


def _kind(dtype: np.dtype[np.generic]) -> str:
    return "i" if dtype.kind in "iu" else dtype.kind


def _check_finite(array: NDArray[np.generic], spec: TensorSpec, where: str) -> None:
    if array.dtype.kind not in "fc":
        return
    finite = np.isfinite(array)
    if not finite.all():
        bad = array.size - int(np.count_nonzero(finite))
        what = "NaN" if np.isnan(array).any() else "infinity"
        raise DataError(
            f"the input {spec.name!r} holds {what} ({bad} of {array.size} values are not finite)",
            where=where,
            hint="one such value spoils every range; remove the sample or repair what wrote it",
        )


def _check_integers_fit(array: NDArray[np.generic], wanted: np.dtype[np.generic], spec: TensorSpec, where: str) -> None:
    if not array.size or np.can_cast(array.dtype, wanted, "safe"):
        return
    low, high, limits = int(array.min()), int(array.max()), np.iinfo(str(wanted))
    if low < limits.min or high > limits.max:
        raise DataError(f"the input {spec.name!r} holds {low} … {high}, which does not fit {wanted.name}", where=where)
