"""Values for inputs that are to be frozen, as users write them."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.errors import RequestError
from trt_opt.values.tensors import TensorSpec

Array = NDArray[np.generic]

_FORMS = "write name=3, name=1,2,3, name=[[1,2],[3,4]], name=true, or the path of an .npz file"


def frozen_values_from_text(texts: Sequence[str], inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """The values to freeze inputs to, by name, of each input's own type and a shape that it allows.

    Args:
        texts: Each "name=value", where the value is a number, true or false, a list with commas or a nested list in
            brackets; or the path of an .npz file with one array per name.
        inputs: The inputs there are.

    Raises:
        RequestError: A text is of no such form; the file cannot be read; a name is given twice or is no input; a value
            does not fit its input.
    """
    given: dict[str, Array] = {}
    for text in texts:
        for name, value in _given(text).items():
            if name in given:
                raise RequestError(f"two values are given for the input {name!r}")
            given[name] = value
    return fitting_values(given, inputs)


def fitting_values(given: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """The values in the types of their inputs; a single number also stands for a tensor of one element.

    Raises:
        RequestError: A name is no input; a value does not fit its input.
    """
    known = {spec.name: spec for spec in inputs}
    for name in given:
        if name not in known:
            listed = ", ".join(str(spec) for spec in inputs) or "none"
            raise RequestError(f"the model has no input {name!r}", hint=f"its inputs are {listed}")
    return {name: _fitting(value, known[name]) for name, value in given.items()}


def _given(text: str) -> dict[str, Array]:
    name, equals, value = text.partition("=")
    if not equals:
        return _from_file(Path(text))
    if not name.strip() or not value.strip():
        raise RequestError(f"{text!r} is no value for an input", hint=_FORMS)
    return {name.strip(): _parsed(value.strip(), text)}


def _parsed(value: str, text: str) -> Array:
    written = f"[{value.rstrip(',')}]" if "," in value and not value.startswith("[") else value
    try:
        array = np.asarray(json.loads(written.replace("True", "true").replace("False", "false")))
    except ValueError as error:
        raise RequestError(f"{text!r} is no value for an input", hint=_FORMS) from error
    if array.dtype.kind not in "biuf":
        raise RequestError(f"{text!r} holds something else than numbers", hint=_FORMS)
    return array


def _from_file(path: Path) -> dict[str, Array]:
    if path.suffix != ".npz":
        raise RequestError(f"{str(path)!r} is no value for an input", hint=_FORMS)
    try:
        # NumPy leaves files open that it fails on.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("this is a single array, without a name")
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(f"cannot read the values to freeze: {error}", where=str(path)) from error


def _fitting(value: Array, spec: TensorSpec) -> Array:
    where = f"input {spec}"
    array = np.asarray(value)
    if spec.shape is not None and array.ndim == 0 and _allows((1,) * len(spec.shape), spec):
        array = array.reshape((1,) * len(spec.shape))
    if spec.shape is not None and not _allows(array.shape, spec):
        raise RequestError(f"a value of shape {list(array.shape)} does not fit", where=where)
    return _in_type(array, spec.dtype, where)


def _allows(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    sizes = spec.shape or ()
    matches = (not isinstance(size, int) or size == given for size, given in zip(sizes, shape, strict=False))
    return len(sizes) == len(shape) and all(matches)


def _in_type(array: Array, dtype: str, where: str) -> Array:
    """Floats are rounded to the input's type; nothing else may change a value."""
    wanted = _numpy_type(dtype, where)
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in "biuf":
        raise RequestError(f"values of type {array.dtype.name} cannot be frozen", where=where)
    with np.errstate(over="ignore", invalid="ignore"):
        cast: Array = array.astype(wanted)
    whole = "float" not in dtype
    if whole and not np.array_equal(cast.astype(np.float64), array.astype(np.float64)):
        raise RequestError(f"{array.tolist()} cannot be held by {dtype}", where=where)
    if not whole and not np.array_equal(np.isfinite(cast.astype(np.float64)), np.isfinite(array.astype(np.float64))):
        raise RequestError(f"{array.tolist()} is too large for {dtype}", where=where)
    return cast


def _numpy_type(dtype: str, where: str) -> np.dtype[np.generic]:
    """NumPy's own or ml_dtypes' type (bfloat16, FP8, INT4) of an input."""
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    name = names.get(dtype, dtype.upper())
    types = dict(onnx.TensorProto.DataType.items())
    found = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(types[name])) if types.get(name) else None
    if found is None or found.kind in "OcUS":
        raise RequestError(f"inputs of type {dtype} cannot be frozen", where=where)
    return found
