"""ONNX Runtime's layer normalisations, and its embedding of BERT."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contrib_models import contrib_model, feeds_of, is_standard
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, operators, refused_by

from trt_opt.passes.base import Pass
from trt_opt.passes.contrib.decompose_embedding_normalization import DecomposeEmbeddingNormalization
from trt_opt.passes.contrib.decompose_fused_layer_normalization import DecomposeFusedLayerNormalization
from trt_opt.passes.verification import run_model

WEIGHTS = {"s": floats(8), "b": floats(8, seed=1), "c": floats(8, seed=2)}


def normalization(
    call: str, *, opset: int = 17, dtype: str = "float", also: str = "", **weights: np.ndarray
) -> ModelProto:
    """A model of one node over x and k, of dynamic batch size."""
    text = f"g ({dtype}[n,3,8] x, {dtype}[n,3,8] k) => ({dtype}[n,3,8] y{also}) {{ {call} }}"
    given = {name: values.astype(np.float16) if dtype == "float16" else values for name, values in WEIGHTS.items()}
    return contrib_model(text, opset=opset, **{**given, **weights})


@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("arguments", ["x, k, s, b, c", "x, k, s, b", "x, k, s, , c", "x, k, s", "x, shared, s, b"])
def test_skip_layer_normalization_keeps_its_numbers(opset: int, arguments: str) -> None:
    """With and without shift and bias, with a skipped input of one row for all, and with the sum as an output."""
    call = f"y, m, d, t = com.microsoft.SkipLayerNormalization<epsilon = 0.1>({arguments})".replace("m, d", ", ")
    model = normalization(call, opset=opset, also=", float[n,3,8] t", shared=floats(3, 8))
    after, _ = applied(DecomposeFusedLayerNormalization(), model)
    assert is_standard(after)
    assert operators(after).get("LayerNormalization", 0) == (opset >= 17)


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("arguments", ["x, k, s, c", "x, k, s"])
def test_skip_rms_normalization_keeps_its_numbers(opset: int, arguments: str) -> None:
    """With and without bias, with the sum as an output."""
    call = f"y, , , t = com.microsoft.SkipSimplifiedLayerNormalization({arguments})"
    after, _ = applied(DecomposeFusedLayerNormalization(), normalization(call, opset=opset, also=", float[n,3,8] t"))
    assert is_standard(after)
    assert operators(after)["ReduceMean"] == 1


@pytest.mark.parametrize("axis", [-1, 1, -2])
def test_rms_normalization_in_the_standard_domain_keeps_its_numbers(axis: int) -> None:
    """What ONNX Runtime writes into the standard domain, over any axis."""
    scale = floats(8) if axis == -1 else floats(3, 8)
    after, _ = applied(
        DecomposeFusedLayerNormalization(),
        normalization(f"y = SimplifiedLayerNormalization<axis = {axis}>(x, w)", w=scale),
    )
    assert is_standard(after)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization_below_its_opset_keeps_its_numbers(axis: int) -> None:
    """LayerNormalization in a model of opset 11, with its mean and inverse deviation."""
    w, v = (floats(8), floats(8, seed=1)) if axis == -1 else (floats(3, 8), floats(3, 8, seed=1))
    call = f"y, m, d = LayerNormalization<axis = {axis}>(x, w, v)"
    also = ", float[n,p,1] m, float[n,p,1] d"
    after, _ = applied(DecomposeFusedLayerNormalization(), normalization(call, opset=11, also=also, w=w, v=v))
    assert is_standard(after)


def test_layer_normalization_of_its_own_opset_is_let_be() -> None:
    """From opset 17 on it is a standard operator."""
    model = normalization("y = LayerNormalization(x, s, b)")
    assert applied(DecomposeFusedLayerNormalization(), model)[0] is model


def test_float16_is_normalised_in_float32() -> None:
    """Squares that overflow float16 do not spoil the result."""
    model = normalization("y = com.microsoft.SkipSimplifiedLayerNormalization(x, k, s)", dtype="float16")
    after, _ = DecomposeFusedLayerNormalization().run(model)
    onnx.checker.check_model(after, full_check=True)
    x = (1000 * floats(2, 3, 8)).astype(np.float16)
    (found,) = ReferenceEvaluator(after).run(None, {"x": x, "k": np.zeros_like(x)})
    wide = x.astype(np.float32)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True)) * WEIGHTS["s"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_statistics_for_training_are_declined() -> None:
    """A mean that is read stays, and the report says why."""
    call = "y, m = com.microsoft.SkipLayerNormalization(x, k, s, b)"
    _, report = DecomposeFusedLayerNormalization().run(normalization(call, also=", float[n,3,1] m"))
    assert "only training" in report.declined[0].why


def embedding(arguments: str, *, dynamic: bool, outputs: str = "y", opset: int = 17) -> ModelProto:
    """A model of one EmbedLayerNormalization."""
    shape = "[n,t]" if dynamic else "[2,4]"
    ends = {"y": f"float[{shape[1:-1]},8] y", "i": "int32[q] i", "e": f"float[{shape[1:-1]},8] e"}
    wanted = ", ".join(ends[name] for name in outputs.replace(" ", "").split(",") if name)
    text = f"""g (int32{shape} ids, int32{shape} seg, int32{shape} mask, int32{shape} pos) => ({wanted})
               {{ {outputs} = com.microsoft.EmbedLayerNormalization<mask_index_type = 1>({arguments}) }}"""
    tables = {"words": floats(20, 8), "positions": floats(9, 8), "segments": floats(2, 8)}
    return contrib_model(text, opset=opset, gamma=floats(8), beta=floats(8), **tables)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        "ids, seg, words, positions, segments, gamma, beta, mask",
        "ids, , words, positions, , gamma, beta, mask",
        "ids, seg, words, positions, segments, gamma, beta, mask, pos",
        "ids, seg, words, positions, segments, gamma, beta",
    ],
)
def test_embedding_keeps_its_numbers(arguments: str, dynamic: bool, opset: int) -> None:
    """With and without segments, mask and positions, of fixed and of dynamic size, with all outputs."""
    model = embedding(arguments, dynamic=dynamic, outputs="y, i, e", opset=opset)
    feeds = {
        "ids": np.array([[3, 19, 0, 7], [1, 1, 2, 0]], np.int32),
        "seg": np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32),
        "mask": np.array([[1, 1, 1, 0], [1, 0, 2, 0]], np.int32),
        "pos": np.array([[8, 1, 3, 0], [0, 1, 2, 3]], np.int32),
    }
    after, _ = applied(DecomposeEmbeddingNormalization(), model, feeds_of(model, **feeds))
    assert is_standard(after)


def test_chain_of_skips_is_replaced_at_once() -> None:
    """Types known from the weights let a chain of fused operators go in one round."""
    call = """a = com.microsoft.SkipLayerNormalization(x, k, s, b)
              y = com.microsoft.SkipLayerNormalization(a, x, s, b)"""
    after, _ = applied(DecomposeFusedLayerNormalization(), normalization(call))
    assert operators(after) == {"Add": 2, "LayerNormalization": 2}


def test_normalization_in_branch() -> None:
    """Nodes inside an If are replaced too."""
    text = """g (bool cond, float[2,3,8] x) => (float[2,3,8] y) { y = If (cond) <
        then_branch = one () => (float[2,3,8] t) { t = com.microsoft.SkipLayerNormalization(x, x, s, b) },
        else_branch = two () => (float[2,3,8] e) { e = Relu(x) }> }"""
    after, _ = applied(DecomposeFusedLayerNormalization(), contrib_model(text, **WEIGHTS))
    assert is_standard(after)


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("entry", "model"),
    [
        (
            DecomposeFusedLayerNormalization(),
            contrib_model(
                """g (float[2,3,8] x) => (float[2,3,8] y) {
                   a = com.microsoft.SkipLayerNormalization(x, x, s, b)
                   y = com.microsoft.SkipSimplifiedLayerNormalization(a, x, s) }""",
                **WEIGHTS,
            ),
        ),
        (
            DecomposeEmbeddingNormalization(),
            embedding("ids, seg, words, positions, segments, gamma, beta, mask", dynamic=False, outputs="y, i"),
        ),
    ],
    ids=["skip", "embedding"],
)
def test_normalizations_become_buildable(entry: Pass, model: ModelProto) -> None:
    """TensorRT-RTX refuses the operators and takes what the passes write."""
    assert refused_by(model)
    assert not refused_by(entry.run(model)[0])


def test_dynamic_embedding_follows_the_length() -> None:
    """The rows of the position table are as many as the sequence is long, whatever its length."""
    model = embedding("ids, seg, words, positions, segments, gamma, beta", dynamic=True, outputs="y, i")
    after, _ = DecomposeEmbeddingNormalization().run(model)
    for length in (1, 9):
        ids = np.ones((3, length), np.int32)
        samples = feeds_of(model, ids=ids, seg=0 * ids, mask=ids, pos=ids)
        np.testing.assert_allclose(run_model(after, samples)[0]["y"], run_model(model, samples)[0]["y"], atol=1e-5)
