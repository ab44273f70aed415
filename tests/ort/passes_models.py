"""Small models and their runs for the tests of trt_opt.passes."""

from __future__ import annotations

import importlib.util
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from trt_opt.backends import backend_for
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.query import count_operators, graph_inputs, graph_outputs
from trt_opt.passes.base import Pass
from trt_opt.passes.verification import difference, run_model
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.rewriting import PassReport
from trt_opt.values.samples import Sample
from trt_opt.values.target import target_from_text

FLOAT32_TOLERANCE = 1e-5
"""Relative to the largest output: a few dozen roundings of float32, of the small graphs here."""


def model_of(text: str, *, ir_version: int = 8, opset: int = 17, **weights: np.ndarray) -> ModelProto:
    """A model from ONNX's text notation of a graph, with the given initialisers."""
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]>\n{text}')
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return model


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_samples(model: ModelProto, count: int = 2) -> list[Sample]:
    """Random feeds; dynamic sizes are 2."""
    rng = np.random.default_rng(1)
    samples = []
    for number in range(count):
        feed = {}
        for spec in graph_inputs(model):
            shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
            feed[spec.name] = np.asarray(rng.normal(size=shape)).astype(spec.dtype)
        samples.append(Sample(f"random[{number}]", feed))
    return samples


def applied(entry: Pass, model: ModelProto, samples: Sequence[Sample] = ()) -> tuple[ModelProto, PassReport]:
    """Runs the pass once, and asserts what holds for every pass.

    The model given is not edited, the signature and the numbers stay, the result is valid, and a second run finds
    nothing more to do.
    """
    before = model.SerializeToString(deterministic=True)
    after, report = entry.run(model)
    assert model.SerializeToString(deterministic=True) == before
    assert (after is model) == (not report.changed)
    assert graph_inputs(after) == graph_inputs(model)
    assert graph_outputs(after) == graph_outputs(model)
    onnx.checker.check_model(after, full_check=True)
    samples = samples or random_samples(model)
    error, reason = difference(run_model(model, samples), run_model(after, samples))
    assert not reason
    assert error <= FLOAT32_TOLERANCE
    again, second = entry.run(after)
    assert again is after
    assert second.declined == tuple(decline for decline in report.declined if decline in second.declined)
    return after, report


def operators(model: ModelProto) -> dict[str, int]:
    """Operator → how often, subgraphs included."""
    return dict(Counter(count_operators(model)))


def refused_by(model: ModelProto, target: str = "rtx:8.6") -> str:
    """Why the real TensorRT-RTX does not build the model for a target; an empty text where it does.

    Skips the test where TensorRT-RTX is not installed.
    """
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed")
    with tempfile.TemporaryDirectory(prefix="trt-opt-") as folder, backend_for(target_from_text(target)) as backend:
        file = Path(folder) / "model.onnx"
        onnx.save(model, file)
        options = BuildOptions(target=target, profile={}, workspace_bytes=None, optimization_level=0)
        try:
            backend.build(BuildFiles(file, Path(folder) / "engine"), options, Silent(), 60.0)
        except UnsupportedModelError as error:
            return str(error)
    return ""
