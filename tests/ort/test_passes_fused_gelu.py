"""ONNX Runtime's Gelu operators."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from contrib_models import contrib_model, is_standard
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, operators, refused_by

from trt_opt.passes.contrib.decompose_gelu import DecomposeGelu

ERF = {"Mul": 3, "Erf": 1, "Add": 1}
TANH = {"Mul": 5, "Add": 2, "Tanh": 1}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("com.microsoft.Gelu(x)", ERF),
        ("com.microsoft.BiasGelu(x, b)", {**ERF, "Add": 2}),
        ("com.microsoft.FastGelu(x)", TANH),
        ("com.microsoft.FastGelu(x, b)", {**TANH, "Add": 3}),
        ("com.microsoft.QuickGelu(x)", {"Mul": 2, "Sigmoid": 1}),
        ("com.microsoft.QuickGelu<alpha = 0.7>(x)", {"Mul": 2, "Sigmoid": 1}),
        ("com.microsoft.ScaledSiLU<alpha = 0.7>(x)", {"Mul": 2, "Sigmoid": 1}),
        ("com.microsoft.ScaledSiLU(x, s)", {"Mul": 2, "Sigmoid": 1}),
    ],
)
@pytest.mark.parametrize("opset", [11, 20])
def test_gelu_keeps_its_numbers(call: str, expected: dict[str, int], opset: int) -> None:
    """Every kind, for any batch size, from opset 11 on."""
    model = contrib_model(
        f"g (float[n,3,8] x) => (float[n,3,8] y) {{ y = {call} }}", opset=opset, b=floats(8), s=np.float32(0.6)
    )
    after, report = applied(DecomposeGelu(), model)
    assert operators(after) == expected
    assert is_standard(after)
    assert len(report.changed) == 1


@pytest.mark.parametrize("operator", ["Gelu", "FastGelu", "QuickGelu"])
def test_gelu_of_float16_stays_float16(operator: str) -> None:
    """The type stays, and the numbers are those of float32 up to float16's roundings; large inputs do not overflow."""
    text = f"g (T[6] x) => (T[6] y) {{ y = com.microsoft.{operator}(x) }}"
    half = DecomposeGelu().run(contrib_model(text.replace("T", "float16")))[0]
    full = DecomposeGelu().run(contrib_model(text.replace("T", "float")))[0]
    onnx.checker.check_model(half, full_check=True)
    most = 5 if operator == "QuickGelu" else 1000  # the reference evaluator's own sigmoid overflows
    x = np.array([-most, -3, -0.5, 0.25, 2, most], np.float16)
    with np.errstate(over="ignore"):
        (found,) = ReferenceEvaluator(half).run(None, {"x": x})
    (expected,) = ReferenceEvaluator(full).run(None, {"x": x.astype(np.float32)})
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=2e-3, rtol=2e-3)


def test_bias_split_gelu_keeps_its_numbers() -> None:
    """The left half times the Gelu of the right half; ONNX Runtime has no kernel of it for the CPU."""
    text = "g (float[n,3,8] x) => (float[n,3,4] y) { y = com.microsoft.BiasSplitGelu(x, b) }"
    model = contrib_model(text, b=floats(8))
    after, _ = DecomposeGelu().run(model)
    onnx.checker.check_model(after, full_check=True)
    x = floats(2, 3, 8, seed=1)
    left, right = np.split(x + floats(8), 2, axis=-1)
    expected = left * right * (1 + np.vectorize(math.erf)(right / math.sqrt(2))) / 2
    np.testing.assert_allclose(ReferenceEvaluator(after).run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_gemm_fast_gelu_keeps_its_numbers() -> None:
    """A product, a bias and FastGelu; ONNX Runtime has no kernel of it for the CPU."""
    text = "g (float[2,3] x) => (float[2,4] y) { y = com.microsoft.GemmFastGelu(x, w, b) }"
    w, b, x = floats(3, 4), floats(4), floats(2, 3, seed=1)
    after, _ = DecomposeGelu().run(contrib_model(text, w=w, b=b))
    product = x @ w + b
    expected = product / 2 * (1 + np.tanh(0.7978845608 * (product + 0.044715 * product**3)))
    np.testing.assert_allclose(ReferenceEvaluator(after).run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_gelu_chain_in_branch_is_replaced_in_rounds() -> None:
    """Behind a custom operator types are not known; once it is replaced they are, inside an If as well."""
    branch = "one () => (float[2] t) {{ a = com.microsoft.Gelu(x) t = com.microsoft.{}(a) }}"
    text = f"""g (bool c, float[2] x) => (float[2] y) {{
        y = If (c) <then_branch = {branch.format("Gelu")}, else_branch = {branch.format("QuickGelu")}> }}"""
    model = contrib_model(text)
    once, report = DecomposeGelu().run(model)
    assert len(report.changed) + len(report.declined) == 4
    twice, _ = DecomposeGelu().run(once)
    assert is_standard(twice)
    assert applied(DecomposeGelu(), twice)[0] is twice


def test_gelu_of_unknown_type_is_declined() -> None:
    """Behind an operator of nobody's the type is not known, and the report says so."""
    model = contrib_model("g (float[2] x) => (float[2] y) { a = ours.Op(x) z = com.microsoft.Gelu(a) y = Relu(z) }")
    model.opset_import.add(domain="ours", version=1)
    after, report = DecomposeGelu().run(model)
    assert after is model
    assert "element type" in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize("call", ["BiasGelu(x, b)", "FastGelu(x, b)", "QuickGelu(x)", "BiasSplitGelu(x, b)"])
def test_gelu_becomes_buildable(call: str) -> None:
    """TensorRT-RTX refuses the operators and takes what the pass writes."""
    model = contrib_model(f"g (float[2,3,8] x) => (float[2,3,m] y) {{ y = com.microsoft.{call} }}", b=floats(8))
    assert refused_by(model)
    assert not refused_by(DecomposeGelu().run(model)[0])
