"""Layers measured apart: what every probe's numbers are, and what probes share."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, weights

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.tensors import weight_bytes
from trt_opt.sensitivity import probes
from trt_opt.sensitivity.probes import Probe, probe_errors
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Sample


def test_probes_with_the_same_weights_store_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thresholds of one layer cost no memory, and each has its own error."""
    shape, own = [1, 8, 6, 6], weights(16, 8, 3, 3)
    model = model_of([conv("conv1", "x", "y", "w")], {"x": shape}, {"y": [1, 16, 6, 6]}, {"w": own})
    ran: list[onnx.ModelProto] = []
    real = probes.OnnxRuntimeRunner

    def seen(model: onnx.ModelProto, **options: object) -> object:
        ran.append(model)
        return real(model, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(probes, "OnnxRuntimeRunner", seen)
    numbers = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    samples = [Sample("one", {"x": numbers})]
    rounded = np.round(own * 64) / 64
    asked = [Probe("conv1", {0: np.float32(scale)}, {1: rounded}) for scale in np.linspace(0.01, 0.5, 100)]
    sums = probe_errors(GraphIndex(model), asked, samples, Silent(), stage="probe")
    assert weight_bytes(ran[0]) < 3 * own.nbytes
    errors = [found.error for found in sums]
    assert min(errors) < errors[0]  # the smallest scale clips
    assert min(errors) < errors[-1]  # the largest rounds
    assert len(set(errors)) == len(errors)
