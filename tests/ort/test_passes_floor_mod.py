"""Mod of floating point numbers with fmod=0."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from passes_models import applied, model_of, operators, refused_by

from trt_opt.passes.mathematics.floor_mod_to_fmod import FloorModToFmod

DIVIDENDS = [0.0, -0.0, 3.5, -3.5, 4, -4, 3, -3, np.inf, -np.inf, np.nan, 1, 6.5, -1, 1, -1]
DIVISORS = [2, -2, 2, 2, 2, -2, np.inf, np.inf, 2, np.inf, 1, np.nan, -2, -np.inf, 0, -0.0]


def mod(dtype: str = "float", divisor: str = "N", fmod: int = 0) -> str:
    """A graph of one Mod."""
    return f"g ({dtype}[N] x, {dtype}[{divisor}] y) => ({dtype}[N] z) {{ z = Mod<fmod = {fmod}>(x, y) }}"


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_floor_mod_keeps_values_signs_and_nan(dtype: str) -> None:
    """Mixed signs, zeros of both signs, infinities and NaN give NumPy's `mod` to the bit."""
    name = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    model = model_of(mod(name))
    after, report = FloorModToFmod().run(model)
    assert len(report.changed) == 1
    assert operators(after)["Where"] == 4
    numpy_type = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    feed = {"x": np.array(DIVIDENDS, numpy_type), "y": np.array(DIVISORS, numpy_type)}
    wanted = np.mod(feed["x"], feed["y"])
    found = ReferenceEvaluator(after).run(None, feed)[0]
    assert found.dtype == numpy_type
    np.testing.assert_array_equal(found.astype(np.float64), wanted.astype(np.float64))
    finite = ~np.isnan(wanted.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(found)[finite], np.signbit(wanted)[finite])


def test_constant_divisor_needs_no_care_for_infinities() -> None:
    """A finite constant, here one that broadcasts, leaves out the selection for infinite divisors."""
    text = "g (float[N,3] x) => (float[N,3] z) { z = Mod(x, y) }"
    after, _ = applied(FloorModToFmod(), model_of(text, y=np.array([0.5, -0.75, 1], np.float32)))
    assert operators(after) == {"Mod": 1, "Less": 2, "Xor": 1, "Add": 1, "Where": 3, "Equal": 1}


def test_narrow_integers_are_declined() -> None:
    """Integers that TensorRT has no arithmetic for are another pass's."""
    after, report = FloorModToFmod().run(model := model_of(mod("int8")))
    assert after is model
    assert "widening" in report.declined[0].why


@pytest.mark.parametrize("text", [mod("int64"), mod(fmod=1)])
def test_what_tensorrt_takes_is_left_alone(text: str) -> None:
    """There is nothing to do for INT64 and fmod=1, and nothing to report."""
    after, report = FloorModToFmod().run(model := model_of(text))
    assert after is model
    assert not report.declined


def test_bfloat16_of_old_opset_is_declined() -> None:
    """Where has no bfloat16 before opset 16."""
    after, report = FloorModToFmod().run(model := model_of(mod("bfloat16"), opset=13))
    assert after is model
    assert "opset 16" in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize("dtype", ["float", "float16", "bfloat16", "double"])
def test_floor_mod_becomes_buildable(dtype: str) -> None:
    """TensorRT-RTX refuses fmod=0 and takes what the pass writes, in all its types."""
    text = f"g ({dtype}[2,3] x, {dtype}[3] y) => ({dtype}[2,3] z) {{ z = Mod(x, y) }}"
    assert refused_by(model_of(text))
    assert not refused_by(FloorModToFmod().run(model_of(text))[0])
