"""Graphs for builders with precision flags: TensorRT 8.5 to 9, and implicit quantisation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import pooled, residual_block, two_branches_into_a_concat
from onnx import TensorProto
from ort_session import outputs_of, ranges_of

from trt_opt.graph.query import opset
from trt_opt.quantize.stage import PrecisionRequest, QuantizedGraph, float_graph, quantized_graph
from trt_opt.quantize.weak_form import weak_form

MODELS = {"residual": residual_block, "concat": two_branches_into_a_concat, "pooled": pooled}


def feed_for(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Normal random numbers for every input."""
    generator = np.random.default_rng(0)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def quantized(model: onnx.ModelProto, request: PrecisionRequest) -> QuantizedGraph:
    """The model in the precisions asked for, ranges from one feed."""
    graph = float_graph(model, request)
    return quantized_graph(graph, ranges_of(graph, feed_for(model)))


@pytest.mark.parametrize("name", MODELS)
def test_the_weak_form_gives_the_same_numbers(name: str) -> None:
    """Weights as floats in front of a QuantizeLinear are the codes they were."""
    model = MODELS[name]()
    typed = quantized(model, PrecisionRequest("static")).model
    weak = weak_form(typed, fp16=False).model
    feed = feed_for(model)
    np.testing.assert_array_equal(outputs_of(typed, feed)["y"], outputs_of(weak, feed)["y"])


@pytest.mark.parametrize("name", MODELS)
def test_it_holds_nothing_that_tensorrt_8_does_not_read(name: str) -> None:
    """No FP16, no stored codes, an old opset, and zero-points of the scale's size."""
    exported = MODELS[name]()
    exported.opset_import[0].version = 13
    found = quantized(exported, PrecisionRequest("static", fp16=True, typed=False))
    assert found.weak is not None
    model = found.built
    assert opset(model) == 13
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    assert not [node for node in model.graph.node if node.op_type == "Cast"]
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in constants.values()}
    for pair in pairs:
        scale, zero = constants[pair.input[1]], constants[pair.input[2]]
        assert list(scale.dims) == list(zero.dims)
        assert zero.data_type == TensorProto.INT8
        assert pair.op_type == "QuantizeLinear" or pair.input[0] not in constants


def test_flags_follow_from_what_was_asked() -> None:
    """INT8 with pairs, FP16 as asked; the plan says FP16 although the graph does not."""
    both = quantized(residual_block(), PrecisionRequest("static", fp16=True, typed=False))
    assert both.weak is not None
    assert (both.weak.fp16, both.weak.int8, both.weak.calibrated) == (True, True, False)
    assert both.plan.count("fp16") > 0
    half = quantized(residual_block(), PrecisionRequest(fp16=True, typed=False))
    assert half.weak is not None
    assert (half.weak.fp16, half.weak.int8) == (True, False)
    implicit = quantized(residual_block(), PrecisionRequest("implicit", fp16=True, typed=False))
    assert implicit.weak is not None
    assert (implicit.weak.int8, implicit.weak.calibrated) == (True, True)
    assert not [node for node in implicit.built.graph.node if node.op_type in ("QuantizeLinear", "Cast")]


def test_layers_that_fp16_cannot_hold_are_pinned() -> None:
    """A weight beyond 65504 keeps its layer in FP32, by name."""
    model = residual_block()
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] = 1e6
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    reader = next(node.name for node in model.graph.node if weight.name in node.input)
    found = quantized(model, PrecisionRequest(fp16=True, typed=False))
    assert found.weak is not None
    assert reader in found.weak.float32_layers
    assert set(found.weak.float32_layers) == set(found.plan.kept_fp32)


def test_left_out_zero_points_are_written() -> None:
    """ONNX lets a pair leave its zero-point out; TensorRT 8 wants three inputs."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[2, 3] x) => (float[2, 3] y)
        <float s = {0.5}, int8[2, 3] w = {1, 2, 3, -128, 5, 127}>
        { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s) y = Add(d, e) }"""
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    model.graph.initializer.append(onnx.helper.make_tensor("z", TensorProto.INT8, [], [0]))
    weak = weak_form(model, fp16=False).model
    assert all(len(node.input) == 3 for node in weak.graph.node if node.op_type.endswith("Linear"))
    feed = {"x": np.linspace(-60, 60, 6, dtype=np.float32).reshape(2, 3)}
    np.testing.assert_array_equal(outputs_of(model, feed)["y"], outputs_of(weak, feed)["y"])


def test_bodies_hold_nothing_that_tensorrt_8_does_not_read_either() -> None:
    """Q/DQ in the branches of an If are written like those outside, with the same numbers, and set the INT8 flag."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[2, 3] x, bool c) => (float[2, 3] y)
        <float s = {0.5}, int8 z = {0}>
        { y = If (c) <
            then_branch = b1 () => (float[2, 3] t)
              <int8[2, 3] w = {1, 2, 3, -128, 5, 127}>
              { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s) e = DequantizeLinear(w, s) t = Add(d, e) },
            else_branch = b2 () => (float[2, 3] f) { f = Neg(x) }> }"""
    )
    weak = weak_form(model, fp16=False)
    assert weak.int8
    onnx.checker.check_model(weak.model, full_check=True)
    branch = next(attribute.g for attribute in weak.model.graph.node[0].attribute if attribute.name == "then_branch")
    pairs = [node for node in branch.node if node.op_type.endswith("Linear")]
    assert [node.op_type for node in pairs].count("QuantizeLinear") == 2
    assert all(len(node.input) == 3 for node in pairs)
    assert TensorProto.INT8 not in {tensor.data_type for tensor in branch.initializer}
    for chosen in (True, False):
        feed = {"x": np.linspace(-60, 60, 6, dtype=np.float32).reshape(2, 3), "c": np.asarray(chosen)}
        np.testing.assert_array_equal(outputs_of(model, feed)["y"], outputs_of(weak.model, feed)["y"])


@pytest.mark.parametrize("is_quantized", [False, True])
def test_fp16_ends_set_the_flag_and_everything_else_stays_fp32(is_quantized: bool) -> None:
    """TensorRT 8 refuses FP16 tensors without the flag; with it, what nobody wanted in FP16 is pinned."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> g (float16[2, 3] x) => (float16[2, 3] y)
        <float s = {0.5}, int8 z = {0}>
        { a = Cast<to = 1>(x) b = Relu(a) q = QuantizeLinear(b, s, z) d = DequantizeLinear(q, s, z)
          e = Neg(d) f = Abs(e) y = Cast<to = 10>(f) }"""
    )
    for node in model.graph.node:
        node.name = node.op_type
    if not is_quantized:
        kept = [node for node in model.graph.node if not node.op_type.endswith("Linear")]
        kept[2].input[0] = "b"
        del model.graph.node[:]
        model.graph.node.extend(kept)
    weak = weak_form(model, fp16=False)
    assert (weak.fp16, weak.int8) == (True, is_quantized)
    assert weak.float32_layers == (("Relu", "Abs") if is_quantized else ("Relu", "Neg", "Abs"))
    assert not weak_form(model, fp16=False, calibrated=True).float32_layers
