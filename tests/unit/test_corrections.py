"""Corrected constants in quantised graphs: what is stored, and where."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, residual_block, weights
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from trt_opt.quantize.stage import (
    Correction,
    FloatGraph,
    PrecisionRequest,
    QuantizedGraph,
    float_graph,
    quantized_graph,
)
from trt_opt.quantize.stored_weights import StoredWeights, stored_weights
from trt_opt.values.calibration import TensorRange

FP16 = pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])


def graph_of(model: onnx.ModelProto, *, fp16: bool = False, spared: Mapping[str, str] | None = None) -> FloatGraph:
    """The model, to be quantised statically."""
    return float_graph(model, PrecisionRequest("static", fp16, spared=spared or {}))


def corrected(graph: FloatGraph, corrections: Mapping[str, Correction]) -> QuantizedGraph:
    """The quantised graph; every tensor reaches 4."""
    return quantized_graph(graph, {name: TensorRange(-4.0, 4.0, 4.0, 1) for name in graph.taps.all}, corrections)


def rounded_otherwise(graph: FloatGraph, layer: str) -> StoredWeights:
    """The layer's weights with every code one step nearer to zero."""
    quantizer = next(entry for entry in graph.placement.weights if entry.reader.node == layer)
    values = np.asarray(graph.index.constant(quantizer.tensor), np.float32)
    nearest = stored_weights(values, quantizer, fp16=graph.request.fp16)
    return StoredWeights(nearest.numbers - np.sign(nearest.numbers), nearest.scales, nearest.attributes)


def stored_for(result: QuantizedGraph, layer: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """The codes and scales that the layer's weights are dequantised from."""
    nodes = {entry.name: entry for entry in result.model.graph.node}
    makers = {name: entry for entry in nodes.values() for name in entry.output}
    constants = {tensor.name: tensor for tensor in result.model.graph.initializer}
    pair = makers[nodes[layer].input[1]]
    assert pair.op_type == "DequantizeLinear"
    assert constants[pair.input[0]].data_type == TensorProto.INT8
    codes, scales = (numpy_helper.to_array(constants[name]) for name in pair.input[:2])
    return codes, scales


def one_convolution(values: NDArray[np.float32]) -> onnx.ModelProto:
    """`c`, a convolution with these weights."""
    shape = [1, values.shape[0], 8, 8]
    return model_of([conv("c", "x", "y", "w")], {"x": [1, values.shape[1], 8, 8]}, {"y": shape}, {"w": values})


def two_readers_of_one_weight() -> onnx.ModelProto:
    """`first` and `second` have the same weights."""
    nodes = [conv("first", "x", "a", "w"), conv("second", "a", "y", "w")]
    return model_of(nodes, {"x": [1, 8, 8, 8]}, {"y": [1, 8, 8, 8]}, {"w": weights(8, 8, 3, 3)})


@FP16
@pytest.mark.parametrize("size", [1.0, 3e-6, 1e-37], ids=["usual", "fp16-subnormal", "nearly-nothing"])
def test_codes_and_scales_are_stored_as_they_are_told(size: float, fp16: bool) -> None:
    """Computed again, with 126 as the largest code, the scales would be others; a channel of zeros has one too."""
    values = weights(8, 4, 3, 3) * np.float32(size)
    values[2] = 0.0
    graph = graph_of(one_convolution(values), fp16=fp16)
    told = rounded_otherwise(graph, "c")
    codes, scales = stored_for(corrected(graph, {"c": Correction(told)}), "c")
    np.testing.assert_array_equal(codes, told.numbers)
    np.testing.assert_array_equal(scales.astype(np.float32), told.scales)


@FP16
def test_another_reader_of_the_weights_keeps_them(fp16: bool) -> None:
    """Two layers share one tensor: the layer that is not corrected gets the nearest codes, as before."""
    graph = graph_of(two_readers_of_one_weight(), fp16=fp16)
    told = rounded_otherwise(graph, "first")
    plain, result = corrected(graph, {}), corrected(graph, {"first": Correction(told)})
    np.testing.assert_array_equal(stored_for(result, "first")[0], told.numbers)
    np.testing.assert_array_equal(stored_for(result, "second")[0], stored_for(plain, "second")[0])


def test_both_readers_of_one_weight_may_be_corrected_apart() -> None:
    """Each has codes of its own, and neither the tensor nor its nearest codes stay in the file."""
    graph = graph_of(two_readers_of_one_weight())
    first = rounded_otherwise(graph, "first")
    second = StoredWeights(-first.numbers, first.scales, first.attributes)
    result = corrected(graph, {"first": Correction(first), "second": Correction(second)})
    np.testing.assert_array_equal(stored_for(result, "first")[0], first.numbers)
    np.testing.assert_array_equal(stored_for(result, "second")[0], second.numbers)
    assert sum(tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4 for tensor in _stored(result)) == 2
    assert "w" not in {tensor.name for tensor in _stored(result)}


def test_a_layer_left_in_float_keeps_its_constants() -> None:
    """Corrections are for the error of INT8, which a spared layer does not have."""
    graph = graph_of(residual_block(), spared={"conv2": "measured"})
    correction = Correction(bias=np.ones(16, np.float32))
    assert corrected(graph, {"conv2": correction}).model == corrected(graph, {}).model


@FP16
def test_the_plan_lists_every_layer_of_the_float_model(fp16: bool) -> None:
    """Nodes that a correction adds are none of the user's."""
    nodes = [node("MatMul", "product", ["x", "w"], "y")]
    model = model_of(nodes, {"x": [4, 32]}, {"y": [4, 16]}, {"w": weights(32, 16)})
    graph = graph_of(model, fp16=fp16)
    correction = Correction(rounded_otherwise(graph, "product"), np.ones(16, np.float32))
    plain, result = corrected(graph, {}), corrected(graph, {"product": correction})
    assert result.plan == plain.plan
    assert [layer.node for layer in result.plan.layers] == ["product"]


def test_a_constant_behind_a_product_takes_the_bias() -> None:
    """Exporters write a linear layer as MatMul and Add: a second Add would be one more thing to fuse."""
    nodes = [node("MatMul", "product", ["x", "w"], "a"), node("Add", "sum", ["own", "a"], "y")]
    constants = {"w": weights(32, 16), "own": weights(16, seed=1)}
    model = model_of(nodes, {"x": [4, 32]}, {"y": [4, 16]}, constants)
    result = corrected(graph_of(model), {"product": Correction(bias=np.full(16, 2.0, np.float32))})
    sums = [entry for entry in result.model.graph.node if entry.op_type == "Add"]
    assert [entry.name for entry in sums] == ["sum"]
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in _stored(result)}
    np.testing.assert_array_equal(found[sums[0].input[0]], constants["own"] + 2)


def test_dequantized_weights_are_codes_times_scales() -> None:
    """The scales of a transposed convolution go along its second axis."""
    codes = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    stored = StoredWeights(codes, np.array([1, 2, 3], np.float32), {"axis": 1})
    found = Correction(stored).dequantized_weights()
    np.testing.assert_array_equal(found, codes * np.array([1, 2, 3]).reshape(1, 3, 1, 1))
    assert Correction().dequantized_weights() is None


def _stored(result: QuantizedGraph) -> list[onnx.TensorProto]:
    return list(result.model.graph.initializer)
