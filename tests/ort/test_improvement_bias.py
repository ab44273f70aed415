"""Biases that take away the mean error of INT8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, weights
from improvement_feeds import Feeds, FloatArray, subject_of
from ort_session import outputs_of, sqnr_db

from trt_opt.improvements.bias_correction import CorrectBias
from trt_opt.improvements.improvement import Subject
from trt_opt.quantize.stage import Correction, quantized_graph
from trt_opt.quantize.stored_weights import StoredWeights, stored_weights
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.values.progress import Silent


def positive(shape: Sequence[int], count: int, seed: int = 0) -> Feeds:
    """Inputs like those behind a Relu: weights that are rounded wrongly then shift the mean of the output."""
    generator = np.random.default_rng(seed)
    return Feeds([np.abs(generator.standard_normal(shape)).astype(np.float32) for _ in range(count)])


def coarse(subject: Subject, layer: str) -> Correction:
    """The layer's weights with every third code one higher, as no rounding to nearest would do."""
    quantizer = next(entry for entry in subject.source.placement.weights if entry.reader.node == layer)
    values = np.asarray(subject.source.index.constant(quantizer.tensor), np.float32)
    stored = stored_weights(values, quantizer, fp16=subject.source.request.fp16)
    shift = (np.arange(values.size) % 3 == 0).reshape(values.shape)
    return Correction(StoredWeights(np.clip(stored.numbers + shift, -127, 127), stored.scales, stored.attributes))


def error_of(subject: Subject, corrections: Mapping[str, Correction], data: Feeds) -> FloatArray:
    """INT8 minus float at the output `y`, stacked over the samples."""
    model = quantized_graph(subject.source, subject.ranges, corrections).model
    found = [
        outputs_of(model, sample.feed)["y"] - outputs_of(subject.source.model, sample.feed)["y"] for sample in data
    ]
    return np.concatenate(found).astype(np.float32)


def two_convolutions() -> onnx.ModelProto:
    """`first` reads the input, `second` what is left of it behind a Relu."""
    constants = {"w1": weights(16, 8, 3, 3, seed=1), "w2": weights(8, 16, 3, 3, seed=2), "b2": weights(8, seed=3)}
    nodes = [
        conv("first", "x", "a", "w1"),
        node("Relu", "relu", ["a"], "b"),
        conv("second", "b", "y", "w2", "b2"),
    ]
    return model_of(nodes, {"x": [1, 8, 8, 8]}, {"y": [1, 8, 8, 8]}, constants)


def with_bias_from_data() -> onnx.ModelProto:
    """A convolution whose bias is computed from the input."""
    nodes = [
        node("GlobalAveragePool", "pool", ["x"], "mean"),
        node("Flatten", "flatten", ["mean"], "rows", axis=0),
        node("Squeeze", "squeeze", ["rows", "zero"], "bias"),
        conv("layer", "x", "y", "w", "bias"),
    ]
    constants = {"w": weights(16, 16, 3, 3), "zero": np.array([0], np.int64)}
    return model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 16, 8, 8]}, constants)


def product(operator: str, *more: str, **attributes: float) -> onnx.ModelProto:
    """`layer` behind a Relu, and a Relu behind it; it may read `c` and `row` too."""
    constants = {"w": weights(32, 16), "c": weights(16, seed=1), "row": weights(4, 16, seed=2)}
    nodes = [node("Relu", "relu", ["x"], "a"), node(operator, "layer", ["a", "w", *more], "y", **attributes)]
    used = {name: array for name, array in constants.items() if name == "w" or name in more}
    return model_of(nodes, {"x": [4, 32]}, {"y": [4, 16]}, used)


def product_and_sum() -> onnx.ModelProto:
    """MatMul and an Add of a constant, as exporters write it."""
    model = product("MatMul")
    model.graph.node[1].output[0] = "b"
    model.graph.node.append(node("Add", "sum", ["b", "c"], "y"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights(16, seed=1), "c"))
    return model


def single(operator: str, out: list[int], *shape: int, source: list[int], **attributes: object) -> onnx.ModelProto:
    """One layer without a bias."""
    nodes = [node(operator, "layer", ["x", "w"], "y", **attributes)]
    return model_of(nodes, {"x": source}, {"y": out}, {"w": weights(*shape)})


FORMS = {
    "conv-1d": single("Conv", [1, 8, 6], 8, 4, 3, source=[1, 4, 8]),
    "conv-2d": single("Conv", [1, 8, 6, 6], 8, 4, 3, 3, source=[1, 4, 8, 8]),
    "conv-bias-from-data": with_bias_from_data(),
    "conv-transpose": single("ConvTranspose", [1, 6, 10, 10], 4, 6, 3, 3, source=[1, 4, 8, 8]),
    "gemm": product("Gemm", "c"),
    "gemm-without-c": product("Gemm"),
    "gemm-beta": product("Gemm", "c", beta=0.5, alpha=2.0),
    "gemm-beta-0": product("Gemm", "c", beta=0.0),
    "gemm-matrix": product("Gemm", "row", beta=2.0),
    "matmul": product("MatMul"),
    "matmul-and-add": product_and_sum(),
}


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_bias_is_added_to_the_output_whatever_the_layer_has(form: str, fp16: bool) -> None:
    """With 1 to n added to the n output channels, the output is that much higher in each."""
    model = FORMS[form]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    data = positive(shape, 1)
    subject = subject_of(model, data, fp16=fp16)
    axis = 1 if "conv" in form else -1
    plain = error_of(subject, {}, data)
    channels = plain.shape[axis]
    bias = np.arange(1, channels + 1, dtype=np.float32)
    shifted = error_of(subject, {"layer": Correction(bias=bias)}, data)
    expected = np.broadcast_to(
        bias.reshape([-1 if dim == axis % plain.ndim else 1 for dim in range(plain.ndim)]), plain.shape
    )
    np.testing.assert_allclose(shifted - plain, expected, atol=3e-2 if fp16 else 1e-4)


def test_the_mean_error_of_every_channel_goes() -> None:
    """On samples that nothing was fitted to, the last layer's mean errors shrink to a fraction, and its SQNR grows."""
    data = positive([1, 8, 8, 8], 16)
    subject = subject_of(two_convolutions(), data)
    subject = replace(subject, corrections={name: coarse(subject, name) for name in ("first", "second")})
    found = CorrectBias().improved(subject, Silent())
    assert [gain.node for gain in found.gains] == ["first", "second"]
    assert all(gain.after_db > gain.before_db for gain in found.gains if gain.after_db and gain.before_db)
    unseen = positive([1, 8, 8, 8], 8, seed=1)
    before, after = (error_of(subject, entry, unseen) for entry in (subject.corrections, found.corrections))
    shift_before, shift_after = (np.abs(error.mean(axis=(0, 2, 3))).max() for error in (before, after))
    assert shift_after < 0.2 * shift_before
    assert np.square(after).sum() < np.square(before).sum()


def test_the_gain_told_is_that_at_the_layers_output_on_held_out_samples() -> None:
    """For a model of one layer it can be measured from outside."""
    data = positive([1, 4, 8, 8], 6)
    subject = subject_of(FORMS["conv-2d"], data)
    subject = replace(subject, corrections={"layer": coarse(subject, "layer")})
    found = CorrectBias().improved(subject, Silent())
    held_out = Feeds(data.arrays[1::2])
    signal = np.concatenate([outputs_of(subject.source.model, sample.feed)["y"] for sample in held_out])
    (gain,) = found.gains
    for told, corrections in ((gain.before_db, subject.corrections), (gain.after_db, found.corrections)):
        assert told == pytest.approx(sqnr_db(signal, signal + error_of(subject, corrections, held_out)), abs=0.05)


def test_rounded_weights_count_and_stay() -> None:
    """The bias is that of the corrected weights, which are handed on, as are the corrections of other layers."""
    data = positive([1, 8, 8, 8], 8)
    subject = subject_of(two_convolutions(), data)
    given = {"first": coarse(subject, "first"), "elsewhere": Correction(bias=np.ones(3, np.float32))}
    plain = CorrectBias().improved(subject, Silent()).corrections
    found = CorrectBias().improved(replace(subject, corrections=given), Silent()).corrections
    assert found["first"].weights is given["first"].weights
    assert found["elsewhere"] is given["elsewhere"]
    first = found["first"].bias
    assert first is not None
    assert "first" not in plain or np.abs(first - plain["first"].bias).max() > 0.01


def test_a_second_time_changes_nothing() -> None:
    """The bias is found anew, not on top of the one that is there: the same again is no gain."""
    data = positive([1, 8, 8, 8], 8)
    subject = subject_of(two_convolutions(), data)
    subject = replace(subject, corrections={name: coarse(subject, name) for name in ("first", "second")})
    once = CorrectBias().improved(subject, Silent())
    twice = CorrectBias().improved(replace(subject, corrections=once.corrections), Silent())
    assert not twice.gains
    assert twice.corrections == once.corrections


def test_what_does_not_hold_on_other_samples_is_left() -> None:
    """Samples of opposite signs: the mean error of one half is the opposite of the other's."""
    up = positive([1, 4, 8, 8], 1).arrays[0]
    subject = subject_of(FORMS["conv-2d"], Feeds([up, -up]))
    subject = replace(subject, corrections={"layer": coarse(subject, "layer")})
    found = CorrectBias().improved(subject, Silent())
    assert [entry.node for entry in found.declined] == ["layer"]
    assert "held-out" in found.declined[0].why
    assert found.corrections == subject.corrections


def test_one_sample_is_too_few() -> None:
    """There is nothing to judge with."""
    subject = subject_of(two_convolutions(), positive([1, 8, 8, 8], 1))
    found = CorrectBias().improved(subject, Silent())
    assert {entry.node for entry in found.declined} == {
        layer.node for layer in quantized_layers(subject.source, subject.ranges)
    }
    assert not found.gains
    assert not found.corrections
