"""Implicit quantisation: a float graph, and a range for every float tensor."""

from __future__ import annotations

import pytest
from graphs import model_of, node, pooled, residual_block, weights
from ort_session import ranges_of
from test_quantized_graph import feed_for

from calibrators import cache_from_text
from trt_opt.calibrate.cache import cache_from_table
from trt_opt.errors import UnsupportedModelError
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.samples import DataProvenance

IMPLICIT = PrecisionRequest("implicit")


def test_the_graph_stays_as_it_is() -> None:
    """Not a node, constant or opset changes, not even without ranges."""
    graph = float_graph(pooled(), IMPLICIT)
    assert quantized_graph(graph, {}).model == graph.model


def test_every_float_tensor_is_calibrated() -> None:
    """Inputs and outputs of every layer, each once; no constant."""
    graph = float_graph(residual_block(), IMPLICIT)
    assert graph.taps.calibrated == ("x", "a", "b", "c", "d", "e", "y")


def test_integer_tensors_are_not_calibrated() -> None:
    """A Shape's output has no range that INT8 could use."""
    nodes = [
        node("Shape", "shape", ["x"], "s"),
        node("MatMul", "m", ["x", "w"], "a"),
        node("Reshape", "r", ["a", "s"], "y"),
    ]
    model = model_of(nodes, {"x": [16, 16]}, {"y": [16, 16]}, {"w": weights(16, 16)})
    assert float_graph(model, IMPLICIT).taps.calibrated == ("x", "a", "y")


def test_the_cache_covers_every_float_tensor() -> None:
    """TensorRT's cache made from the table names all of them, with amax / 127."""
    graph = float_graph(residual_block(), IMPLICIT)
    ranges = ranges_of(graph, feed_for(residual_block()))
    table = CalibrationTable("", DataProvenance("data", 1, ""), "entropy", ranges, {})
    cache = cache_from_text(cache_from_table(table, "8.6.1"))
    assert set(cache.scales) == set(graph.taps.calibrated)
    assert cache.scales["x"] == pytest.approx((ranges["x"].amax or 0) / 127)


def test_layers_tell_that_tensorrt_decides() -> None:
    """What the policy gives to INT8 is offered, not imposed."""
    layers = {layer.node: layer for layer in float_graph(residual_block(), IMPLICIT).placement.layers}
    assert layers["conv1"].precision == "int8"
    assert "decides by speed" in layers["conv1"].reason


def test_nothing_to_quantise_is_an_error() -> None:
    """A model without a layer for INT8 needs no cache."""
    small = model_of([node("MatMul", "m", ["x", "w"], "y")], {"x": [4, 4]}, {"y": [4, 4]}, {"w": weights(4, 4)})
    with pytest.raises(UnsupportedModelError, match="4x4"):
        float_graph(small, IMPLICIT)
