"""Operators that ONNX once had and withdrew."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contrib_models import feeds_of, is_standard
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.clean_up.raise_opset import RaiseOpset
from trt_opt.passes.contrib.replace_withdrawn_operators import ReplaceWithdrawnOperators
from trt_opt.passes.node_pass import misread_nodes
from trt_opt.passes.runner import rewrite

BOUNDS = {"s": np.array([1, 0]), "e": np.array([3, -1]), "a": np.array([2, 3])}


@pytest.mark.parametrize("opset", [7, 8])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("Affine<alpha = 2.0, beta = 0.5>(x)", {"Mul": 1, "Add": 1}),
        ("Affine<alpha = 2.0>(x)", {"Mul": 1}),
        ("Scale<scale = 2.0>(x)", {"Mul": 1}),
        ("ImageScaler<scale = 2.0, bias = [1.0, 2.0, 3.0]>(x)", {"Mul": 1, "Add": 1}),
        ("ParametricSoftplus<alpha = 2.0, beta = 0.5>(x)", {"Mul": 2, "Softplus": 1}),
        ("ScaledTanh<alpha = 2.0, beta = 0.5>(x)", {"Mul": 2, "Tanh": 1}),
        ("Crop<border = [1, 2, 3, 1]>(x)", {"Slice": 1}),
        ("Crop<border = [1, 2, 0, 0]>(x)", {"Slice": 1}),
        ("Crop<border = [1, 2, 0, 0], scale = [3, 2]>(x)", {"Slice": 1}),
        ("DynamicSlice(x, s, e, a)", {"Slice": 1}),
        ("DynamicSlice(x, s, e)", {"Slice": 1}),
        ("MeanVarianceNormalization(x)", None),
        ("MeanVarianceNormalization<across_channels = 1>(x)", None),
        ("MeanVarianceNormalization<across_channels = 1, normalize_variance = 0>(x)", {"ReduceMean": 1, "Sub": 1}),
    ],
)
def test_withdrawn_operators_keep_their_numbers(call: str, expected: dict[str, int] | None, opset: int) -> None:
    """ONNX Runtime still has kernels of most, for old opsets."""
    text = f"g (float[4,3,6,7] x) => (float[p,q,r,t] y) {{ y = {call} }}"
    after, _ = applied(ReplaceWithdrawnOperators(), model_of(text, opset=opset, **BOUNDS))
    assert is_standard(after)
    assert expected is None or operators(after) == expected


def test_thresholded_relu_keeps_its_numbers() -> None:
    """What is not above the threshold is 0, infinities too."""
    model = model_of("g (float[7] x) => (float[7] y) { y = ThresholdedRelu<alpha = 0.5>(x) }", opset=8)
    x = np.array([-np.inf, -3, 0, 0.5, 0.75, 2, np.inf], np.float32)
    for opset in (8, 9):
        model.opset_import[0].version = opset
        after, _ = applied(ReplaceWithdrawnOperators(), model, feeds_of(model, x=x))
        assert is_standard(after)
        assert "ThresholdedRelu" not in operators(after)
    model.opset_import[0].version = 10
    assert applied(ReplaceWithdrawnOperators(), model)[0] is model


@pytest.mark.parametrize(
    ("call", "opset", "expected"),
    [
        ("GivenTensorFill<values = [1.0, 2.0], shape = [2, 1]>()", 8, [[1], [2]]),
        ("GivenTensorFill<values = [1.0, 2.0], input_as_shape = 1, extra_shape = [1]>(two)", 8, [[1], [2]]),
        ("ConstantFill<value = 3.0, shape = [2, 1]>()", 8, [[3], [3]]),
        ("ConstantFill<value = 3.0, input_as_shape = 1, extra_shape = [3]>(two)", 8, [[3] * 3] * 2),
        ("ConstantFill<value = 3.0, extra_shape = [2]>(two)", 8, [[3, 3]]),
        ("ConstantFill<value = 3.0, extra_shape = [2]>(x)", 9, [[3, 3]] * 5),
        ("ConstantFill<value = 3.0, input_as_shape = 1>(shape)", 9, [[3] * 4] * 5),
    ],
)
def test_fills_follow_their_definition(call: str, opset: int, expected: list[list[float]]) -> None:
    """A fill of a known shape becomes a constant, another one ConstantOfShape; ONNX Runtime has no kernel of them."""
    text = f"g (float[n] x, int64[2] shape) => (float[p,q] y) {{ y = {call} }}"
    after, _ = ReplaceWithdrawnOperators().run(model_of(text, opset=opset, two=np.array([2])))
    onnx.checker.check_model(after, full_check=True)
    assert is_standard(after)
    (found,) = ReferenceEvaluator(after).run(None, {"x": floats(5), "shape": np.array([5, 4])})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_runtime_bounds_of_a_slice_need_a_newer_opset() -> None:
    """Below opset 10 a Slice cannot read its bounds, and the report says how to fix them."""
    text = "g (float[4,3] x, int64[2] s) => (float[p,q] y) { y = DynamicSlice(x, s, e) }"
    after, report = ReplaceWithdrawnOperators().run(model := model_of(text, opset=8, e=np.array([3, 2])))
    assert after is model
    assert "--freeze-input s=" in report.declined[0].why


def test_old_model_can_be_raised_afterwards() -> None:
    """With the withdrawn operators gone, onnx's converter takes the model."""
    text = """g (float[1,3,6,7] x) => (float[1,3,6,7] y) {
        a = ImageScaler<scale = 2.0, bias = [1.0, 2.0, 3.0]>(x) y = Relu(a) }"""
    model = model_of(text, opset=7, ir_version=3)
    assert RaiseOpset().run(model)[0] is model
    after, _ = applied(ReplaceWithdrawnOperators(), model)
    assert RaiseOpset().run(after)[0].opset_import[0].version == 19


def test_old_normalization_is_known_to_be_misread() -> None:
    """TensorRT takes the old form across channels, and computes the new one."""
    text = "g (float[4,3,6,7] x) => (float[4,3,6,7] y) {{ y = MeanVarianceNormalization<{} = {}>(x) }}"
    cases = (("across_channels", 1, 1), ("normalize_variance", 0, 1), ("across_channels", 0, 0))
    for attribute, value, misread in cases:
        model = model_of(text.format(attribute, value), opset=8)
        assert len(misread_nodes(model, [ReplaceWithdrawnOperators()])) == misread


@pytest.mark.rtx
def test_withdrawn_operators_become_buildable() -> None:
    """TensorRT-RTX refuses them and takes what the pass writes."""
    text = """g (float[1,3,6,7] x) => (float[1,3,3,2] y) {
        a = Affine<alpha = 2.0>(x) c = Crop<border = [1, 2, 0, 0], scale = [3, 2]>(a) s = Scale<scale = 2.0>(c)
        m = MeanVarianceNormalization<across_channels = 1>(s) y = ImageScaler<bias = [1.0, 2.0, 3.0]>(m) }"""
    model = model_of(text, opset=8)
    assert refused_by(model)
    passes = (ReplaceWithdrawnOperators(), RaiseOpset())
    after, _ = rewrite(model, passes={entry.name: entry for entry in passes}, samples=feeds_of(model))
    assert not refused_by(after)
