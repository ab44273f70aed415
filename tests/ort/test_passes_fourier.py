"""DFT and STFT as MatMul and Conv."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.mathematics.dft_to_matmul import DftToMatMul
from trt_opt.passes.mathematics.stft_to_conv import StftToConv
from trt_opt.values.samples import Sample

FLOAT32_TOLERANCE = 2e-6


def dft(shape: str, made: str, inputs: str = "", dtype: str = "float", more: str = "", **attributes: int) -> str:
    """A graph of one DFT."""
    told = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    call = f"DFT{f'<{told}>' if told else ''}(x{inputs})"
    return f"g ({dtype}[{shape}] x{more}) => ({dtype}[{made}] y) {{ y = {call} }}"


def expected(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    """What onnx's reference implementation gives."""
    return np.asarray(ReferenceEvaluator(model).run(None, feed)[0])


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, feed: dict[str, np.ndarray], tolerance: float) -> None:
    """Both models give the same in onnx's reference implementation."""
    reference, found = expected(before, feed), expected(after, feed)
    assert reference.shape == found.shape
    assert reference.dtype == found.dtype
    error = np.abs(reference.astype(np.float64) - found.astype(np.float64)).max()
    assert error <= tolerance * np.abs(reference.astype(np.float64)).max()


@pytest.mark.parametrize("axis", [0, 1, -2])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
def test_transform_keeps_its_numbers(axis: int, parts: int, inverse: int) -> None:
    """Every axis, real and complex signals, forwards and backwards: the numbers of the specification."""
    model = model_of(dft(f"3,5,4,{parts}", "3,5,4,2", axis=axis, inverse=inverse), opset=17)
    after, report = DftToMatMul().run(model)
    assert report.changed
    assert operators(after)["MatMul"] == 1
    assert_same(model, after, {"x": floats(3, 5, 4, parts)}, FLOAT32_TOLERANCE)


@pytest.mark.parametrize(("length", "made"), [("", 5), ("6", 4), ("9", 5), ("12", 7)])
def test_one_sided_transform_keeps_its_numbers(length: str, made: int) -> None:
    """A one-sided transform gives half the frequencies of a signal cut or padded to dft_length."""
    inputs = ', "", a' if not length else ", n, a"
    weights = {"a": np.int64(1)} | ({"n": np.int64(length)} if length else {})
    model = model_of(dft("B,8,1", f"B,{made},2", inputs, onesided=1), opset=20, **weights)
    after, _ = applied(DftToMatMul(), model)
    assert operators(after) == {"Reshape": 2, "MatMul": 1}
    assert_same(model, after, {"x": floats(3, 8, 1)}, FLOAT32_TOLERANCE)


@pytest.mark.parametrize("length", [None, 8, 9, 5])
def test_one_sided_inverse_keeps_its_numbers(length: int | None) -> None:
    """The one-sided inverse is real and of even length unless told otherwise."""
    inputs = "" if length is None else ", n"
    weights = {} if length is None else {"n": np.int64(length)}
    model = model_of(dft("3,5,2", f"3,{length or 8},1", inputs, onesided=1, inverse=1), opset=20, **weights)
    after, _ = DftToMatMul().run(model)
    assert "DFT" not in operators(after)
    assert_same(model, after, {"x": floats(3, 5, 2)}, FLOAT32_TOLERANCE)


@pytest.mark.parametrize("axis", [0, 1, 2, -2, -3, -4])
def test_transform_of_runtime_axis_is_selected(axis: int) -> None:
    """Where all axes lead to one shape, the graph computes each and selects the one asked for."""
    model = model_of(dft("4,5,6,1", "4,5,6,2", ', "", a', more=", int64 a"), opset=20)
    feed = {"x": floats(4, 5, 6, 1), "a": np.asarray(axis)}
    after, _ = applied(DftToMatMul(), model, [Sample("axis", feed)])
    assert operators(after)["MatMul"] == 3
    assert_same(model, after, feed, FLOAT32_TOLERANCE)


def test_declared_shape_decides_about_runtime_axis() -> None:
    """A one-sided transform whose output is declared [4, 3, 6, 2] can only run along the axis of 5."""
    model = model_of(dft("4,5,6,1", "4,3,6,2", ', "", a', more=", int64 a", onesided=1), opset=20)
    after, _ = DftToMatMul().run(model)
    assert operators(after) == {"Transpose": 2, "Reshape": 2, "MatMul": 1}
    assert_same(model, after, {"x": floats(4, 5, 6, 1), "a": np.asarray(1)}, FLOAT32_TOLERANCE)


def test_axis_too_short_for_an_inverse_is_not_considered() -> None:
    """A one-sided inverse along an axis of 1 would have no samples, so a runtime axis must be the other one."""
    model = model_of(dft("1,5,2", "A,B,1", ', "", a', more=", int64 a", onesided=1, inverse=1), opset=20)
    after, _ = DftToMatMul().run(model)
    assert operators(after) == {"Reshape": 2, "MatMul": 1}


def test_runtime_axis_of_unknown_shape_is_declined() -> None:
    """Where axes lead to different shapes and none is declared, the report says how to fix the axis."""
    model = model_of(dft("4,5,6,1", "A,B,C,2", ', "", a', more=", int64 a", onesided=1), opset=20)
    after, report = DftToMatMul().run(model)
    assert after is model
    assert "--freeze-input a=" in report.declined[0].why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (dft("2,L,1", "2,L,2"), "not static"),
        (dft("2,4,1", "2,N,2", ", n", more=", int64 n"), "--freeze-input n="),
        (dft("2,8192,2", "2,8192,2"), "16 million"),
    ],
)
def test_transform_is_declined_with_reason(text: str, why: str) -> None:
    """Lengths that are not known and matrices that are too large are declined."""
    after, report = DftToMatMul().run(model := model_of(text, opset=17))
    assert after is model
    assert why in report.declined[0].why


def test_half_precision_is_computed_in_float32() -> None:
    """Sums over the signal are not rounded to half precision on the way."""
    model = model_of(dft("2,64,1", "2,64,2", dtype="float16"), opset=17)
    after, _ = DftToMatMul().run(model)
    assert operators(after)["Cast"] == 2
    assert_same(model, after, {"x": floats(2, 64, 1).astype(np.float16)}, 1e-3)


def test_transform_in_branch_is_replaced() -> None:
    """A DFT of one axis in a branch of an If, read twice, is replaced there."""
    text = """g (float[6,1] x, bool c) => (float[6,2] y) {
        y = If (c) <
            then_branch = t () => (float[6,2] r) { f = DFT<axis = 0>(x) r = Add(f, f) },
            else_branch = e () => (float[6,2] r) { r = Concat<axis = -1>(x, x) }
        >
    }"""
    feeds = [Sample(str(given), {"x": floats(6, 1), "c": np.asarray(given)}) for given in (True, False)]
    after, _ = applied(DftToMatMul(), model_of(text, opset=17), feeds)
    assert "DFT" not in operators(after)


@pytest.mark.rtx
def test_transform_becomes_buildable() -> None:
    """TensorRT-RTX refuses DFT and takes what the pass writes."""
    model = model_of(dft("4,5,6,1", "4,5,6,2"), opset=17)
    assert refused_by(model)
    assert not refused_by(DftToMatMul().run(model)[0])


def stft(inputs: str, *, shape: str = "2,50,1", made: str = "2,F,K,2", more: str = "", onesided: int = 1) -> str:
    """A graph of one STFT."""
    call = f"STFT<onesided = {onesided}>(x, {inputs})"
    return f"g (float[{shape}] x{more}) => (float[{made}] y) {{ y = {call} }}"


@pytest.mark.parametrize("inputs", ['s, "", n', "s, w", "s, w, n"])
@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("shape", ["2,50,1", "B,L,1"])
def test_short_time_transform_keeps_its_numbers(inputs: str, onesided: int, shape: str) -> None:
    """With and without window, one-sided or not, at fixed and at dynamic lengths."""
    weights = {"s": np.int64(4), "w": floats(13)} | ({"n": np.int64(13)} if "n" in inputs else {})
    model = model_of(stft(inputs, shape=shape, onesided=onesided), **weights)
    after, report = applied(StftToConv(), model, [Sample("x", {"x": floats(2, 50, 1)})])
    assert operators(after) == {"Transpose": 2, "Conv": 1, "Reshape": 1}
    assert len(report.changed) == 1


def test_short_time_transform_of_complex_signal_keeps_its_numbers() -> None:
    """A complex signal has two channels."""
    model = model_of(stft("s, w", shape="2,50,2", onesided=0), s=np.int64(5), w=floats(8))
    after, _ = StftToConv().run(model)
    assert "STFT" not in operators(after)
    assert_same(model, after, {"x": floats(2, 50, 2)}, FLOAT32_TOLERANCE)


def test_runtime_window_scales_the_filters() -> None:
    """A window that is a graph input stays one."""
    model = model_of(stft("s, w", more=", float[8] w"), s=np.int64(5))
    after, _ = applied(StftToConv(), model, [Sample("x", {"x": floats(2, 50, 1), "w": floats(8, seed=1)})])
    assert operators(after)["Mul"] == 1


def test_declared_shape_decides_about_runtime_framing() -> None:
    """Only frames of 16 every 8 samples make 15 frames of 9 frequencies out of 128 samples."""
    text = stft('s, "", n', shape="1,128,1", made="1,15,9,2", more=", int64 s, int64 n")
    feed = {"x": floats(1, 128, 1), "s": np.asarray(8), "n": np.asarray(16)}
    after, _ = applied(StftToConv(), model_of(text), [Sample("x", feed)])
    assert operators(after)["Conv"] == 1


def test_runtime_framing_of_unknown_shape_is_declined() -> None:
    """The report names the inputs to freeze."""
    model = model_of(stft('s, "", n', made="2,F,K,2", more=", int64 s, int64 n"))
    after, report = StftToConv().run(model)
    assert after is model
    assert "--freeze-input s=… --freeze-input n=…" in report.declined[0].why


@pytest.mark.rtx
def test_short_time_transform_becomes_buildable() -> None:
    """TensorRT-RTX refuses a window that is a graph input and takes what the pass writes."""
    model = model_of(stft("s, w", more=", float[8] w", made="2,9,5,2"), s=np.int64(5))
    assert refused_by(model)
    assert not refused_by(StftToConv().run(model)[0])
