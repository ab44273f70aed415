"""Quantised models that others write oddly are imported without a wrong number, or left alone with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, node, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper
from ort_session import outputs_of, sqnr_db

from trt_opt.importing import ImportedModel, imported
from trt_opt.values.samples import Sample

Array = NDArray[np.generic]

LEAST_DB = 100.0
"""Nothing but float rounding: the models' sums keep away from half-way between two steps."""

GRID = {"s": np.float32(0.04), "z": np.array(90, np.uint8)}
OTHER_GRID = {"s2": np.float32(0.05), "z2": np.array(140, np.uint8)}


def pair(source: str, target: str, scale: str = "s", zero: str = "z") -> list[onnx.NodeProto]:
    """A QuantizeLinear and a DequantizeLinear."""
    return [
        node("QuantizeLinear", f"{target}_q", [source, scale, zero], f"{target}_q"),
        node("DequantizeLinear", f"{target}_d", [f"{target}_q", scale, zero], target),
    ]


def image(*shape: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 2}


def folded(model: onnx.ModelProto, feed: dict[str, Array] | None) -> ImportedModel:
    """The model imported, with zero-points folded; measured on the feed, or on made-up numbers."""
    found = imported(model, (Sample("0", feed),) if feed else (), zero_points="fold")
    assert found.report is not None
    assert found.report.undone is None
    return found


def assert_same(model: onnx.ModelProto, feed: dict[str, Array]) -> ImportedModel:
    """It is imported, and computes what it did."""
    found = folded(model, feed)
    before, after = outputs_of(model, feed), outputs_of(found.model, feed)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        assert after[name].shape == expected.shape
        assert sqnr_db(expected, after[name]) > LEAST_DB
    assert not any(
        entry.op_type == "QuantizeLinear" and zero_of(found.model, entry) != 0 for entry in found.model.graph.node
    )
    return found


def zero_of(model: onnx.ModelProto, quantizer: onnx.NodeProto) -> int:
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return int(constants[quantizer.input[2]].reshape(-1)[0])


def test_averages_before_a_padded_convolution_are_not_quantised_again() -> None:
    """What an AveragePool gives lies between the steps of its input's grid, so no pair may round it there."""
    nodes = [
        *pair("x", "a"),
        node("AveragePool", "pool", ["a"], "p", kernel_shape=[3, 3]),
        node("Conv", "conv", ["p", "w"], "y", pads=[1, 1, 1, 1]),
    ]
    model = model_of(nodes, {"x": [2, 3, 8, 8]}, {"y": [2, 4, 6, 6]}, {**GRID, "w": weights(4, 3, 3, 3)})
    assert_same(model, image(2, 3, 8, 8))


def test_places_of_max_pooling_are_not_shifted() -> None:
    """MaxPool's second output holds places, not numbers of its input."""
    nodes = [
        *pair("x", "a"),
        helper.make_node("MaxPool", ["a"], ["m", "places"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Cast", "cast", ["places"], "c", to=TensorProto.FLOAT),
        node("Add", "add", ["m", "c"], "y"),
    ]
    model = model_of(nodes, {"x": [2, 3, 8, 8]}, {"y": [2, 3, 4, 4]}, GRID)
    assert_same(model, image(2, 3, 8, 8))


def test_output_without_a_shape_is_no_reason_to_leave_a_model_alone() -> None:
    """What breaks a rule of ONNX as it is, and runs nevertheless, is imported."""
    nodes = [*pair("x", "a"), node("Conv", "conv", ["a", "w"], "y")]
    model = model_of(nodes, {"x": [2, 3, 8, 8]}, {"y": []}, {**GRID, "w": weights(4, 3, 3, 3)})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    assert_same(model, image(2, 3, 8, 8))


def test_tensor_of_no_dimension_is_measured() -> None:
    """NumPy makes plain numbers of such arrays, which ONNX Runtime is not to be fed."""
    nodes = [
        *pair("x", "a"),
        node("ReduceMean", "mean", ["a"], "m", keepdims=0),
        *pair("m", "b", "s2", "z2"),
        node("Mul", "mul", ["a", "b"], "y"),
    ]
    model = model_of(nodes, {"x": [2, 3]}, {"y": [2, 3]}, {**GRID, **OTHER_GRID})
    assert_same(model, image(2, 3))


def test_fp8_weights_keep_their_fractions() -> None:
    """The bias that takes a shift in sums what the weights are, not what is left of them as integers."""
    model = model_of(
        [
            *pair("x", "a"),
            node("DequantizeLinear", "weights", ["w8", "s2"], "w"),
            node("MatMul", "product", ["a", "w"], "y"),
        ],
        {"x": [2, 3]},
        {"y": [2, 4]},
        {**GRID, "s2": np.float32(0.5)},
    )
    values = weights(3, 4, scale=0.6).reshape(-1).tolist()
    model.graph.initializer.append(helper.make_tensor("w8", TensorProto.FLOAT8E4M3FN, [3, 4], values))
    assert_same(model, image(2, 3))


def test_last_block_may_be_shorter() -> None:
    """30 weights in blocks of 12 have three scales, the last for six of them."""
    integers = np.random.default_rng(0).integers(-128, 128, (30, 5)).astype(np.int8)
    constants = {**GRID, "q": integers, "sw": np.full((3, 5), 0.01, np.float32), "zw": np.zeros((3, 5), np.int8)}
    nodes = [
        *pair("x", "a"),
        node("DequantizeLinear", "weights", ["q", "sw", "zw"], "w", axis=0, block_size=12),
        node("MatMul", "product", ["a", "w"], "y"),
    ]
    model = model_of(nodes, {"x": [2, 30]}, {"y": [2, 5]}, constants, opset=21)
    model.ir_version = 10
    assert_same(model, image(2, 30))


@pytest.mark.parametrize("count", [2, 5])
def test_scales_that_do_not_fit_their_weights_are_named(count: int) -> None:
    """Such a model runs nowhere: the report says why its weights stay, and nothing is raised."""
    integers = np.random.default_rng(0).integers(-128, 128, (6, 4)).astype(np.int8)
    constants = {**GRID, "q": integers, "sw": np.full(count, 0.01, np.float32), "zw": np.full(count, 3, np.int8)}
    nodes = [
        *pair("x", "a"),
        node("DequantizeLinear", "weights", ["q", "sw", "zw"], "w", axis=1),
        node("MatMul", "product", ["a", "w"], "y"),
    ]
    model = model_of(nodes, {"x": [2, 6]}, {"y": [2, 4]}, constants)
    report = imported(model, (), zero_points="fold").report
    assert report is not None
    assert any(entry.node == "weights" and "one per channel" in entry.why for entry in report.declined)


def test_made_up_numbers_that_saturate_16_bits_undo_nothing() -> None:
    """Numbers that fill the first grid leave those behind it, where the source saturates and floats do not."""
    grid = {"s": np.float32(0.001), "z": np.array(40, np.int16)}
    nodes = [*pair("x", "a"), node("Conv", "conv", ["a", "w"], "c"), *pair("c", "y")]
    constants = {**grid, "w": weights(4, 3, 3, 3, scale=9)}
    model = model_of(nodes, {"x": [2, 3, 8, 8]}, {"y": [2, 4, 6, 6]}, constants, opset=21)
    model.ir_version = 10
    found = folded(model, None)
    assert found.report is not None
    assert {entry.becomes for entry in found.report.tensors} == {"float"}
    assert any(entry.own_sqnr_db is not None and entry.own_sqnr_db < 10 for entry in found.report.tensors)


def test_output_that_its_own_layer_gets_wrong_undoes_the_import() -> None:
    """A float output is judged as a quantised tensor is: here a last bit is many turns of a sine."""
    nodes = [*pair("x", "a"), node("Mul", "mul", ["a", "much"], "m"), node("Sin", "sine", ["m"], "y")]
    model = model_of(nodes, {"x": [2, 30]}, {"y": [2, 30]}, {**GRID, "much": np.float32(1e9)})
    found = imported(model, (Sample("0", image(2, 30)),), zero_points="fold")
    assert found.report is not None
    assert found.report.undone is not None
    assert "output 'y'" in found.report.undone
    assert found.model is model


def test_output_of_a_jump_is_not_judged_by_its_layer() -> None:
    """What a Mod leaves of whole steps is nothing or a step, as the last bit has it; the import is none the worse."""
    nodes = [*pair("x", "a"), node("Mod", "rest", ["a", "s"], "y", fmod=1)]
    model = model_of(nodes, {"x": [2, 30]}, {"y": [2, 30]}, GRID)
    assert folded(model, image(2, 30)).model is not model


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_linear_resize_of_integers_stays_quantised(dtype: type[np.generic]) -> None:
    """It becomes one of floats with a pair behind it, one step at most from what ONNX Runtime makes of integers."""
    zero = np.array(90, np.uint8).astype(dtype)
    nodes = [
        node("QuantizeLinear", "q", ["x", "s", "z"], "q"),
        node("Resize", "resize", ["q", "", "sizes"], "r", mode="linear"),
        node("DequantizeLinear", "d", ["r", "s", "z"], "y"),
    ]
    constants = {"s": np.float32(0.04), "z": zero, "sizes": np.array([1, 1, 2, 2], np.float32)}
    model = model_of(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 8, 8]}, constants)
    feed = image(1, 2, 4, 4)
    found = folded(model, feed)
    difference = outputs_of(model, feed)["y"] - outputs_of(found.model, feed)["y"]
    assert np.abs(difference).max() < 1.01 * 0.04
    assert found.report is not None
    assert [entry.becomes for entry in found.report.tensors] == ["folded", "folded"]
