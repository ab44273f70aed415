"""Symmetric grids in place of asymmetric ones, for activations and for weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, node, weights
from ort_session import outputs_of

from trt_opt.graph.check import check_model
from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.importing.symmetric_form import SymmetricForm, symmetric_form
from trt_opt.quantize.importing.symmetric_weights import with_symmetric_weights


def chain(zero: int, scale: float, *, relu: bool = False) -> onnx.ModelProto:
    """Two convolutions, the tensor between them on a UINT8 grid."""
    constants = {
        "w1": weights(4, 3, 3, 3, seed=1),
        "w2": weights(4, 4, 3, 3, seed=2),
        "s": np.float32(scale),
        "z": np.array(zero, np.uint8),
    }
    nodes = [node("Conv", "c", ["x", "w1"], "c"), *([node("Relu", "r", ["c"], "r")] if relu else [])]
    nodes += [
        node("QuantizeLinear", "q", ["r" if relu else "c", "s", "z"], "q"),
        node("DequantizeLinear", "d", ["q", "s", "z"], "d"),
        node("Conv", "y", ["d", "w2"], "y"),
    ]
    return model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, constants)


def regridded(model: onnx.ModelProto, **ranges: tuple[float, float]) -> SymmetricForm:
    form = symmetric_form(model, zero_points="regrid", ranges=ranges)
    check_model(form.model, "regridded")
    return form


def test_grid_reaches_what_the_old_one_reached() -> None:
    """127 steps reach the positive end, 128 the negative one."""
    assert regridded(chain(100, 0.02)).tensors[0].new_scale == pytest.approx(155 * 0.02 / 127)
    assert regridded(chain(200, 0.02)).tensors[0].new_scale == pytest.approx(200 * 0.02 / 128)


def test_data_make_a_grid_finer_and_never_coarser() -> None:
    """A range seen in data cuts what the grid represents; a larger one changes nothing."""
    assert regridded(chain(100, 0.02), d=(-0.5, 1.0)).tensors[0].new_scale == pytest.approx(1 / 127)
    assert regridded(chain(100, 0.02), c=(-9.0, 9.0)).tensors[0].new_scale == pytest.approx(155 * 0.02 / 127)


def test_clip_before_a_grid_makes_the_new_one_finer() -> None:
    """A quantiser to 7 bits clips before it uses half of UINT8; the symmetric grid is no wider than the Clip."""
    model = chain(62, 0.02)
    ends = {"low": np.float32(-62 * 0.02), "high": np.float32(65 * 0.02)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(end), name) for name, end in ends.items())
    model.graph.node.insert(1, node("Clip", "k", ["c", "low", "high"], "k"))
    model.graph.node[2].input[0] = "k"
    assert regridded(model).tensors[0].new_scale == pytest.approx(65 * 0.02 / 127)


def test_symmetric_uint8_keeps_its_scale() -> None:
    """UINT8 around 128 is INT8 around 0."""
    entry = regridded(chain(128, 0.02)).tensors[0]
    assert entry.new_scale == pytest.approx(0.02)
    assert entry.lost_bits == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("relu", "added"), [(False, 1), (True, 0)])
def test_grid_that_begins_at_zero_was_a_relu(added: int, *, relu: bool) -> None:
    """Where only the integers' type kept negative numbers out, a Relu does now; a bit is lost, which is noted."""
    model = chain(0, 0.02, relu=relu)
    form = regridded(model)
    assert sum(entry.op_type == "Relu" for entry in form.model.graph.node) == added + relu
    assert form.tensors[0].lost_bits == pytest.approx(1, abs=0.02)
    assert "lost up to one bit" in form.notes[0]
    feed = {"x": np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)}
    expected, found = outputs_of(model, feed)["y"], outputs_of(form.model, feed)["y"]
    assert np.abs(expected - found).max() < 0.1 * np.abs(expected).max()


def test_one_grid_stays_one_grid() -> None:
    """Two inputs of a Concat that shared a grid share one again, the one that the wider range needs."""
    constants = {"s": np.float32(0.02), "z": np.array(100, np.uint8)}
    nodes = []
    for name in ("a", "b"):
        nodes.append(node("QuantizeLinear", f"{name}q", [name, "s", "z"], f"{name}q"))
        nodes.append(node("DequantizeLinear", f"{name}d", [f"{name}q", "s", "z"], f"{name}d"))
    nodes.append(node("Concat", "y", ["ad", "bd"], "y", axis=0))
    model = model_of(nodes, {"a": [4], "b": [4]}, {"y": [8]}, constants)
    form = regridded(model, ad=(-0.1, 0.1), bd=(-0.1, 1.0))
    assert [entry.new_scale for entry in form.tensors] == [pytest.approx(1 / 127)] * 2


def weights_model(integers: np.ndarray, scales: object, zeros: object) -> onnx.ModelProto:
    constants = {"w": integers, "s": np.asarray(scales, np.float32), "z": np.asarray(zeros, integers.dtype)}
    nodes = [node("DequantizeLinear", "d", ["w", "s", "z"], "d", axis=0), node("Add", "y", ["x", "d"], "y")]
    return model_of(nodes, {"x": [1]}, {"y": list(integers.shape)}, constants)


ZERO = {"x": np.zeros(1, np.float32)}


def test_zero_points_of_weights_are_subtracted_exactly() -> None:
    """UINT8 weights around 128, and any others whose differences fit, keep their numbers."""
    model = weights_model(np.array([[0, 128, 255], [3, 4, 5]], np.uint8), [0.1, 0.2], [128, 4])
    found = with_symmetric_weights(model)
    assert [entry.becomes for entry in found.weights] == ["folded"]
    assert np.array_equal(outputs_of(model, ZERO)["y"], outputs_of(found.model, ZERO)["y"])
    index = GraphIndex(found.model)
    assert all(index.constant(name).dtype == np.int8 for name in found.model.graph.node[0].input[::2])


def test_weights_that_do_not_fit_are_rounded_again() -> None:
    """Differences beyond INT8 get a wider scale, channel by channel, and the cost is told."""
    integers = np.array([np.arange(0, 255, 2), np.arange(1, 129)], np.uint8)
    model = weights_model(integers, [0.1, 0.2], [10, 1])
    found = with_symmetric_weights(model)
    expected, measured = outputs_of(model, ZERO)["y"], outputs_of(found.model, ZERO)["y"]
    assert [entry.becomes for entry in found.weights] == ["regridded"]
    assert np.array_equal(expected[1], measured[1])
    assert 0 < np.abs(expected[0] - measured[0]).max() <= 0.1 * 244 / 127 / 2 * 1.001
    noise = np.square(expected - measured).sum()
    assert found.weights[0].sqnr_db == pytest.approx(10 * np.log10(np.square(expected).sum() / noise), abs=0.01)


def test_scale_of_zero_before_zeros_becomes_one() -> None:
    """A channel that was pruned away has a scale of 0, which TensorRT refuses."""
    model = weights_model(np.array([[0, 0], [1, 2]], np.int8), [0.0, 0.5], [0, 0])
    found = with_symmetric_weights(model)
    assert np.array_equal(outputs_of(found.model, ZERO)["y"], [[0, 0], [0.5, 1]])
    assert GraphIndex(found.model).constant(found.model.graph.node[0].input[1]).tolist() == [1, 0.5]


@pytest.mark.parametrize("scale", [0.0, -0.1, np.nan])
def test_scale_that_is_none_is_declined(scale: float) -> None:
    """Zero before other numbers, negative ones and NaN stay, with the node's name."""
    model = weights_model(np.array([[1, 2], [3, 4]], np.uint8), [scale, 0.5], [0, 0])
    found = with_symmetric_weights(model)
    assert found.model is model
    assert [entry.node for entry in found.declined] == ["d"]


@pytest.mark.parametrize(("zero", "becomes"), [(0, "kept"), (3, None)])
def test_half_precision_scales_stay_where_nothing_has_to_move(zero: int, becomes: str | None) -> None:
    """Symmetric pairs and weights with FLOAT16 scales are what TensorRT takes; others with such scales are declined."""
    constants = {"w": np.array([[1, 2], [3, 4]], np.int8), "s": np.float16(0.5), "z": np.array(zero, np.int8)}
    nodes = [
        node("Cast", "h", ["x"], "h", to=onnx.TensorProto.FLOAT16),
        node("QuantizeLinear", "q", ["h", "s", "z"], "q"),
        node("DequantizeLinear", "d", ["q", "s", "z"], "d"),
        node("DequantizeLinear", "v", ["w", "s", "z"], "v"),
        node("MatMul", "m", ["d", "v"], "m"),
        node("Cast", "y", ["m"], "y", to=onnx.TensorProto.FLOAT),
    ]
    model = model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}, constants)
    form = symmetric_form(model, zero_points="fold")
    assert form.model is model
    assert [entry.becomes for entry in (*form.tensors, *form.weights)] == [becomes] * 2 * (becomes is not None)
    assert len(form.declined) == (0 if becomes else 2)
