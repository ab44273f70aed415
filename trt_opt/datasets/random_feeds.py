"""Random numbers instead of data: for trying things out, never for ranges or accuracy that mean anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.checks import check_shape, closest_hint, dtype_of
from trt_opt.errors import DataError
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.shapes import Shape
from trt_opt.values.tensors import TensorSpec

SEED = 0
"""Every walk and every machine sees the same numbers."""

_OTHERWISE = "where there is no such option: data.npz with one array per input"


class RandomDataset:
    """N seeded random feeds.

    Floats are standard normal, booleans coin flips, uint8 (pixels) 0 … 255, and other integers 0 or 1: they are mostly
    indices, masks and token types, and 0 and 1 lie inside every table worth looking up.

    Args:
        source: What the user wrote: "random:16".
        inputs: What the model wants.
        shapes: The shapes of inputs with dynamic dimensions. Without, a dynamic first dimension is 1.

    Raises:
        DataError: N is not a positive number, a shape cannot be known, or a given one does not fit.
    """

    is_random = True
    has_labels = False

    def __init__(self, source: str, inputs: tuple[TensorSpec, ...], shapes: Mapping[str, Shape] | None = None) -> None:
        self.source = source
        self._inputs = inputs
        self._samples = _count_from_source(source)
        self._dtypes = {spec.name: dtype_of(spec) for spec in inputs}
        shapes = shapes or {}
        names = [spec.name for spec in inputs]
        for name in shapes:
            if name not in names:
                raise DataError(f"a shape for {name!r}, which is not an input", hint=closest_hint(name, names))
        self._shapes = {spec.name: _shape_of(spec, shapes.get(spec.name)) for spec in inputs}

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self._samples):
            generator = np.random.default_rng([SEED, index])
            feed = {name: _draw(generator, self._shapes[name], dtype) for name, dtype in self._dtypes.items()}
            yield Sample(f"{self.source}[{index}]", feed)

    def provenance(self) -> DataProvenance:
        """Source, the SHA-256 of the source's text, seed, names, types and shapes, and the number of samples."""
        parts = [f"{name} {dtype.name} {self._shapes[name]}" for name, dtype in self._dtypes.items()]
        text = "\n".join([f"random:{self._samples}", f"seed {SEED}", *parts])
        return DataProvenance(self.source, hashlib.sha256(text.encode()).hexdigest(), self._samples, random=True)


def _count_from_source(source: str) -> int:
    text = source.removeprefix("random:")
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise DataError(f"cannot read {source!r}", hint="write random:16 for sixteen random samples")
    return int(text)


def _shape_of(spec: TensorSpec, given: Shape | None) -> Shape:
    if given is not None:
        check_shape(given, spec, "the shape given for random data")
        return given
    if spec.shape is None:
        hint = f"--opt-shapes {spec.name}:1x3x224x224, or {_OTHERWISE}"
        raise DataError(f"random data for {spec} need a shape", hint=hint)
    sizes = list(spec.shape)
    if sizes and not isinstance(sizes[0], int):
        sizes[0] = 1
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if len(fixed) != len(sizes):
        example = "x".join(str(size) if isinstance(size, int) else f"<{size}>" for size in sizes)
        raise DataError(
            f"random data for {spec} need sizes for its dynamic dimensions",
            hint=f"--opt-shapes {spec.name}:{example} with numbers for the names, or {_OTHERWISE}",
        )
    return fixed


def _draw(generator: np.random.Generator, shape: Shape, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    match dtype.kind:
        case "f" | "c":
            return np.asarray(generator.standard_normal(shape, dtype=np.float32)).astype(dtype)
        case "b":
            return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
        case _:
            return np.asarray(generator.integers(0, 256 if dtype == np.uint8 else 2, shape)).astype(dtype)
