"""Layers with corrected constants are measured as the quantised graph will have them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, weights
from ort_session import outputs_of, ranges_of

from trt_opt.quantize.stage import Correction, FloatGraph, PrecisionRequest, float_graph, quantized_graph
from trt_opt.quantize.stored_weights import StoredWeights, stored_weights
from trt_opt.sensitivity.end_to_end import damages, own_errors
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.sensitivity.switchboard import Switchboard
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Sample

WIDTH = 32

FEED = {"x": weights(1, WIDTH, 8, 8, scale=1.0), "rows": weights(1, 6, WIDTH, scale=1.0)}

ROUNDING = 1e-5
"""Of the largest number: the corrected graph adds to the bias first, the switchboard behind the layer."""


def convolution() -> onnx.ModelProto:
    """A bias of its own, and channels on axis 1."""
    constants = {"w": weights(16, WIDTH, 3, 3), "b": weights(16, scale=1.0)}
    layer = node("Conv", "layer", ["x", "w", "b"], "y", pads=[1, 1, 1, 1])
    return model_of([layer], {"x": [1, WIDTH, 8, 8]}, {"y": [1, 16, 8, 8]}, constants)


def convolution_without_bias() -> onnx.ModelProto:
    """The correction's bias is the only one."""
    layer = conv("layer", "x", "y", "w")
    return model_of([layer], {"x": [1, WIDTH, 8, 8]}, {"y": [1, 16, 8, 8]}, {"w": weights(16, WIDTH, 3, 3)})


def product() -> onnx.ModelProto:
    """A MatMul: channels on the last axis, and no place for a bias."""
    constants = {"w": weights(WIDTH, 16)}
    return model_of(
        [node("MatMul", "layer", ["rows", "w"], "y")], {"rows": [1, 6, WIDTH]}, {"y": [1, 6, 16]}, constants
    )


def correction_of(graph: FloatGraph) -> Correction:
    """Every other code a step off, and a bias that is no small part of the output."""
    (quantizer,) = graph.placement.weights
    values = np.asarray(graph.index.constant(quantizer.tensor), np.float32)
    nearest = stored_weights(values, quantizer, fp16=False)
    numbers = nearest.numbers.copy()
    numbers[::2] -= np.sign(numbers[::2])
    return Correction(StoredWeights(numbers, nearest.scales, nearest.attributes), weights(16, seed=3, scale=1.0))


@pytest.mark.parametrize("build", [convolution, convolution_without_bias, product])
def test_corrected_layers_are_measured_as_they_will_be(build: Callable[[], onnx.ModelProto]) -> None:
    """Switchboard, own error and damage are those of the corrected graph, and not those of the layer uncorrected."""
    graph = float_graph(build(), PrecisionRequest(method="static"))
    feed = {value.name: FEED[value.name] for value in graph.model.graph.input}
    ranges, corrections = ranges_of(graph, feed), {"layer": correction_of(graph)}
    layers = quantized_layers(graph, ranges, corrections)
    exact, found = (
        outputs_of(model, feed)["y"] for model in (graph.model, quantized_graph(graph, ranges, corrections).model)
    )
    with Switchboard(graph, layers) as board:
        switched = board.infer(feed, {"layer"})["y"]
        np.testing.assert_allclose(switched, found, rtol=0, atol=ROUNDING * np.abs(found).max())
        np.testing.assert_array_equal(board.infer(feed, ())["y"], exact)
    relative = float(((found - exact) ** 2).sum() / (exact**2).sum())
    samples = [Sample("sample", feed)]
    assert own_errors(graph, layers, samples, Silent())["layer"].relative == pytest.approx(relative, rel=1e-3)
    (damage,) = damages(graph, layers, samples, Silent())
    assert damage.energy == pytest.approx(relative, rel=1e-3)
    (plain,) = damages(graph, quantized_layers(graph, ranges), samples, Silent())
    assert plain.energy is not None and plain.energy < relative / 10
