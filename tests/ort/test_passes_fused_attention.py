"""ONNX Runtime's attention operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contrib_models import contrib_model, feeds_of, is_standard
from onnx import ModelProto
from passes_models import applied, floats, operators, refused_by

from trt_opt.passes.contrib.decompose_embedding_normalization import DecomposeEmbeddingNormalization
from trt_opt.passes.contrib.decompose_multi_head_attention import DecomposeMultiHeadAttention
from trt_opt.passes.contrib.decompose_packed_attention import DecomposePackedAttention
from trt_opt.passes.verification import run_model

RAGGED = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
MASKS = {
    "int32[n,4] m": RAGGED,
    "int32[2] m": np.array([3, 2], np.int32),
    "int32[4] m": np.array([4, 3, 1, 0], np.int32),
    "int32[n,4,4] m": np.stack([np.tril(np.ones((4, 4), np.int32)), np.ones((4, 4), np.int32)]),
}


def attention(
    inputs: str, arguments: str, *, opset: int = 17, outputs: str = "float[n,4,8] y", **attributes: float
) -> ModelProto:
    """A model of one Attention of two heads with packed weights."""
    told = ", ".join(f"{name} = {value}" for name, value in {"num_heads": 2, **attributes}.items())
    names = ", ".join(output.split()[-1] for output in outputs.split(";"))
    text = f"""g ({inputs}) => ({outputs.replace(";", ",")}) {{
        {names} = com.microsoft.Attention<{told}>({arguments}) }}"""
    return contrib_model(text, opset=opset, w=floats(6, 24), b=floats(24))


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", [*MASKS, None])
def test_attention_keeps_its_numbers(mask: str | None, unidirectional: int, opset: int) -> None:
    """Every form of mask, causal and not; a mask of lengths needs the batch size."""
    batch = "2" if mask in {"int32[2] m", "int32[4] m"} else "n"
    inputs = f"float[{batch},4,6] x" + (f", {mask}" if mask else "")
    model = attention(inputs, "x, w, b, m" if mask else "x, w, b", unidirectional=unidirectional, opset=opset)
    samples = feeds_of(model, **({"m": MASKS[mask]} if mask else {}))
    after, _ = applied(DecomposePackedAttention(), model, samples)
    assert is_standard(after)
    assert operators(after)["Softmax"] == 1


@pytest.mark.parametrize("sequence", ["4", "s"])
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention_with_past_keeps_its_numbers(sequence: str, unidirectional: int) -> None:
    """Keys and values of the past come first, and are handed on with the new ones, for fixed and dynamic lengths."""
    past = "3" if sequence == "4" else "p"
    inputs = f"float[n,{sequence},6] x, float[2,n,2,{past},4] past"
    outputs = f"float[n,{sequence},8] y; float[2,n,2,t,4] present"
    model = attention(inputs, "x, w, b, , past", unidirectional=unidirectional, outputs=outputs)
    given = {"x": floats(2, 4, 6), "past": floats(2, 2, 2, 3, 4)}
    after, _ = applied(DecomposePackedAttention(), model, feeds_of(model, **given))
    assert is_standard(after)


def test_attention_of_values_of_another_width_keeps_its_numbers() -> None:
    """The widths of queries, keys and values may be given; the filter value too."""
    text = """g (float[n,4,6] x, int32[n,4] m) => (float[n,4,4] y) {
        y = com.microsoft.Attention<num_heads = 2, qkv_hidden_sizes = [8,8,4], mask_filter_value = -3.0>(x, w, b, m)
        }"""
    model = contrib_model(text, w=floats(6, 20), b=floats(20))
    applied(DecomposePackedAttention(), model, feeds_of(model, m=RAGGED))


def test_scores_given_are_added() -> None:
    """What is given to be added to the scores is broadcast over the batch."""
    model = attention("float[n,4,6] x, int32[n,4] m, float[1,2,4,4] extra", "x, w, b, m, , extra", scale=0.3)
    applied(DecomposePackedAttention(), model, feeds_of(model, m=RAGGED))


def test_lengths_of_dynamic_batch_are_told_by_its_name() -> None:
    """A mask as long as the dynamic batch holds lengths; one of another name may be anything, and is declined."""
    model = attention("float[n,4,6] x, int32[n] m", "x, w, b, m")
    applied(DecomposePackedAttention(), model, feeds_of(model, m=MASKS["int32[2] m"]))
    _, report = DecomposePackedAttention().run(attention("float[n,4,6] x, int32[k] m", "x, w, b, m"))
    assert "fix the batch size" in report.declined[0].why


def test_mask_index_of_dynamic_embedding_is_understood() -> None:
    """The mask index that EmbedLayerNormalization counts has the batch as its length: after it, Attention goes too."""
    text = """g (int32[n,4] ids, int32[n,4] mask) => (float[n,4,8] y) {
        e, i = com.microsoft.EmbedLayerNormalization<mask_index_type = 1>(ids, , words, places, , s, s, mask)
        y = com.microsoft.Attention<num_heads = 2>(e, w, b, i) }"""
    model = contrib_model(text, words=floats(9, 6), places=floats(9, 6), s=floats(6), w=floats(6, 24), b=floats(24))
    samples = feeds_of(model, ids=np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32), mask=RAGGED)
    once, _ = applied(DecomposeEmbeddingNormalization(), model, samples)
    twice, _ = applied(DecomposePackedAttention(), once, samples)
    assert is_standard(twice)


@pytest.mark.parametrize(
    ("attributes", "reason"), [({"do_rotary": 1}, "rotary"), ({"past_present_share_buffer": 1}, "buffer")]
)
def test_special_attention_is_declined(attributes: dict[str, int], reason: str) -> None:
    """What has no counterpart stays, and the report says why."""
    _, report = DecomposePackedAttention().run(attention("float[n,4,6] x", "x, w, b", **attributes))
    assert reason in report.declined[0].why


def multi_head(inputs: str, arguments: str, *, outputs: str = "float[n,4,8] y", **attributes: float) -> ModelProto:
    """A model of one MultiHeadAttention of two heads of four."""
    told = ", ".join(f"{name} = {value}" for name, value in {"num_heads": 2, **attributes}.items())
    names = ", ".join(output.split()[-1] for output in outputs.split(";"))
    text = f"""g ({inputs}) => ({outputs.replace(";", ",")}) {{
        {names} = com.microsoft.MultiHeadAttention<{told}>({arguments}) }}"""
    return contrib_model(text, b=floats(24))


THREE = "float[n,4,8] q, float[n,4,8] k, float[n,4,8] v"


@pytest.mark.parametrize(
    ("inputs", "arguments"),
    [
        (THREE, "q, k, v"),
        (THREE, "q, k, v, b"),
        (f"{THREE}, int32[n,4] m", "q, k, v, b, m"),
        (f"{THREE}, int32[n,4,4] m", "q, k, v, , m"),
        (f"{THREE}, float[1,2,4,4] a", "q, k, v, b, , a"),
        ("float[n,4,8] q, float[n,2,3,4] k, float[n,2,3,4] v", "q, k, v"),
        ("float[n,4,8] q, float[n,3,8] k, float[n,3,8] v", "q, k, v"),
        (THREE.replace("n,", "2,") + ", int32[2] m", "q, k, v, b, m"),
    ],
)
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_attention_keeps_its_numbers(inputs: str, arguments: str, unidirectional: int) -> None:
    """With bias, masks, added scores, the past, keys laid out by head, and keys of another length; causal and not."""
    model = multi_head(inputs, arguments, unidirectional=unidirectional)
    mask = next((MASKS[name.replace("m,", "n,")] for name in MASKS if name in inputs), None)
    after, _ = applied(DecomposeMultiHeadAttention(), model, feeds_of(model, **({} if mask is None else {"m": mask})))
    assert is_standard(after)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_present_keys_and_values_are_handed_on(unidirectional: int) -> None:
    """The second and third output are all keys and values by head, with the past and a scale of its own.

    ONNX Runtime 1.32 reads memory it never wrote where the past is given and the present not asked for.
    """
    inputs = f"{THREE}, float[n,2,3,4] pk, float[n,2,3,4] pv"
    outputs = "float[n,4,8] y; float[n,2,7,4] c; float[n,2,7,4] d"
    model = multi_head(inputs, "q, k, v, b, , , pk, pv", outputs=outputs, scale=0.7, unidirectional=unidirectional)
    applied(DecomposeMultiHeadAttention(), model)


@pytest.mark.parametrize("keys", ["5", "k"])
def test_causal_attention_over_longer_keys_is_declined(keys: str) -> None:
    """ONNX Runtime lets the last query look at all keys then, which is no causal mask."""
    inputs = f"float[n,4,8] q, float[n,{keys},8] k, float[n,{keys},8] v"
    _, report = DecomposeMultiHeadAttention().run(multi_head(inputs, "q, k, v", unidirectional=1))
    assert "more keys than queries" in report.declined[0].why
    applied(DecomposeMultiHeadAttention(), multi_head(inputs.replace("k,8", "6,8"), "q, k, v"))


@pytest.mark.parametrize("packed", ["qkv", "kv"])
def test_packed_inputs_are_taken_apart(packed: str) -> None:
    """Packed tensors give what the single ones do; ONNX Runtime takes these only on a GPU."""
    inputs, arguments = {
        "qkv": ("float[n,4,2,3,4] p", "p"),
        "kv": ("float[n,4,8] q, float[n,4,2,2,4] p", "q, p"),
    }[packed]
    after, _ = DecomposeMultiHeadAttention().run(multi_head(inputs, arguments))
    onnx.checker.check_model(after, full_check=True)
    parts = floats(2, 4, 2, 3, 4)
    q, k, v = (parts[:, :, :, place].reshape(2, 4, 8) for place in range(3))
    single = multi_head(THREE, "q, k, v")
    (expected,) = run_model(single, feeds_of(single, q=q, k=k, v=v))
    given = {"p": parts} if packed == "qkv" else {"q": q, "p": parts[:, :, :, 1:]}
    (found,) = run_model(after, feeds_of(after, **given))
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "outputs", "reason"),
    [
        ("q, , , b", "float[n,4,8] y", "bias"),
        ("q, k, v, , , , , , s", "float[n,4,8] y", "buffer"),
        ("q, k, v", "float[n,4,8] y; float[n,2,4,4] c; float[n,2,4,4] d; float[n,2,4,4] e", "scores"),
    ],
)
def test_special_multi_head_attention_is_declined(arguments: str, outputs: str, reason: str) -> None:
    """What has no counterpart stays, and the report says why."""
    _, report = DecomposeMultiHeadAttention().run(multi_head(THREE + ", int32 s", arguments, outputs=outputs))
    assert reason in report.declined[0].why


@pytest.mark.rtx
def test_attention_becomes_buildable() -> None:
    """TensorRT-RTX refuses Attention and takes what the pass writes."""
    model = attention("float[2,4,6] x, int32[2,4] m", "x, w, b, m", unidirectional=1)
    assert refused_by(model)
    assert not refused_by(DecomposePackedAttention().run(model)[0])


@pytest.mark.rtx
def test_multi_head_attention_becomes_buildable() -> None:
    """TensorRT-RTX takes what the pass writes; it crashes on the operator itself."""
    model = multi_head(THREE.replace("n,", "2,") + ", int32[2,4] m", "q, k, v, b, m", unidirectional=1)
    assert not refused_by(DecomposeMultiHeadAttention().run(model)[0])
