"""Weights rounded up or down by what that does to the layer's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, weights
from improvement_feeds import Feeds, FloatArray, subject_of
from numpy.typing import NDArray
from ort_session import outputs_of, sqnr_db

from trt_opt.improvements.adaptive_rounding import BLOCK, LARGEST_ROW, RoundAdaptively, rounded_codes
from trt_opt.improvements.bias_correction import CorrectBias
from trt_opt.improvements.improvement import Subject
from trt_opt.improvements.input_moments import in_portions
from trt_opt.improvements.layer_patches import input_rows, weight_rows, weights_from_rows
from trt_opt.quantize.stage import Correction, quantized_graph
from trt_opt.values.progress import Silent


def correlated(shape: Sequence[int], count: int, seed: int = 0) -> Feeds:
    """Inputs like those behind a Relu, whose channels (axis 1) are mixtures of a few."""
    generator = np.random.default_rng(seed)
    mixture = np.abs(np.random.default_rng(9).standard_normal((shape[1], 3)))

    def array() -> FloatArray:
        few = np.abs(generator.standard_normal((shape[0], 3, *shape[2:])))
        own = 0.1 * np.abs(generator.standard_normal(shape))
        return (np.einsum("cf,bf...->bc...", mixture, few) + own).astype(np.float32)

    return Feeds([array() for _ in range(count)])


def output_db(subject: Subject, corrections: Mapping[str, Correction], data: Feeds) -> float:
    """SQNR of the output `y` over samples."""
    model = quantized_graph(subject.source, subject.ranges, corrections).model
    pairs = [(outputs_of(subject.source.model, s.feed)["y"], outputs_of(model, s.feed)["y"]) for s in data]
    return sqnr_db(*(np.concatenate([pair[place] for pair in pairs]) for place in (0, 1)))


def single(operator: str, source: list[int], out: list[int], *shape: int, **attributes: object) -> onnx.ModelProto:
    """`layer` and nothing else."""
    nodes = [node(operator, "layer", ["x", "w"], "y", **attributes)]
    return model_of(nodes, {"x": source}, {"y": out}, {"w": weights(*shape)})


FORMS = {
    "conv-1d": single("Conv", [2, 4, 9], [2, 8, 4], 8, 4, 3, strides=[2]),
    "conv-2d": single("Conv", [2, 4, 7, 9], [2, 8, 5, 7], 8, 4, 3, 3),
    "strides": single("Conv", [1, 4, 9, 9], [1, 8, 4, 3], 8, 4, 3, 3, strides=[2, 3]),
    "pads-uneven": single("Conv", [1, 4, 6, 6], [1, 8, 7, 7], 8, 4, 3, 3, pads=[0, 2, 3, 1]),
    "dilations": single("Conv", [1, 4, 9, 9], [1, 8, 5, 7], 8, 4, 3, 3, dilations=[2, 1]),
    "same-upper": single("Conv", [1, 4, 8, 7], [1, 8, 4, 4], 8, 4, 3, 3, auto_pad="SAME_UPPER", strides=[2, 2]),
    "same-lower": single("Conv", [1, 4, 8, 7], [1, 8, 4, 4], 8, 4, 3, 3, auto_pad="SAME_LOWER", strides=[2, 2]),
    "valid": single("Conv", [1, 4, 8, 7], [1, 8, 6, 5], 8, 4, 3, 3, auto_pad="VALID"),
    "groups": single("Conv", [2, 6, 5, 5], [2, 9, 3, 3], 9, 2, 3, 3, group=3),
    "depthwise": single("Conv", [2, 6, 5, 5], [2, 12, 3, 3], 12, 1, 3, 3, group=6),
    "conv-3d": single("Conv", [1, 2, 4, 5, 6], [1, 8, 3, 3, 4], 8, 2, 2, 3, 3),
    "matmul": single("MatMul", [5, 20], [5, 16], 20, 16),
    "matmul-3d": single("MatMul", [2, 5, 20], [2, 5, 16], 20, 16),
    "gemm": single("Gemm", [5, 20], [5, 16], 20, 16),
    "gemm-transposed": single("Gemm", [5, 20], [5, 16], 16, 20, transB=1),
}


def rows_of(model: onnx.ModelProto, array: FloatArray, limit: int, seed: int = 0) -> FloatArray:
    """The rows of the layer's input."""
    shape = model.graph.initializer[0].dims
    kernel = shape[2:] if model.graph.node[0].op_type == "Conv" else ()
    return input_rows(model.graph.node[0], array, kernel, limit, np.random.default_rng(seed))


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_inputs_times_rows_of_weights_are_the_output(form: str) -> None:
    """All positions taken, the product of matrices is what ONNX Runtime computes."""
    model = FORMS[form]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    array = weights(*shape, seed=5)
    layer, values = model.graph.node[0], weights(*model.graph.initializer[0].dims)
    found = rows_of(model, array, 10**6) @ weight_rows(layer, values).swapaxes(1, 2)
    expected = outputs_of(model, {"x": array})["y"]
    if layer.op_type == "Conv":
        expected = np.moveaxis(expected, 1, -1)
    flat = np.moveaxis(found, 0, 1).reshape(expected.shape)
    np.testing.assert_allclose(flat, expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_weights_come_back_from_their_rows(form: str) -> None:
    """The two functions are each other's inverse."""
    values = weights(*FORMS[form].graph.initializer[0].dims)
    layer = FORMS[form].graph.node[0]
    np.testing.assert_array_equal(weights_from_rows(layer, weight_rows(layer, values), values.shape), values)


@pytest.mark.parametrize("form", ["groups", "matmul-3d"])
def test_a_limit_picks_some_of_the_rows(form: str) -> None:
    """As many as the limit, each one of all, none twice, and the same with the same seed."""
    model = FORMS[form]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    array = weights(*shape, seed=5)
    every, some = rows_of(model, array, 10**6), rows_of(model, array, 7)
    assert some.shape == (every.shape[0], 7, every.shape[2])
    places = [int(np.flatnonzero((every[0] == row).all(axis=1))[0]) for row in some[0]]
    assert len(set(places)) == 7
    np.testing.assert_array_equal(some, every[:, places])
    np.testing.assert_array_equal(some, rows_of(model, array, 7))
    assert not np.array_equal(some, rows_of(model, array, 7, seed=1))


def problem(groups: int, rows: int, columns: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Exact codes, and the moments of correlated inputs."""
    generator = np.random.default_rng(seed)
    exact = generator.uniform(-127, 127, (groups, rows, columns))
    mixture = generator.standard_normal((groups, columns, columns))
    inputs = np.abs(generator.standard_normal((groups, 4 * columns, columns)) @ mixture)
    moments = inputs.swapaxes(1, 2) @ inputs / (4 * columns)
    return exact.astype(np.float32), moments.astype(np.float32)


def objective(codes: FloatArray, exact: FloatArray, moments: FloatArray) -> NDArray[np.float64]:
    """E·H·Eᵀ per row."""
    error = codes.astype(np.float64) - exact
    return np.einsum("grc,gcd,grd->gr", error, moments.astype(np.float64), error)


@pytest.mark.parametrize("columns", [9, BLOCK + 40])
def test_no_sweep_raises_the_error_of_any_row(columns: int) -> None:
    """From the nearest codes on, every row of every group gets better or stays; the first sweep gains on the whole."""
    exact, moments = problem(2, 16, columns)
    after = [objective(rounded_codes(exact, moments, sweeps), exact, moments) for sweeps in range(6)]
    assert all((later <= earlier * (1 + 1e-6)).all() for earlier, later in pairwise(after))
    assert after[1].sum() < 0.7 * after[0].sum()
    np.testing.assert_allclose(after[0], objective(np.rint(exact), exact, moments))


@pytest.mark.parametrize("columns", [9, BLOCK + 40])
def test_codes_are_beside_the_exact_ones_and_no_flip_is_left(columns: int) -> None:
    """Each is rounded up or down; going to the other side of any single one would help by next to nothing."""
    exact, moments = problem(1, 8, columns)
    codes = rounded_codes(exact, moments, 50)
    assert (np.abs(codes - exact) < 1).all()
    found = objective(codes, exact, moments)
    other = np.floor(exact) + np.ceil(exact) - codes
    for column in range(columns):
        flipped = codes.copy()
        flipped[:, :, column] = other[:, :, column]
        assert (objective(flipped, exact, moments) > found * (1 - 1e-3)).all()


def test_the_descent_comes_near_the_best_of_all_roundings() -> None:
    """Of 2^9 roundings of nine weights, it finds one within half of the best, where nearest is far from it."""
    exact, moments = problem(1, 20, 9, seed=3)
    found, nearest = (
        objective(codes, exact, moments).sum() for codes in (rounded_codes(exact, moments), np.rint(exact))
    )
    choices = np.array(list(product((0.0, 1.0), repeat=9)), np.float32)
    least = [objective((np.floor(row) + choices)[None], row[None, None], moments).min() for row in exact[0]]
    assert sum(least) <= found < 1.5 * sum(least)
    assert nearest > 2 * sum(least)


def test_codes_stay_within_int8s_ends() -> None:
    """A weight at the threshold has no code above it."""
    exact, moments = problem(1, 4, 9)
    exact[..., 0], exact[..., 1] = 127.00001, -127.00001
    codes = rounded_codes(exact, moments)
    assert (codes[..., 0] == 127).all()
    assert (codes[..., 1] == -127).all()


def convolutions(size: int = 8) -> onnx.ModelProto:
    """`wide`, `depthwise`, `last` (a bias of its own) and a transposed convolution."""
    constants = {
        "w1": weights(16, 8, 3, 3, seed=1),
        "w2": weights(16, 1, 3, 3, seed=2),
        "w3": weights(8, 16, 1, 1, seed=3),
        "w4": weights(8, 4, 2, 2, seed=4),
        "b3": weights(8, seed=5),
    }
    nodes = [
        conv("wide", "x", "a", "w1"),
        node("Relu", "relu1", ["a"], "b"),
        conv("depthwise", "b", "c", "w2", group=16),
        node("Relu", "relu2", ["c"], "d"),
        node("Conv", "last", ["d", "w3", "b3"], "e"),
        node("ConvTranspose", "up", ["e", "w4"], "y", strides=[2, 2]),
    ]
    return model_of(nodes, {"x": [1, 8, size, size]}, {"y": [1, 4, 2 * size, 2 * size]}, constants)


@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
def test_layers_and_the_output_lose_less_on_unseen_samples(fp16: bool) -> None:
    """Convolutions of every kind gain, the transposed one says why not, and the model as a whole is better."""
    subject = subject_of(convolutions(), correlated([1, 8, 8, 8], 12), fp16=fp16)
    found = RoundAdaptively().improved(subject, Silent())
    assert {gain.node for gain in found.gains} == {"wide", "depthwise", "last"}
    assert all(gain.after_db > gain.before_db for gain in found.gains if gain.after_db and gain.before_db)
    assert [entry.node for entry in found.declined] == ["up"]
    assert "ConvTranspose" in found.declined[0].why
    unseen = correlated([1, 8, 8, 8], 6, seed=1)
    assert output_db(subject, found.corrections, unseen) > output_db(subject, {}, unseen)


@pytest.mark.parametrize("form", ["matmul", "gemm-transposed"])
def test_the_gain_told_is_that_at_the_layers_output_on_held_out_samples(form: str) -> None:
    """For a model of one layer it can be measured from outside."""
    data = correlated([5, 20], 40)
    subject = subject_of(FORMS[form], data)
    found = RoundAdaptively().improved(subject, Silent())
    (gain,) = found.gains
    held_out = Feeds(data.arrays[1::2])
    assert gain.before_db == pytest.approx(output_db(subject, {}, held_out), abs=0.02)
    assert gain.after_db == pytest.approx(output_db(subject, found.corrections, held_out), abs=0.02)
    assert gain.after_db > gain.before_db + 0.2


def test_the_same_seed_gives_the_same_codes() -> None:
    """Rows are drawn by chance, but not by accident."""
    subject = subject_of(convolutions(48), correlated([1, 8, 48, 48], 4))
    first, again, other = (
        RoundAdaptively().improved(replace(subject, seed=seed), Silent()).corrections["wide"].weights
        for seed in (0, 0, 1)
    )
    assert first is not None and again is not None and other is not None
    np.testing.assert_array_equal(first.numbers, again.numbers)
    assert not np.array_equal(first.numbers, other.numbers)


def test_layers_with_the_same_weights_are_rounded_apart() -> None:
    """Each sees other inputs, and the tensor they share has no say."""
    nodes = [conv("first", "x", "a", "w"), node("Relu", "relu", ["a"], "b"), conv("second", "b", "y", "w")]
    model = model_of(nodes, {"x": [1, 8, 8, 8]}, {"y": [1, 8, 8, 8]}, {"w": weights(8, 8, 3, 3)})
    data = correlated([1, 8, 8, 8], 8)
    subject = subject_of(model, data)
    found = RoundAdaptively().improved(subject, Silent()).corrections
    first, second = found["first"].weights, found["second"].weights
    assert first is not None and second is not None
    assert not np.array_equal(first.numbers, second.numbers)
    assert output_db(subject, found, data) > output_db(subject, {}, data)


def test_earlier_corrections_stay_and_a_bias_fits_behind() -> None:
    """Rounding keeps a bias it finds, bias correction keeps the codes it finds, and neither touches other layers."""
    data = correlated([1, 8, 8, 8], 12)
    subject = subject_of(convolutions(), data)
    given = {"last": Correction(bias=np.zeros(8, np.float32)), "elsewhere": Correction()}
    rounded = RoundAdaptively().improved(replace(subject, corrections=given), Silent()).corrections
    assert rounded["last"].bias is given["last"].bias
    assert rounded["last"].weights is not None
    assert rounded["elsewhere"] is given["elsewhere"]
    both = CorrectBias().improved(replace(subject, corrections=rounded), Silent()).corrections
    assert both["last"].weights is rounded["last"].weights
    unseen = correlated([1, 8, 8, 8], 6, seed=1)
    assert output_db(subject, both, unseen) > output_db(subject, {}, unseen)


def test_one_sample_is_too_few() -> None:
    """There is nothing to judge with."""
    found = RoundAdaptively().improved(subject_of(convolutions(), correlated([1, 8, 8, 8], 1)), Silent())
    assert {entry.node for entry in found.declined} == {"wide", "depthwise", "last", "up"}
    assert not found.corrections


def test_a_layer_whose_moments_are_too_large_is_left() -> None:
    """The reason names the number of inputs."""
    model = single("MatMul", [2, LARGEST_ROW + 1], [2, 16], LARGEST_ROW + 1, 16)
    found = RoundAdaptively().improved(subject_of(model, correlated([2, LARGEST_ROW + 1], 2)), Silent())
    assert [entry.node for entry in found.declined] == ["layer"]
    assert str(LARGEST_ROW + 1) in found.declined[0].why


def test_portions_keep_the_order_and_the_limit() -> None:
    """What is larger than the limit is a portion by itself."""
    sizes = {"a": 3, "b": 3, "c": 12, "d": 5, "e": 5, "f": 1}
    assert list(in_portions(sizes, 10)) == [("a", "b"), ("c",), ("d", "e"), ("f",)]
    assert list(in_portions({}, 10)) == []
