"""ONNX Runtime's fused convolutions and matrix products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from contrib_models import contrib_model, feeds_of, is_standard
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, random_samples, refused_by

from trt_opt.passes.base import Pass
from trt_opt.passes.contrib.decompose_fused_convolution import DecomposeFusedConvolution
from trt_opt.passes.contrib.decompose_fused_matmul import DecomposeFusedMatmul

ACTIVATIONS = [
    ("Relu", []),
    ("Sigmoid", []),
    ("Tanh", []),
    ("LeakyRelu", [0.3]),
    ("Clip", [-0.5, 0.7]),
    ("HardSigmoid", [0.3, 0.4]),
    ("", []),
]


@pytest.mark.parametrize("opset", [9, 11, 17])
@pytest.mark.parametrize(("activation", "parameters"), ACTIVATIONS)
def test_fused_convolution_keeps_its_numbers(activation: str, parameters: list[float], opset: int) -> None:
    """Every activation function with its parameters, for any batch size."""
    told = f', activation = "{activation}"' if activation else ""
    told += f", activation_params = {parameters}" if parameters else ""
    text = f"""g (float[n,4,6,6] x) => (float[n,4,3,3] y) {{
        y = com.microsoft.FusedConv<group = 2, pads = [1,1,1,1], strides = [2,2]{told}>(x, w, b) }}"""
    after, _ = applied(DecomposeFusedConvolution(), contrib_model(text, opset=opset, w=floats(4, 2, 3, 3), b=floats(4)))
    assert is_standard(after)
    assert operators(after) == ({"Conv": 1, activation: 1} if activation else {"Conv": 1})


@pytest.mark.parametrize("bias", ["b", ""])
def test_residual_is_added_before_the_activation(bias: str) -> None:
    """The fourth input comes before the activation function, with and without a bias."""
    text = f"""g (float[1,2,5,5] x, float[1,4,5,5] z) => (float[1,4,5,5] y) {{
        y = com.microsoft.FusedConv<activation = "Relu">(x, w, {bias}, z) }}"""
    after, _ = applied(DecomposeFusedConvolution(), contrib_model(text, w=floats(4, 2, 1, 1), b=floats(4)))
    assert operators(after) == {"Conv": 1, "Add": 1, "Relu": 1}


def test_channels_last_convolution_keeps_its_numbers() -> None:
    """The data is channels-last, the filter is not; ONNX Runtime has no float kernel of it for this CPU."""
    text = """g (float[2,5,6,3] x, float[2,3,4,4] z) => (float[2,3,4,4] y) {
        y = com.microsoft.NhwcFusedConv<activation = "Relu">(x, w, b, z) }"""
    w, b, x, z = floats(4, 3, 3, 3), floats(4), floats(2, 5, 6, 3), floats(2, 3, 4, 4)
    after, _ = DecomposeFusedConvolution().run(contrib_model(text, w=w, b=b))
    onnx.checker.check_model(after, full_check=True)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    expected = np.maximum(np.einsum("nhwcij,mcij->nhwm", windows, w) + b + z, 0)
    (found,) = ReferenceEvaluator(after).run(None, {"x": x, "z": z})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_channels_last_pooling_keeps_its_numbers(dtype: str) -> None:
    """Integers are pooled exactly, with padding."""
    text = f"""g ({dtype}[2,5,6,3] x) => ({dtype}[2,h,w,3] y) {{
        y = com.microsoft.NhwcMaxPool<kernel_shape = [3,2], pads = [1,0,1,1], strides = [2,1]>(x) }}"""
    model = contrib_model(text)
    limits = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(limits.min, limits.max, (2, 5, 6, 3), dtype)
    after, _ = applied(DecomposeFusedConvolution(), model, feeds_of(model, x=x))
    assert is_standard(after)


def test_unknown_activation_is_declined() -> None:
    """An activation function of nobody's is named in the report."""
    text = 'g (float[1,2,5,5] x) => (float[1,4,5,5] y) { y = com.microsoft.FusedConv<activation = "Magic">(x, w) }'
    after, report = DecomposeFusedConvolution().run(model := contrib_model(text, w=floats(4, 2, 1, 1)))
    assert after is model
    assert "'Magic'" in report.declined[0].why


@pytest.mark.parametrize("operator", ["FusedMatMul", "TransposeMatMul"])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_fused_matmul_keeps_its_numbers(operator: str, trans_a: int, trans_b: int) -> None:
    """Transposed operands and alpha, for dynamic batch sizes."""
    a, b = ("n,5,3" if trans_a else "n,3,5"), ("n,4,5" if trans_b else "n,5,4")
    text = f"""g (float[{a}] a, float[{b}] b) => (float[n,3,4] y) {{
        y = com.microsoft.{operator}<transA = {trans_a}, transB = {trans_b}, alpha = 0.3>(a, b) }}"""
    after, _ = applied(DecomposeFusedMatmul(), contrib_model(text, opset=11))
    assert is_standard(after)
    assert operators(after).get("Transpose", 0) == trans_a + trans_b


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_batch_transposed_matmul_keeps_its_numbers(trans_a: int, trans_b: int) -> None:
    """The first axis moves behind the batch axes before the last two are exchanged."""
    a, b = ("5,2,6,3" if trans_a else "3,2,6,5"), ("4,2,6,5" if trans_b else "5,2,6,4")
    text = f"""g (float[{a}] a, float[{b}] b) => (float[2,6,p,q] y) {{
        y = com.microsoft.FusedMatMul<transA = {trans_a}, transB = {trans_b}, transBatchA = 1, transBatchB = 1>(a, b)
        }}"""
    after, _ = applied(DecomposeFusedMatmul(), contrib_model(text))
    assert is_standard(after)


@pytest.mark.parametrize(("activation", "alpha"), [("Relu", None), ("LeakyRelu", 0.3), ("Tanh", None), ("Elu", 0.4)])
@pytest.mark.parametrize("third", [", c", ""])
def test_fused_gemm_keeps_its_numbers(activation: str, alpha: float | None, third: str) -> None:
    """Gemm's own attributes and the activation function with its parameter."""
    told = f", activation_alpha = {alpha}" if alpha else ""
    text = f"""g (float[n,5] a) => (float[n,4] y) {{ y = com.microsoft.FusedGemm<
        activation = "{activation}"{told}, alpha = 0.5, beta = 2.0, transB = 1>(a, b{third}) }}"""
    after, _ = applied(DecomposeFusedMatmul(), contrib_model(text, opset=11, b=floats(4, 5), c=floats(4)))
    assert operators(after) == {"Gemm": 1, activation: 1}


def test_vector_operand_is_not_transposed() -> None:
    """A vector has no last two axes."""
    text = (
        "g (float[5] a, float[4,5] b) => (float[4] y) { y = com.microsoft.FusedMatMul<transA = 1, transB = 1>(a, b) }"
    )
    after, _ = applied(DecomposeFusedMatmul(), contrib_model(text))
    assert operators(after) == {"Transpose": 1, "MatMul": 1}


def test_optimised_file_of_onnx_runtime_becomes_standard_again(tmp_path: Path) -> None:
    """What ONNX Runtime's own optimiser wrote, at the level without hardware-specific layouts, is undone."""
    model = model_of(
        """g (float[1,3,8,8] x) => (float[1,8,64] y) {
           c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) d = Conv<pads = [1,1,1,1]>(r, v) s = Add(d, r) t = Relu(s)
           q = Reshape(t, shape) qt = Transpose<perm = [0,2,1]>(q) m = MatMul(qt, q) k = Mul(m, scale)
           n = MatMul(q, k) y = Relu(n) }""",
        w=floats(8, 3, 3, 3),
        v=floats(8, 8, 3, 3),
        shape=np.array([1, 8, 64]),
        scale=np.float32(0.125),
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(options.optimized_model_filepath)
    assert operators(optimised)["com.microsoft::FusedConv"] == 1
    assert "com.microsoft::FusedMatMul" in operators(optimised)
    once, _ = applied(DecomposeFusedConvolution(), optimised, random_samples(model))
    twice, _ = applied(DecomposeFusedMatmul(), once, random_samples(model))
    assert is_standard(twice)


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            DecomposeFusedConvolution(),
            """g (float[1,2,4,4] x, float[1,4,4,4] z) => (float[1,4,4,4] y) {
               y = com.microsoft.FusedConv<activation = "Clip", activation_params = [0.0, 6.0]>(x, w, b, z) }""",
        ),
        (
            DecomposeFusedConvolution(),
            "g (float[1,4,4,2] x) => (float[1,4,4,4] y) { y = com.microsoft.NhwcConv(x, w, b) }",
        ),
        (
            DecomposeFusedConvolution(),
            "g (int8[1,4,4,2] x) => (int8[1,3,3,2] y) { y = com.microsoft.NhwcMaxPool<kernel_shape = [2,2]>(x) }",
        ),
        (
            DecomposeFusedMatmul(),
            """g (float[2,5,3] x, float[2,4,5] z) => (float[2,3,4] y) {
               y = com.microsoft.FusedMatMul<transA = 1, transB = 1, alpha = 0.5>(x, z) }""",
        ),
        (
            DecomposeFusedMatmul(),
            """g (float[2,4] x, float[4,4] z) => (float[2,4] y) {
               y = com.microsoft.FusedGemm<activation = "Relu">(x, z, b) }""",
        ),
    ],
)
def test_fusions_become_buildable(entry: Pass, text: str) -> None:
    """TensorRT-RTX refuses the operators and takes what the passes write."""
    model = contrib_model(text, w=floats(4, 2, 1, 1), b=floats(4))
    assert refused_by(model)
    assert not refused_by(entry.run(model)[0])
