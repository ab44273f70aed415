"""Folding BatchNormalization, scales and biases into the layer before."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from passes_models import applied, floats, model_of, operators

from trt_opt.graph.query import graph_outputs
from trt_opt.passes.clean_up.fold_batch_normalization import FoldBatchNormalization
from trt_opt.passes.clean_up.fold_scale_and_bias import FoldScaleAndBias

BATCH_NORMALIZATION = FoldBatchNormalization()
SCALE_AND_BIAS = FoldScaleAndBias()


def statistics(channels: int) -> dict[str, np.ndarray]:
    """Scale, bias, mean and variance of a BatchNormalization."""
    return {
        "s": floats(channels, seed=1),
        "t": floats(channels, seed=2),
        "m": floats(channels, seed=3),
        "v": np.abs(floats(channels, seed=4)) + 0.1,
    }


LAYERS = {
    "conv": ("float[1,4,5,5]", "Conv(x, w)", {"w": floats(6, 4, 3, 3)}, 6),
    "conv-bias": ("float[1,4,5,5]", "Conv(x, w, b)", {"w": floats(6, 4, 3, 3), "b": floats(6)}, 6),
    "depthwise": ("float[1,4,5,5]", "Conv<group = 4>(x, w)", {"w": floats(8, 1, 3, 3)}, 8),
    "conv-1d": ("float[1,4,9]", "Conv(x, w)", {"w": floats(6, 4, 3)}, 6),
    "transposed": ("float[1,4,5,5]", "ConvTranspose(x, w)", {"w": floats(4, 6, 3, 3)}, 6),
    "transposed-grouped": (
        "float[1,4,5,5]",
        "ConvTranspose<group = 2>(x, w, b)",
        {"w": floats(4, 3, 3, 3), "b": floats(6)},
        6,
    ),
    "gemm": ("float[3,4]", "Gemm(x, w)", {"w": floats(4, 6)}, 6),
    "gemm-scaled": (
        "float[3,4]",
        "Gemm<alpha = 0.5, beta = 2.0, transB = 1>(x, w, b)",
        {"w": floats(6, 4), "b": floats(6)},
        6,
    ),
    "gemm-scalar-bias": ("float[3,4]", "Gemm<beta = 0.0>(x, w, b)", {"w": floats(4, 6), "b": np.float32(3)}, 6),
    "gemm-full-bias": ("float[3,4]", "Gemm(x, w, b)", {"w": floats(4, 6), "b": floats(3, 6)}, 6),
}


@pytest.mark.parametrize("layer", LAYERS, ids=list(LAYERS))
def test_batch_normalization_folds_into(layer: str) -> None:
    """One layer is left, which gives the same numbers under the same output name."""
    shape, call, weights, channels = LAYERS[layer]
    output = ",".join("?" * (shape.count(",") + 1))
    text = (
        f"g ({shape} x) => (float[{output}] y) {{ c = {call} y = BatchNormalization<epsilon = 0.01>(c, s, t, m, v) }}"
    )
    after, report = applied(BATCH_NORMALIZATION, model_of(text, **weights, **statistics(channels)))
    assert operators(after) == {call.split("(")[0].split("<")[0]: 1}
    assert len(report.changed) == 1
    assert not report.declined


DECLINES = {
    "conv_output_is_graph_output": ("y, float[?,?,?,?] c", "c = Conv(x, w)", "is a graph output"),
    "conv_output_read_elsewhere": ("y, float[?,?,?,?] z", "c = Conv(x, w) z = Relu(c)", "read elsewhere"),
    "no_layer_before": ("y", "c = Relu(x)", "no Conv, ConvTranspose or Gemm"),
    "graph_input_before": ("y", "c = Identity(x)", "no Conv, ConvTranspose or Gemm"),
    "weight_is_computed": ("y", "k = Relu(w) c = Conv(x, k)", "not a constant"),
}


@pytest.mark.parametrize("trait", DECLINES, ids=list(DECLINES))
def test_batch_normalization_stays(trait: str) -> None:
    """What cannot be folded is left alone, with the reason."""
    outputs, before, reason = DECLINES[trait]
    signature = f"(float[1,4,5,5] x) => (float[?,?,?,?] {outputs})"
    text = f"g {signature} {{ {before} y = BatchNormalization(c, s, t, m, v) }}"
    after, report = applied(BATCH_NORMALIZATION, model_of(text, w=floats(4, 4, 3, 3), **statistics(4)))
    [decline] = report.declined
    assert (decline.node, operators(after)["BatchNormalization"]) == ("y", 1)
    assert reason in decline.why


def test_batch_normalization_in_training_mode_stays() -> None:
    """Its statistics come from the batch, not from the file."""
    text = """g (float[2,4,5,5] x) => (float[?,?,?,?] y) {
                c = Conv(x, w) y, mo, vo = BatchNormalization<training_mode = 1>(c, s, t, m, v) }"""
    _, report = applied(BATCH_NORMALIZATION, model_of(text, w=floats(4, 4, 3, 3), **statistics(4)))
    assert [decline.why for decline in report.declined] == ["it is in training mode"]


def test_batch_normalization_with_computed_statistics_stays() -> None:
    """Scale, bias, mean and variance all have to be constants."""
    text = """g (float[1,4,5,5] x, float[4] v) => (float[?,?,?,?] y) {
                c = Conv(x, w) y = BatchNormalization(c, s, t, m, v) }"""
    weights = {name: values for name, values in statistics(4).items() if name != "v"}
    _, report = BATCH_NORMALIZATION.run(model_of(text, w=floats(4, 4, 3, 3), **weights))
    assert "are not constants" in report.declined[0].why


def test_overflow_of_half_precision_is_declined() -> None:
    """Folded weights beyond 65504 would turn into infinities."""
    half = {name: values.astype(np.float16) for name, values in statistics(4).items()}
    half["s"][:] = 60000
    half["v"][:] = 0.01
    text = "g (float16[1,4,5,5] x) => (float16[?,?,?,?] y) { c = Conv(x, w) y = BatchNormalization(c, s, t, m, v) }"
    _, report = BATCH_NORMALIZATION.run(model_of(text, w=floats(4, 4, 3, 3).astype(np.float16), **half))
    assert report.declined[0].why == "the folded weights would not fit float16"


def test_shared_weight_is_copied() -> None:
    """Two layers share a weight, one of them is followed by BatchNormalization: the other keeps its weight."""
    text = """g (float[1,4,5,5] x) => (float[?,?,?,?] y, float[?,?,?,?] z) {
                c = Conv(x, w) y = BatchNormalization(c, s, t, m, v) z = Conv(x, w) }"""
    after, _ = applied(BATCH_NORMALIZATION, model_of(text, w=floats(4, 4, 3, 3), **statistics(4)))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    np.testing.assert_array_equal(weights["w"], floats(4, 4, 3, 3))
    assert after.graph.node[0].input[1] == "w_folded"


def test_shared_weight_of_two_batch_normalizations() -> None:
    """Both layers get a weight of their own."""
    text = """g (float[1,4,5,5] x) => (float[?,?,?,?] y, float[?,?,?,?] z) {
                c = Conv(x, w) y = BatchNormalization(c, s, t, m, v)
                d = Conv(x, w) z = BatchNormalization(d, t, s, m, v) }"""
    after, report = applied(BATCH_NORMALIZATION, model_of(text, w=floats(4, 4, 3, 3), **statistics(4)))
    assert operators(after) == {"Conv": 2}
    assert len(report.changed) == 2


def test_batch_normalization_in_a_branch_folds() -> None:
    """A layer inside a branch folds with the weights of the main graph; the other branch keeps the weight."""
    text = """g (bool flag, float[1,4,5,5] x) => (float[?,?,?,?] y) {
                y = If (flag) <then_branch = a () => (float[?,?,?,?] p) {
                                 c = Conv(x, w) p = BatchNormalization(c, s, t, m, v) },
                               else_branch = b () => (float[?,?,?,?] q) { q = Conv(x, w) }> }"""
    after, report = applied(BATCH_NORMALIZATION, model_of(text, w=floats(4, 4, 3, 3), **statistics(4)))
    assert operators(after) == {"If": 1, "Conv": 2}
    assert len(report.changed) == 1


FOLLOWERS = {
    "mul": ("Mul(c, k)", floats(1, 6, 1, 1)),
    "mul-left": ("Mul(k, c)", floats(6, 1, 1)),
    "mul-scalar": ("Mul(c, k)", np.float32(0.3)),
    "add": ("Add(c, k)", floats(6, 1, 1)),
    "add-left": ("Add(k, c)", floats(1, 6, 1, 1)),
    "sub": ("Sub(c, k)", floats(1, 6, 1, 1)),
    "div": ("Div(c, k)", np.abs(floats(1, 6, 1, 1)) + 0.5),
}


@pytest.mark.parametrize("follower", FOLLOWERS, ids=list(FOLLOWERS))
@pytest.mark.parametrize("layer", ["conv", "conv-bias", "transposed-grouped"])
def test_constant_per_channel_folds(layer: str, follower: str) -> None:
    """Mul, Add, Sub and Div by a constant per channel, or by one number, disappear in the layer."""
    shape, call, weights, _ = LAYERS[layer]
    expression, constant = FOLLOWERS[follower]
    text = f"g ({shape} x) => (float[?,?,?,?] y) {{ c = {call} y = {expression} }}"
    after, report = applied(SCALE_AND_BIAS, model_of(text, **weights, k=constant))
    assert len(after.graph.node) == 1
    assert len(report.changed) == 1


def test_several_followers_fold_in_one_run() -> None:
    """Mul and Add one after the other, with the constants in Constant nodes, fold in a single walk."""
    text = """g (float[1,4,5,5] x) => (float[?,?,?,?] y) {
                c = Conv(x, w) two = Constant<value_float = 2.0>() d = Mul(c, two) e = Add(d, k) y = Relu(e) }"""
    after, report = applied(SCALE_AND_BIAS, model_of(text, w=floats(6, 4, 3, 3), k=floats(6, 1, 1)))
    assert len(report.changed) == 2
    assert operators(after)["Conv"] == 1
    assert "Mul" not in operators(after)


STAYING = {
    "per-position": ("Mul(c, k)", floats(1, 1, 3, 3), "not one value per channel"),
    "per-last-axis": ("Mul(c, k)", floats(3), "not one value per channel"),
    "higher-rank": ("Add(c, k)", floats(1, 1, 6, 1, 1), "not one value per channel"),
    "reversed-sub": ("Sub(k, c)", floats(6, 1, 1), "not the other way round"),
    "reversed-div": ("Div(k, c)", floats(6, 1, 1), "not the other way round"),
    "division-by-zero": ("Div(c, k)", np.zeros((6, 1, 1), np.float32), "divides by zero"),
}


@pytest.mark.parametrize("trait", STAYING, ids=list(STAYING))
def test_other_constants_stay(trait: str) -> None:
    """What is not one value per output channel is left alone, with the reason."""
    expression, constant, reason = STAYING[trait]
    model = model_of(
        f"g (float[1,4,5,5] x) => (float[] y) {{ c = Conv(x, w) y = {expression} }}", w=floats(6, 4, 3, 3), k=constant
    )
    after, report = SCALE_AND_BIAS.run(model)
    assert after is model
    [decline] = report.declined
    assert reason in decline.why


def test_broadcast_that_widens_the_output_stays() -> None:
    """A constant with more channels than the layer's one output channel changes the shape."""
    text = "g (float[1,4,5,5] x) => (float[?,?,?,?] y) { c = Conv(x, w) y = Mul(c, k) }"
    after, report = applied(SCALE_AND_BIAS, model_of(text, w=floats(1, 4, 3, 3), k=floats(1, 6, 1, 1)))
    assert report.declined
    assert graph_outputs(after)[0].name == "y"


def test_residual_add_is_not_mentioned() -> None:
    """An Add of two activations is none of this pass's business."""
    text = "g (float[1,4,5,5] x) => (float[?,?,?,?] y) { c = Conv<pads = [1,1,1,1]>(x, w) y = Add(c, x) }"
    _, report = applied(SCALE_AND_BIAS, model_of(text, w=floats(4, 4, 3, 3)))
    assert not report.changed
    assert not report.declined


def test_result_is_valid_onnx(tmp_path) -> None:
    """A folded model passes onnx's checker from the file."""
    shape, call, weights, channels = LAYERS["conv"]
    text = f"g ({shape} x) => (float[?,?,?,?] y) {{ c = {call} y = BatchNormalization(c, s, t, m, v) }}"
    after, _ = BATCH_NORMALIZATION.run(model_of(text, **weights, **statistics(channels)))
    onnx.save(after, tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
