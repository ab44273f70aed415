"""Q/DQ and FP16 written into graphs, run in ONNX Runtime without optimisations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, two_branches_into_a_concat, weights
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from ort_session import outputs_of, ranges_of, sqnr_db

from trt_opt.errors import RequestError, StaleError, UnsupportedModelError
from trt_opt.graph.float_types import widened_to_float32, with_float_weights
from trt_opt.graph.query import opset
from trt_opt.quantize.stage import PrecisionRequest, QuantizedGraph, float_graph, quantized_graph
from trt_opt.values.calibration import TensorRange

Feed = Mapping[str, NDArray[np.generic]]

MODELS = {"residual": residual_block, "concat": two_branches_into_a_concat, "pooled": pooled}


def feed_for(model: onnx.ModelProto, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Normal random numbers for every input."""
    generator = np.random.default_rng(seed)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def quantized(model: onnx.ModelProto, request: PrecisionRequest, feed: Feed) -> QuantizedGraph:
    """The model in the precisions asked for, ranges from one feed."""
    graph = float_graph(model, request)
    return quantized_graph(graph, ranges_of(graph, feed))


def element_types(model: onnx.ModelProto) -> set[int]:
    """The element types of the initialisers."""
    return {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("request_", "least_db"),
    [
        (PrecisionRequest(fp16=True), 55.0),
        (PrecisionRequest(method="static"), 30.0),
        (PrecisionRequest("static", True), 30.0),
    ],
    ids=["fp16", "int8", "int8+fp16"],
)
def test_the_result_computes_what_the_float_model_does(name: str, request_: PrecisionRequest, least_db: float) -> None:
    """Every precision stays within its noise of the float model."""
    model = MODELS[name]()
    feed = feed_for(model)
    result = quantized(model, request_, feed)
    assert sqnr_db(outputs_of(model, feed)["y"], outputs_of(result.model, feed)["y"]) > least_db


def test_weights_are_stored_as_int8_with_one_scale_per_output_channel() -> None:
    """Each quantised weight is INT8 behind a DequantizeLinear with axis 0, and no float copy stays in the file."""
    model = residual_block()
    result = quantized(model, PrecisionRequest(method="static"), feed_for(model))
    stored = {tensor.name: tensor for tensor in result.model.graph.initializer}
    assert "w1" not in stored
    scales = next(entry for entry in result.model.graph.node if entry.input[0] == "w1_int8").input[1]
    assert stored["w1_int8"].data_type == TensorProto.INT8
    assert list(stored[scales].dims) == [16]


def test_stored_weights_are_within_half_a_step_of_the_float_ones() -> None:
    """|w - scale · q| <= scale / 2 for every weight."""
    model = residual_block()
    result = quantized(model, PrecisionRequest(method="static", fp16=True), feed_for(model))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    scales = stored["w1_scale_fp16"].astype(np.float64).reshape(-1, 1, 1, 1)
    error = np.abs(weights(16, 16, 3, 3, seed=1) - scales * stored["w1_int8"])
    assert (error <= scales / 2 + 1e-9).all()


def test_fp16_leaves_no_float32_constant_and_keeps_the_graphs_types() -> None:
    """Weights become FP16; inputs and outputs stay float32 behind Casts."""
    model = pooled()
    result = quantized(model, PrecisionRequest(fp16=True), feed_for(model))
    assert element_types(result.model) == {TensorProto.FLOAT16}
    ends = {value.type.tensor_type.elem_type for value in (*result.model.graph.input, *result.model.graph.output)}
    assert ends == {TensorProto.FLOAT}
    assert sum(entry.op_type == "Cast" for entry in result.model.graph.node) == 2


def test_io_fp16_changes_the_graphs_types_and_needs_no_cast() -> None:
    """With --io-fp16 inputs and outputs are FP16 and no Cast converts anything."""
    model = pooled()
    result = quantized(model, PrecisionRequest(fp16=True, io_fp16=True), feed_for(model))
    ends = {value.type.tensor_type.elem_type for value in (*result.model.graph.input, *result.model.graph.output)}
    assert ends == {TensorProto.FLOAT16}
    casts = [entry for entry in result.model.graph.node if entry.op_type == "Cast"]
    assert all(attribute.i == TensorProto.FLOAT16 for entry in casts for attribute in entry.attribute)


def squared(reach: float) -> onnx.ModelProto:
    """Conv → square → scale down → conv: the square of large activations leaves FP16."""
    nodes = [
        conv("conv1", "x", "a", "w1"),
        node("Mul", "square", ["a", "a"], "b"),
        node("Mul", "shrink", ["b", "small"], "c"),
        conv("conv2", "c", "y", "w2"),
    ]
    constants = {
        "w1": weights(16, 16, 3, 3, seed=1, scale=reach),
        "w2": weights(16, 16, 3, 3, seed=2),
        "small": np.array(1e-4, np.float32),
    }
    return model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 16, 8, 8]}, constants)


def test_a_tensor_seen_beyond_fp16_stays_fp32_with_the_reason() -> None:
    """The square reaches far beyond 65504: the nodes around it stay FP32, the result stays right."""
    model = squared(reach=20.0)
    feed = feed_for(model)
    result = quantized(model, PrecisionRequest(fp16=True), feed)
    assert set(result.plan.kept_fp32) == {"square", "shrink"}
    assert "65504" in result.plan.kept_fp32["square"]
    assert sqnr_db(outputs_of(model, feed)["y"], outputs_of(result.model, feed)["y"]) > 50


def test_small_values_leave_the_same_graph_in_fp16() -> None:
    """The same graph with small weights needs no FP32 at all."""
    model = squared(reach=0.1)
    assert not quantized(model, PrecisionRequest(fp16=True), feed_for(model)).plan.kept_fp32


@pytest.mark.parametrize(("value", "stays"), [(1e9, True), (1e-12, True), (1e-3, False), (-np.inf, False)])
def test_constants_fp16_cannot_hold_keep_their_node_in_fp32(value: float, stays: bool) -> None:
    """A mask of -1e9 or an epsilon of 1e-12 would be infinite or zero in FP16; infinity itself is exact."""
    nodes = [node("Max", "max", ["x", "c"], "y")]
    model = model_of(nodes, {"x": [4, 4]}, {"y": [4, 4]}, {"c": np.array(value, np.float32)})
    graph = float_graph(model, PrecisionRequest(fp16=True))
    assert ("max" in quantized_graph(graph, {}).plan.kept_fp32) is stays


def test_an_old_opset_is_raised_for_per_channel_scales() -> None:
    """An opset-11 model leaves with opset 13 or later and computes the same."""
    model = residual_block()
    model.opset_import[0].version = 11
    feed = feed_for(model)
    result = quantized(model, PrecisionRequest(method="static"), feed)
    assert opset(result.model) >= 13
    assert sqnr_db(outputs_of(model, feed)["y"], outputs_of(result.model, feed)["y"]) > 30


def test_a_model_without_int8_layers_is_refused_with_the_reasons() -> None:
    """Nothing to quantise is an error, not an INT8 engine without INT8."""
    nodes = [node("MatMul", "matmul", ["x", "w"], "y")]
    model = model_of(nodes, {"x": [4, 16]}, {"y": [4, 10]}, {"w": weights(16, 10)})
    with pytest.raises(UnsupportedModelError, match="16x10 weights"):
        float_graph(model, PrecisionRequest(method="static"))


def test_an_excluded_layer_of_a_quantised_model_reads_floats_again() -> None:
    """Its pair and its stored weights are gone, other layers keep theirs, and the numbers come closer to float."""
    model = residual_block()
    feed = feed_for(model)
    once = quantized(model, PrecisionRequest(method="static"), feed).model
    freed = float_graph(once, PrecisionRequest(exclude=("conv3",)))
    of_conv3 = {name: freed.index.producer(name) for name in freed.index.nodes["conv3"].input}
    assert [maker.op_type if maker else None for maker in of_conv3.values()] == ["Relu", None]
    assert {layer.node: layer.precision for layer in freed.placement.layers if layer.op_type == "Conv"} == {
        "conv1": "int8",
        "conv2": "int8",
        "conv3": "fp32",
    }
    before, after = (
        sqnr_db(outputs_of(model, feed)["y"], outputs_of(entry, feed)["y"]) for entry in (once, freed.model)
    )
    assert after > before
    with pytest.raises(RequestError, match="no node is called 'conv9'"):
        float_graph(once, PrecisionRequest(exclude=("conv9",)))


def test_a_quantised_model_is_not_quantised_again() -> None:
    """A model that holds QuantizeLinear keeps its pairs and asks for no data."""
    model = residual_block()
    once = quantized(model, PrecisionRequest(method="static"), feed_for(model)).model
    again = float_graph(once, PrecisionRequest(method="static"))
    assert again.came_quantized
    assert again.taps.calibrated == ()
    assert quantized_graph(again, {}).model == again.model


def test_a_missing_range_is_an_error() -> None:
    """A table made for other layers is not silently completed."""
    graph = float_graph(residual_block(), PrecisionRequest(method="static"))
    with pytest.raises(StaleError, match="no range"):
        quantized_graph(graph, {})


def test_shared_weights_are_stored_once() -> None:
    """Two convolutions with the same weights read the same INT8 tensor."""
    nodes = [conv("conv1", "x", "a", "w"), conv("conv2", "a", "y", "w")]
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, {"w": weights(16, 16, 3, 3)})
    result = quantized(model, PrecisionRequest(method="static"), feed_for(model))
    assert sum(len(tensor.dims) == 4 for tensor in result.model.graph.initializer) == 1


def test_a_zero_weight_channel_stays_zero() -> None:
    """A channel of zeros gets a positive scale and remains zero."""
    values = weights(16, 16, 3, 3)
    values[3] = 0
    nodes = [conv("conv1", "x", "y", "w")]
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, {"w": values})
    feed = feed_for(model)
    result = quantized(model, PrecisionRequest(method="static", fp16=True), feed)
    assert not outputs_of(result.model, feed)["y"][:, 3].any()


def test_the_fused_branch_of_a_residual_need_not_be_watched() -> None:
    """What a Relu's output and a non-negative skip bound is not tapped: the tap would break the fusion it runs in."""
    graph = float_graph(residual_block(), PrecisionRequest(fp16=True))
    assert set(graph.taps.watched) == {"x", "b", "e", "y"}


def captured_by_a_subgraph() -> onnx.ModelProto:
    """A convolution's output is read by a Relu and, from outside, by both branches of an If."""
    branches = {
        name: onnx.helper.make_graph(
            [node(operator, f"{name}_node", ["a"], f"{name}_out")],
            name,
            [],
            [onnx.helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1, 16, 4, 4])],
        )
        for name, operator in (("then", "Neg"), ("else", "Abs"))
    }
    choice = onnx.helper.make_node(
        "If", ["flag"], ["b"], "choice", then_branch=branches["then"], else_branch=branches["else"]
    )
    nodes = [
        conv("conv1", "x", "a", "w"),
        node("Relu", "relu", ["a"], "r"),
        node("ReduceSum", "sum", ["x"], "s", keepdims=0),
        node("Greater", "greater", ["s", "zero"], "flag"),
        choice,
        node("Add", "add", ["b", "r"], "y"),
    ]
    constants = {"w": weights(16, 16, 3, 3), "zero": np.array(0, np.float32)}
    return model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, constants)


@pytest.mark.parametrize(
    "request_", [PrecisionRequest(fp16=True), PrecisionRequest("static", True)], ids=["fp16", "int8"]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_tensor_that_a_subgraph_reads_keeps_its_float32_form(request_: PrecisionRequest, sign: int) -> None:
    """The branches of an If stay float32 and find the tensor under its old name, whichever is taken."""
    model = captured_by_a_subgraph()
    feed = {name: np.abs(array) * np.float32(sign) for name, array in feed_for(model).items()}
    result = quantized(model, request_, feed)
    assert sqnr_db(outputs_of(model, feed)["y"], outputs_of(result.model, feed)["y"]) > 30


def test_an_fp16_model_keeps_its_ends_and_loses_nothing() -> None:
    """FP16 weights widened to float32 and cast back give the very same constants and graph types."""
    half = quantized(pooled(), PrecisionRequest(fp16=True, io_fp16=True), feed_for(pooled())).model
    wide = widened_to_float32(half)
    assert TensorProto.FLOAT16 not in element_types(wide)
    feed = {name: array.astype(np.float16) for name, array in feed_for(pooled()).items()}
    assert sqnr_db(outputs_of(half, feed)["y"], outputs_of(wide, feed)["y"]) > 45


def test_weights_stored_in_8_bits_become_float_weights() -> None:
    """A constant behind DequantizeLinear is folded exactly, per channel too, and can then be quantised."""
    stored = np.random.default_rng(0).integers(-127, 128, (16, 16, 3, 3)).astype(np.int8)
    scales = np.linspace(0.001, 0.01, 16, dtype=np.float32)
    nodes = [
        node("DequantizeLinear", "dq", ["q", "scales", "zeros"], "w", axis=0),
        conv("conv1", "x", "y", "w"),
    ]
    constants = {"q": stored, "scales": scales, "zeros": np.zeros(16, np.int8)}
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, constants)
    floats = with_float_weights(model)
    assert [entry.op_type for entry in floats.graph.node] == ["Conv"]
    feed = feed_for(model)
    np.testing.assert_array_equal(outputs_of(model, feed)["y"], outputs_of(floats, feed)["y"])
    assert quantized(floats, PrecisionRequest(method="static"), feed).plan.count("int8") == 1


def test_scales_beyond_fp16_stay_float32() -> None:
    """A tensor of 1e9 keeps its layer in FP32; its scale must not become infinite on the way."""
    model = residual_block()
    graph = float_graph(model, PrecisionRequest(method="static", fp16=True))
    ranges = ranges_of(graph, feed_for(model))
    huge = {name: TensorRange(-1e9, 1e9, 1e9, 1) if name in ("e", "y") else found for name, found in ranges.items()}
    result = quantized_graph(graph, huge)
    assert "conv3" in result.plan.kept_fp32
    scales = [numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer if "scale" in tensor.name]
    assert all(np.isfinite(scale).all() for scale in scales)


@pytest.mark.parametrize(("reach", "stays"), [(200.0, False), (2000.0, True)])
def test_a_pool_counts_the_elements_it_sums(reach: float, stays: bool) -> None:
    """GlobalAveragePool sums one channel's 64 elements: FP16 holds 64 times 200, not 64 times 2000."""
    nodes = [node("GlobalAveragePool", "average", ["x"], "y")]
    graph = float_graph(model_of(nodes, {"x": [1, 512, 8, 8]}, {"y": [1, 512, 1, 1]}, {}), PrecisionRequest(fp16=True))
    found = {"x": TensorRange(0.0, reach, None, 1)}
    assert ("average" in quantized_graph(graph, found).plan.kept_fp32) is stays


@pytest.mark.parametrize("opset_", [17, 18])
def test_a_reduction_counts_along_its_axes(opset_: int) -> None:
    """Axes as attribute (17) and as input (18): 16 elements of 2000 fit into FP16, all 8192 do not."""
    axes = {"axes": np.array([1], np.int64)} if opset_ == 18 else {}
    mean = node("ReduceMean", "mean", ["x", *axes], "y", **({} if axes else {"axes": [1]}))
    model = model_of([mean], {"x": [512, 16]}, {"y": [512, 1]}, axes, opset=opset_)
    graph = float_graph(model, PrecisionRequest(fp16=True))
    assert not quantized_graph(graph, {"x": TensorRange(0.0, 2000.0, None, 1)}).plan.kept_fp32


def test_an_output_without_a_shape_is_no_reason_to_refuse() -> None:
    """ONNX's checker wants one, ONNX Runtime and TensorRT do not: what we write is as valid as what came."""
    model = residual_block()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert quantized(model, PrecisionRequest(method="static"), feed_for(model)).plan.count("int8")
