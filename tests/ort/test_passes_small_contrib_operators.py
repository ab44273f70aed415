"""ONNX Runtime's small operators, and its group normalisations."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contrib_models import contrib_model, is_standard
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, operators, refused_by

from trt_opt.passes.contrib.decompose_fused_group_normalization import DecomposeFusedGroupNormalization
from trt_opt.passes.contrib.decompose_small_contrib_operators import DecomposeSmallContribOperators

CONSTANTS = {
    "axis": np.int32(1),
    "pads": np.array([0, 1, -1, 2]),
    "pads2": np.array([[0, 1, -1, 2]]),
    "fill": np.array([3.0], np.float32),
    "rows": np.array([[1], [0]]),
    "rows32": np.array([[1], [0]], np.int32),
    "zero": np.array([0], np.float32),
    "four": np.array([4], np.float32),
    "step": np.float32(2),
    "k": np.int64(1),
    "off": np.bool_(False),
    "bias": floats(4),
}


@pytest.mark.parametrize(
    ("call", "shape", "expected"),
    [
        ("ExpandDims(x, axis)", "3,4", {"Unsqueeze": 1}),
        ("CDist(x, x)", "3,4", None),
        ('CDist<metric = "euclidean">(x, bias2)', "n,4", None),
        ("UnfoldTensor<size = 2, step = 2>(x)", "n,5", {"Gather": 1, "Transpose": 1}),
        ("UnfoldTensor<size = 3, dim = 0>(x)", "5,4", {"Gather": 1, "Transpose": 1}),
        ("SampleOp(x)", "n,4", {"Identity": 1}),
        ("Pad(x, pads)", "3,4", {"Pad": 1}),
        ("Pad(x, pads2, fill)", "n,4", {"Pad": 1, "Reshape": 2}),
        ('Pad<mode = "edge">(x, pads)', "3,4", {"Pad": 1}),
        ("GatherND(x, rows)", "n,4", {"GatherND": 1}),
        ("GatherND(x, rows32)", "n,4", {"GatherND": 1, "Cast": 1}),
        ("Trilu(x)", "3,4", {"Trilu": 1}),
        ("Trilu<upper = 0>(x, k)", "3,4", {"Trilu": 1}),
    ],
)
def test_small_operators_keep_their_numbers(call: str, shape: str, expected: dict[str, int] | None) -> None:
    """Every operator that ONNX Runtime has a kernel of, with its attributes."""
    rank = "p,q,r" if call.startswith(("ExpandDims", "Unfold")) else "p,q"
    text = f"g (float[{shape}] x) => (float[{rank}] y) {{ y = com.microsoft.{call} }}"
    model = contrib_model(text, **CONSTANTS, bias2=floats(5, 4))
    after, _ = applied(DecomposeSmallContribOperators(), model)
    assert is_standard(after)
    assert expected is None or operators(after) == expected


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("opset", [16, 20])
def test_grid_sample_keeps_its_numbers(mode: str, opset: int) -> None:
    """The modes are named as the opset names them."""
    text = f"""g (float[1,2,4,4] x, float[1,3,3,2] grid) => (float[1,2,3,3] y) {{
        y = com.microsoft.GridSample<mode = "{mode}", align_corners = 1, padding_mode = "border">(x, grid) }}"""
    after, _ = applied(DecomposeSmallContribOperators(), contrib_model(text, opset=opset))
    assert operators(after) == {"GridSample": 1}


@pytest.mark.parametrize("ends", ["zero, four", "zero, four, step"])
def test_range_keeps_its_numbers(ends: str) -> None:
    """The step may be left out, and all may be of rank 1."""
    text = f"g (float[4] x) => (float[n] y) {{ r = com.microsoft.Range({ends}) s = Identity(r) y = Neg(s) }}"
    after, _ = applied(DecomposeSmallContribOperators(), contrib_model(text, **CONSTANTS))
    assert is_standard(after)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("BiasAdd(x, bias, s)", lambda x, r: x + CONSTANTS["bias"] + r),
        ("BiasDropout(x, bias, s)", lambda x, r: x + CONSTANTS["bias"] + r),
        ("BiasDropout(x, bias, , step, off)", lambda x, _: x + CONSTANTS["bias"]),
        ("ComplexMul(x2, r2)", lambda x, r: parts(pairs(x) * pairs(r))),
        ("ComplexMulConj(x2, r2)", lambda x, r: parts(pairs(x) * pairs(r).conj())),
        ("TorchEmbedding(x, rows)", lambda x, _: x[CONSTANTS["rows"]]),
    ],
)
def test_small_operators_without_kernels_follow_their_definition(call: str, expected: object) -> None:
    """Operators that ONNX Runtime has kernels of for other processors only."""
    rank = "p,q" if call.startswith("Bias") else "p,q,r"
    text = f"""g (float[3,4] x, float[3,4] s) => (float[{rank}] y) {{
        x2 = Reshape(x, two) r2 = Reshape(s, two) y = com.microsoft.{call} }}"""
    model = contrib_model(text, **CONSTANTS, two=np.array([3, 2, 2]))
    after, _ = DecomposeSmallContribOperators().run(model)
    onnx.checker.check_model(after, full_check=True)
    assert is_standard(after)
    x, r = floats(3, 4), floats(3, 4, seed=1)
    (found,) = ReferenceEvaluator(after).run(None, {"x": x, "s": r})
    np.testing.assert_allclose(found, expected(x, r), rtol=1e-5, atol=1e-6)  # type: ignore[operator]


def pairs(values: np.ndarray) -> np.ndarray:
    """Neighbouring numbers as the parts of complex ones."""
    return values.reshape(3, 2, 2)[..., 0] + 1j * values.reshape(3, 2, 2)[..., 1]


def parts(values: np.ndarray) -> np.ndarray:
    """Complex numbers as their two parts."""
    return np.stack([values.real, values.imag], -1)


def test_mask_of_dropout_is_true() -> None:
    """In inference nothing is dropped, and the mask says so."""
    text = "g (float[n,4] x) => (float[n,4] y, bool[n,4] m) { y, m = com.microsoft.BiasDropout(x, bias) }"
    after, _ = DecomposeSmallContribOperators().run(contrib_model(text, **CONSTANTS))
    mask = ReferenceEvaluator(after).run(None, {"x": floats(2, 4)})[1]
    np.testing.assert_array_equal(mask, np.ones((2, 4), bool))


@pytest.mark.parametrize(
    ("call", "opset", "reason"),
    [
        ("BiasDropout(x, bias, , step, train)", 17, "inference"),
        ("ExpandDims(x, where)", 17, "--freeze-input where="),
        ("Trilu(x)", 13, "opset 13"),
        ("UnfoldTensor<size = 2, dim = 0>(x)", 17, "not static"),
        ('CDist<metric = "cosine">(x, x)', 17, "cosine"),
        ("CDist(big, big)", 17, "too many"),
    ],
)
def test_small_operators_decline_with_a_reason(call: str, opset: int, reason: str) -> None:
    """What cannot be written out stays, and the report says why."""
    text = f"""g (float[n,4] x, bool train, int32 where, float[9999,9999] big) => (float[n,4] y) {{
        y = com.microsoft.{call} }}"""
    after, report = DecomposeSmallContribOperators().run(model := contrib_model(text, opset=opset, **CONSTANTS))
    assert after is model
    assert reason in report.declined[0].why


def group_normalized(data: np.ndarray, groups: int) -> np.ndarray:
    """Channels-first group normalisation of [N, C, H, W]."""
    even = data.reshape(len(data), groups, -1)
    even = (even - even.mean(-1, keepdims=True)) / np.sqrt(even.var(-1, keepdims=True) + 1e-5)
    return even.reshape(data.shape)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("skip", [None, "4", "2", "4 and bias"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_group_normalization_keeps_its_numbers(last: int, activation: int, skip: str | None, dtype: str) -> None:
    """Both layouts, with what is skipped in all its shapes; ONNX Runtime has kernels for GPUs alone."""
    layout = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    x, k, bias = floats(2, 8, 3, 5), floats(2, 8, *((1, 1) if skip == "2" else (3, 5)), seed=1), floats(8, seed=2)
    kind = {"float32": "float", "float16": "float16"}[dtype]
    sizes = ",".join(str(size) for size in x.transpose(layout).shape)
    given = k[:, :, 0, 0] if skip == "2" else k.transpose(layout)
    arguments, name = "x, gamma, beta", "GroupNorm"
    if skip:
        arguments, name = f"{arguments}, k{', bias' if 'bias' in skip else ''}", "SkipGroupNorm"
    text = f"""g ({kind}[{sizes}] x, {kind}[{",".join(map(str, given.shape))}] k) => ({kind}[{sizes}] y) {{
        y = com.microsoft.{name}<groups = 2, activation = {activation}, channels_last = {last}>({arguments}) }}"""
    gamma, beta = floats(8, seed=3), floats(8, seed=4)
    model = contrib_model(text, gamma=gamma, beta=beta, bias=bias.astype(dtype))
    after, _ = DecomposeFusedGroupNormalization().run(model)
    onnx.checker.check_model(after, full_check=True)
    total = x + (k if skip else 0) + (bias[:, None, None] if skip and "bias" in skip else 0)
    expected = group_normalized(total, 2) * gamma[:, None, None] + beta[:, None, None]
    expected = expected / (1 + np.exp(-expected)) if activation else expected
    feed = {"x": x.transpose(layout).astype(dtype), "k": given.astype(dtype)}
    (found,) = ReferenceEvaluator(after).run(None, feed)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(found, expected.transpose(layout), atol=tolerance, rtol=tolerance)


@pytest.mark.rtx
def test_small_operators_become_buildable() -> None:
    """TensorRT-RTX refuses the operators and takes what the passes write."""
    text = """g (float[2,4,4,8] x, float[2,8] k) => (float[2,4,4,8] y, float[2,2] d) {
        y, t = com.microsoft.SkipGroupNorm<groups = 2, activation = 1>(x, gamma, beta, k, gamma)
        d = com.microsoft.CDist(k, k) }"""
    model = contrib_model(text, gamma=floats(8), beta=floats(8))
    assert refused_by(model)
    once, _ = DecomposeFusedGroupNormalization().run(model)
    assert not refused_by(DecomposeSmallContribOperators().run(once)[0])
