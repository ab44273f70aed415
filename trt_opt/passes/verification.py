"""Whether a rewritten model still computes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.passes.unique_node_names import UniqueNodeNames
from trt_opt.values.samples import Sample

TOLERANCE: Mapping[str, float] = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-9}
"""How far a pass may move an output, relative to the output's largest magnitude, by element type.

Folding multiplies weights once instead of activations each time: every product is rounded differently, and the
differences of a deep network add up to some tens of roundings (2⁻¹¹ for float16, 2⁻²⁴ for float32, 2⁻⁵³ for float64).
Outputs of other types must be equal, and values that are not tensors (sequences, maps) must print the same.
"""

Outputs = tuple[Mapping[str, NDArray[np.generic]], ...]
"""For each sample, output name → value."""


def run_model(model: ModelProto, samples: Sequence[Sample]) -> Outputs:
    """What the model gives for every sample, in ONNX Runtime with its own optimisations off.

    Raises:
        UnsupportedModelError: ONNX Runtime cannot load or run it.
    """
    # ONNX Runtime refuses node names used twice, which is no reason not to compare.
    distinct, _ = UniqueNodeNames().run(model)
    with OnnxRuntimeRunner(distinct, optimised=False) as runner:
        return tuple(runner.infer(sample.feed) for sample in samples)


def difference(before: Outputs, after: Outputs) -> tuple[float, str]:
    """The largest difference relative to its output's largest magnitude, and why it is too large, or an empty text."""
    largest = 0.0
    for one, other in zip(before, after, strict=True):
        for name, value in one.items():
            if not isinstance(value, np.ndarray):
                if repr(value) != repr(other[name]):
                    return np.inf, f"output {name!r}, which is not a tensor, changed"
                continue
            reference, candidate = value, np.asarray(other[name])
            if reference.dtype != candidate.dtype or reference.shape != candidate.shape:
                what = f"{candidate.dtype.name} {candidate.shape} instead of {reference.dtype.name} {reference.shape}"
                return np.inf, f"output {name!r} became {what}"
            error = _relative_error(reference, candidate)
            largest = max(largest, error)
            limit = TOLERANCE.get(reference.dtype.name, 0.0)
            if not error <= limit:
                return error, f"output {name!r} differs by {error:.2e} of its largest magnitude; {limit:.0e} is allowed"
    return largest, ""


def _relative_error(reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> float:
    """Infinity where NaN or infinities are not in the same places."""
    if reference.dtype.kind != "f":
        return 0.0 if np.array_equal(reference, candidate) else np.inf
    one, other = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(
        one[~finite], other[~finite], equal_nan=True
    ):
        return np.inf
    if not finite.any():
        return 0.0
    error = float(np.abs(one[finite] - other[finite]).max())
    scale = float(np.abs(one[finite]).max())
    return error / scale if scale else (np.inf if error else 0.0)
