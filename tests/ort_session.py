"""ONNX Runtime without any optimisation: what a graph says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime_fp16 import with_rounding_quantizers
from trt_opt.quantize.stage import FloatGraph
from trt_opt.values.calibration import TensorRange


def outputs_of(model: onnx.ModelProto, feed: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Runs a model once."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = with_rounding_quantizers(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def sqnr_db(reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> float:
    """Signal to quantisation noise, dB."""
    signal = reference.astype(np.float64)
    noise = signal - candidate.astype(np.float64)
    return float(10 * np.log10(np.sum(signal**2) / max(np.sum(noise**2), 1e-30)))


def ranges_of(graph: FloatGraph, feed: Mapping[str, NDArray[np.generic]]) -> dict[str, TensorRange]:
    """The extremes of every tapped tensor on one feed."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(graph.model)
    present = {value.name for value in (*tapped.graph.input, *tapped.graph.output)}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in graph.taps.all if name not in present)
    tensors = {**feed, **outputs_of(tapped, feed)}
    return {
        name: TensorRange(float(array.min()), float(array.max()), float(np.abs(array).max()), array.size)
        for name, array in tensors.items()
        if name in graph.taps.all
    }
