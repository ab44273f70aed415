"""FP8 (E4M3FN) Q/DQ graphs: rounding against onnx's reference, graphs in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from ort_session import outputs_of, ranges_of, sqnr_db
from test_quantized_graph import feed_for, quantized

from trt_opt.errors import StaleError, TargetError, UnsupportedModelError
from trt_opt.graph.query import opset
from trt_opt.quantize.number_format import FP8
from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph
from trt_opt.quantize.target_needs import require_target
from trt_opt.values.calibration import TensorRange
from trt_opt.values.target import target_from_text


def awkward_numbers() -> NDArray[np.float32]:
    """Every finite E4M3 number, the middles between neighbours, zero, subnormals, and numbers beyond 448."""
    codes = np.arange(0x7F, dtype=np.uint8)
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT8E4M3FN, dims=[codes.size], raw_data=codes.tobytes())
    exact = numpy_helper.to_array(tensor).astype(np.float32)
    middles = (exact[1:] + exact[:-1]) / 2
    around = np.concatenate([np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))])
    random = np.random.default_rng(0).standard_normal(2000).astype(np.float32) * 30
    positive = np.concatenate([exact, middles, around, [449, 463.9, 464, 465, 1e6, 1e-9], random]).astype(np.float32)
    return np.concatenate([positive, -positive])


def pair(count: int) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear with scale 1."""
    zero = TensorProto(name="z", data_type=TensorProto.FLOAT8E4M3FN, dims=[], raw_data=b"\0")
    nodes = [node("QuantizeLinear", "q", ["x", "s", "z"], "i"), node("DequantizeLinear", "dq", ["i", "s", "z"], "y")]
    model = model_of(nodes, {"x": [count]}, {"y": [count]}, {"s": np.array(1, np.float32)})
    model.graph.initializer.append(zero)
    return model


def test_rounding_is_onnxs() -> None:
    """Ours, ONNX Runtime's and the reference's agree on every awkward number, ties and saturation included."""
    numbers = awkward_numbers()
    ours = FP8.rounded(numbers)
    model = pair(numbers.size)
    np.testing.assert_array_equal(ours, outputs_of(model, {"x": numbers})["y"])
    np.testing.assert_array_equal(ours, ReferenceEvaluator(model).run(None, {"x": numbers})[0])


def test_stored_numbers_come_back_through_onnx() -> None:
    """All 254 finite codes, signed zero too, survive being written as an initialiser."""
    numbers = FP8.rounded(awkward_numbers())
    read = numpy_helper.to_array(FP8.tensor(numbers, "t")).astype(np.float32)
    np.testing.assert_array_equal(read, numbers)
    np.testing.assert_array_equal(np.signbit(read), np.signbit(numbers))


def test_the_error_is_within_a_sixteenth_of_each_number() -> None:
    """|x - dq(q(x))| <= |x| / 16 for normal numbers, 2^-10 below them."""
    numbers = awkward_numbers()
    numbers = numbers[np.abs(numbers) <= 448]
    error = np.abs(FP8.rounded(numbers) - numbers)
    assert (error <= np.maximum(np.abs(numbers) / 16, 2.0**-10)).all()


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("build", [residual_block, pooled])
def test_the_graph_computes_what_the_float_model_does(build: object, fp16: bool) -> None:
    """Within FP8's noise, and not exactly."""
    model = build()  # type: ignore[operator]
    feed = feed_for(model)
    result = quantized(model, PrecisionRequest("fp8", fp16), feed)
    assert 22 < sqnr_db(outputs_of(model, feed)["y"], outputs_of(result.model, feed)["y"]) < 45


def test_weights_and_zero_points_are_fp8_with_one_scale() -> None:
    """Everything that QuantizeLinear writes and DequantizeLinear reads is FLOAT8E4M3FN; opset 19 or later."""
    model = residual_block()
    model.opset_import[0].version = 13
    result = quantized(model, PrecisionRequest("fp8"), feed_for(model)).model
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    pairs = [entry for entry in result.graph.node if entry.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {stored[entry.input[2]].data_type for entry in pairs} == {TensorProto.FLOAT8E4M3FN}
    assert {tuple(stored[entry.input[1]].dims) for entry in pairs} == {()}
    assert stored["w1_fp8"].data_type == TensorProto.FLOAT8E4M3FN
    assert opset(result) >= 19


def test_only_operands_are_quantised() -> None:
    """The sum and the pool stay float; every convolution and the Gemm are FP8."""
    model = pooled()
    plan = quantized(model, PrecisionRequest("fp8"), feed_for(model)).plan
    assert {layer.node for layer in plan.layers if layer.precision == "fp8"} == {"conv1", "conv2", "gemm"}


def test_the_scale_is_the_extreme_over_448_whatever_the_calibrator_chose() -> None:
    """A threshold of half the extreme changes nothing."""
    model = residual_block()
    graph = float_graph(model, PrecisionRequest("fp8"))
    ranges = ranges_of(graph, feed_for(model))
    halved = {
        name: TensorRange(found.low, found.high, (found.amax or 0) / 2, found.count) for name, found in ranges.items()
    }
    written = quantized_graph(graph, halved).model
    assert written == quantized_graph(graph, ranges).model
    scale = next(tensor for tensor in written.graph.initializer if tensor.name == "x_scale")
    np.testing.assert_allclose(numpy_helper.to_array(scale), ranges["x"].extreme / 448, rtol=1e-6)


def test_products_of_activations_are_fp8_if_asked() -> None:
    """Both operands get a pair."""
    nodes = [helper.make_node("MatMul", ["x", "z"], ["y"], name="product")]
    model = model_of(nodes, {"x": [2, 16, 32], "z": [2, 32, 16]}, {"y": [2, 16, 16]}, {})
    result = quantized(model, PrecisionRequest("fp8", activation_products=True), feed_for(model))
    assert [entry.op_type for entry in result.model.graph.node].count("QuantizeLinear") == 2


def test_nothing_to_quantise_and_missing_ranges_are_errors() -> None:
    """As for INT8."""
    small = model_of([node("MatMul", "m", ["x", "w"], "y")], {"x": [4, 4]}, {"y": [4, 4]}, {"w": weights(4, 4)})
    with pytest.raises(UnsupportedModelError, match="FP8"):
        float_graph(small, PrecisionRequest("fp8"))
    graph = float_graph(
        model_of([conv("c", "x", "y", "w")], {"x": [1, 8, 4, 4]}, {"y": [1, 8, 4, 4]}, {"w": weights(8, 8, 3, 3)}),
        PrecisionRequest("fp8"),
    )
    with pytest.raises(StaleError, match="no range"):
        quantized_graph(graph, {})


@pytest.mark.parametrize("target", ["rtx:8.6", "rtx:8.6+8.9", "rtx"])
def test_gpus_before_ada_are_refused(target: str) -> None:
    """Before any work, naming the GPU and what would do; also where only one of several GPUs is too old."""
    with pytest.raises(UnsupportedModelError, match=r"8\.9 or later.* 8\.6") as caught:
        require_target("fp8", target_from_text(target))
    assert caught.value.exit_code == 3
    assert "8.9" in (caught.value.hint or "")


@pytest.mark.parametrize("target", ["rtx:8.9", "rtx:8.9+12.0", "tensorrt", "tensorrt:10.3@orin"])
def test_other_targets_may_try(target: str) -> None:
    """Ada and later have FP8; what a TensorRT machine has is not known here. Static asks for nothing."""
    require_target("fp8", target_from_text(target))
    require_target("static", target_from_text("rtx:7.5"))


@pytest.mark.parametrize("target", ["rtx", "rtx:8.6", "tensorrt:11.0"])
def test_implicit_needs_a_library_that_reads_caches(target: str) -> None:
    """TensorRT-RTX and TensorRT 11 read none."""
    with pytest.raises(TargetError, match="calibration cache"):
        require_target("implicit", target_from_text(target))


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt:8.6@orin", "tensorrt:10.16"])
def test_implicit_is_for_tensorrt_up_to_10(target: str) -> None:
    """Those read caches."""
    require_target("implicit", target_from_text(target))
