"""Samples for checks where the user gave none: numbers made up from the graph's types and shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from trt_opt.errors import TrtOptError
from trt_opt.graph.query import graph_inputs
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample
from trt_opt.values.tensors import TensorSpec

SIZES = (2, 1, 4, 8, 16, 32, 64, 128, 224, 256, 320, 416, 512, 640)
"""What a dynamic dimension may be, in the order tried; graphs often want it divisible by their strides."""

MOST_ELEMENTS = 1 << 24
"""Above this a sample is not worth making up."""

SEED = 0


def made_up_samples(model: ModelProto) -> tuple[tuple[Sample, ...], str]:
    """One sample the model runs on, and why there is none, if there is none.

    Floats are standard normal, booleans coin flips, uint8 0 … 255, other integers 0 or 1: these are mostly indices,
    axes and masks. Dynamic dimensions get one size after another until the model runs.
    """
    inputs = graph_inputs(model)
    reason = "no sizes were found for its dynamic dimensions on which it runs"
    for size in SIZES if any(not spec.is_static for spec in inputs) else SIZES[:1]:
        try:
            feed = {spec.name: _draw(spec, size) for spec in inputs}
        except _CannotBeMadeUpError as error:
            return (), str(error)
        sample = Sample(f"made up at size {size}", feed)
        try:
            run_model(model, (sample,))
        except TrtOptError as error:
            reason = f"made-up inputs do not run: {error.what}"
            continue
        return (sample,), ""
    return (), reason


class _CannotBeMadeUpError(Exception):
    """An input is no tensor, or of a type or shape nothing is known of."""


def _draw(spec: TensorSpec, size: int) -> NDArray[np.generic]:
    if spec.shape is None:
        raise _CannotBeMadeUpError(f"the rank of its input {spec.name!r} is not known")
    shape = tuple(_sizes(spec.shape, size))
    if np.prod(shape, dtype=np.float64) > MOST_ELEMENTS:
        raise _CannotBeMadeUpError(f"its input {spec.name!r} is too large to make up")
    generator = np.random.default_rng([SEED, len(spec.name), len(shape)])
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    name = names.get(spec.dtype, spec.dtype.upper())
    if name not in onnx.TensorProto.DataType.keys() or name == "STRING":  # noqa: SIM118  protobuf's wrapper is no mapping
        raise _CannotBeMadeUpError(f"its input {spec.name!r} is {spec.dtype}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(name))
    if "float" in spec.dtype:
        return np.asarray(generator.standard_normal(shape)).astype(dtype)
    high = 256 if spec.dtype == "uint8" else 2
    return np.asarray(generator.integers(0, high, shape)).astype(dtype)


def _sizes(shape: tuple[int | str, ...], size: int) -> Iterator[int]:
    """Batch sizes, dynamic first dimensions of two or more, stay small."""
    for position, known in enumerate(shape):
        if isinstance(known, int):
            yield known
        else:
            yield min(size, 2) if position == 0 and len(shape) > 1 else size
