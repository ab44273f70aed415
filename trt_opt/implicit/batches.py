"""Lays samples down as the batches that TensorRT's own calibrator is fed with in the child process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.checks import shape_text
from trt_opt.errors import DataError
from trt_opt.files import storage_error
from trt_opt.values.native_calibration import StoredBatches
from trt_opt.values.progress import Progress, Silent
from trt_opt.values.samples import Sample, Samples
from trt_opt.values.tensors import TensorSpec

Arrays = list[NDArray[np.generic]]


def store_batches(
    samples: Samples,
    inputs: Sequence[TensorSpec],
    folder: Path,
    *,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> StoredBatches:
    """Writes samples as batches of one shape; only one batch is in memory at a time.

    TensorRT calibrates with one shape, that of the calibration profile, so samples of several shapes are refused.
    Samples are joined along axis 0 where it is dynamic in every input; else each sample is a batch, in the size that
    the network itself has. A last batch that is too short is filled with samples from the front: TensorRT knows no
    shorter one, and leaving samples out would change the data behind the data's hash.

    Args:
        samples: The data.
        inputs: The graph's inputs.
        folder: An empty scratch folder.
        batch_size: How long axis 0 of a batch is to be; what the samples have themselves, if that is more.
        progress: Told of every sample.

    Raises:
        DataError: There are no samples, they have several shapes, or they are not as many as they say.
        StorageError: The folder cannot be written.
    """
    count = len(samples)
    first = next(iter(samples), None)
    if first is None or not count:
        raise DataError("there are no samples to calibrate with", hint="--calib-data DATA")
    names = tuple(spec.name for spec in inputs)
    shapes = _shapes(first, names)
    joined = _joined(inputs, shapes, batch_size, count)
    repeated = -count % joined
    listener = progress or Silent()
    listener.start("store batches", count + repeated, "samples")
    batch: list[Arrays] = []
    written = seen = 0
    for sample in chain(samples, islice(samples, repeated)):
        seen += 1
        batch.append(_arrays(sample, names, shapes, first.name))
        listener.advance()
        if len(batch) == joined:
            _write(folder / f"{written:06}.npz", [_joined_arrays(each) for each in zip(*batch, strict=True)])
            written, batch = written + 1, []
    if seen != count + repeated:
        raise DataError(f"the data gave {seen - repeated} samples, and said they were {count}")
    listener.finish()
    batched = tuple((joined * shape[0], *shape[1:]) if joined > 1 else shape for shape in shapes)
    return StoredBatches(names, written, count, repeated, joined, batched)


def _shapes(sample: Sample, names: Sequence[str]) -> list[tuple[int, ...]]:
    return [tuple(sample.feed[name].shape) for name in names]


def _joined(inputs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]], batch_size: int, count: int) -> int:
    """How many samples make a batch; never more than there are, which would repeat all of them."""
    batched = all(spec.shape and isinstance(spec.shape[0], str) for spec in inputs)
    lengths = {shape[0] for shape in shapes if shape}
    if not batched or len(lengths) != 1 or 0 in lengths:
        return 1
    return max(1, min(batch_size // lengths.pop(), count))


def _arrays(sample: Sample, names: Sequence[str], shapes: Sequence[tuple[int, ...]], first: str) -> Arrays:
    """A sample's arrays in the order of the inputs; floats of any width become float32.

    Raises:
        DataError: A shape differs from the first sample's.
    """
    for name, shape, wanted in zip(names, _shapes(sample, names), shapes, strict=True):
        if shape != wanted:
            raise DataError(
                f"the input {name!r} is {shape_text(shape)} here and {shape_text(wanted)} in {first}: TensorRT's own "
                "calibrators take one shape",
                where=sample.name,
                hint="data of one shape (images: --preprocess), or --calibrator entropy, which takes any",
            )
    found = (sample.feed[name] for name in names)
    return [array.astype(np.float32) if array.dtype.kind == "f" else array for array in found]


def _joined_arrays(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _write(file: Path, arrays: Arrays) -> None:
    try:
        # Names of inputs hold slashes and colons, and `file` is an argument of savez: numbers name nothing else.
        np.savez(file, **{f"input-{number}": array for number, array in enumerate(arrays)})  # type: ignore[arg-type]
    except OSError as error:
        raise storage_error(error, file, hint=f"free space in {os.fspath(file.parent)}, or set TMPDIR") from error
