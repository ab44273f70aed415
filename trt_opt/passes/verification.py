"""Whether a rewritten model still computes the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.query import count_nodes, graph_inputs, graph_outputs
from trt_opt.graph.tensors import weight_bytes
from trt_opt.passes.clean_up.evaluation import REFERENCE_ERRORS
from trt_opt.passes.clean_up.unique_node_names import UniqueNodeNames
from trt_opt.values.samples import Sample

TOLERANCE: Mapping[str, float] = {"bfloat16": 4e-2, "float16": 1e-2, "float32": 1e-4, "float64": 1e-9}
"""How far a pass may move an output, relative to the output's largest magnitude, by element type.

Folding multiplies weights once instead of activations each time: every product is rounded differently, and the
differences of a deep network add up to some tens of roundings (2⁻⁸ for bfloat16, 2⁻¹¹ for float16, 2⁻²⁴ for float32,
2⁻⁵³ for float64). Outputs of other types must be equal, and values that are not tensors (sequences, maps) must print
the same.
"""

Outputs = tuple[Mapping[str, NDArray[np.generic]], ...]
"""For each sample, output name → value."""


LARGEST_FOR_REFERENCE_NODES = 2000
LARGEST_FOR_REFERENCE_BYTES = 64 << 20
"""onnx's reference implementation is NumPy, node by node: for small models alone."""


def run_model(model: ModelProto, samples: Sequence[Sample]) -> Outputs:
    """What the model gives for every sample, in ONNX Runtime with its own optimisations off.

    A small model that ONNX Runtime has no kernels for, or whose element types it cannot be fed, runs in onnx's
    reference implementation. Inputs that the model does not have are not fed.

    Raises:
        UnsupportedModelError: Neither can load or run it; the reason is ONNX Runtime's.
    """
    # ONNX Runtime refuses node names used twice, which is no reason not to compare.
    distinct, _ = UniqueNodeNames().run(model)
    feeds = _feeds_for(distinct, samples)
    try:
        with OnnxRuntimeRunner(distinct, optimised=False) as runner:
            return tuple(runner.infer(feed) for feed in feeds)
    except UnsupportedModelError:
        outputs = run_in_reference(distinct, samples)
        if outputs is None:
            raise
        return outputs


def _feeds_for(model: ModelProto, samples: Sequence[Sample]) -> list[dict[str, NDArray[np.generic]]]:
    wanted = {spec.name for spec in graph_inputs(model)}
    return [{name: array for name, array in sample.feed.items() if name in wanted} for sample in samples]


def _is_small(model: ModelProto) -> bool:
    return count_nodes(model) <= LARGEST_FOR_REFERENCE_NODES and weight_bytes(model) <= LARGEST_FOR_REFERENCE_BYTES


def run_in_reference(model: ModelProto, samples: Sequence[Sample]) -> Outputs | None:
    """What onnx's reference implementation gives; None where it cannot run the model, or the model is not small."""
    if not _is_small(model):
        return None
    names = [spec.name for spec in graph_outputs(model)]
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(model)
            runs = [evaluator.run(None, feed) for feed in _feeds_for(model, samples)]
    except REFERENCE_ERRORS:
        return None
    return tuple(dict(zip(names, values, strict=True)) for values in runs)


def difference(before: Outputs, after: Outputs) -> tuple[float, str]:
    """The largest difference relative to its output's largest magnitude, and why it is too large, or an empty text."""
    largest = 0.0
    for one, other in zip(before, after, strict=True):
        for name, value in one.items():
            if not isinstance(value, (np.ndarray, np.generic)):
                if repr(value) != repr(other[name]):
                    return np.inf, f"output {name!r}, which is not a tensor, changed"
                continue
            reference, candidate = np.asarray(value), np.asarray(other[name])
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
    if reference.dtype.name not in TOLERANCE:
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
