"""ONNX Runtime's RotaryEmbedding and GroupQueryAttention."""

from __future__ import annotations

import numpy as np
import pytest
from contrib_models import contrib_model, feeds_of, is_standard
from onnx import ModelProto
from passes_models import applied, floats, refused_by

from trt_opt.passes.contrib.decompose_grouped_query_attention import DecomposeGroupedQueryAttention
from trt_opt.passes.contrib.decompose_rotary_embedding import DecomposeRotaryEmbedding

ANGLES = np.arange(20)[:, None] * 0.3 ** np.arange(4)
FULL = {"c": np.cos(ANGLES).astype(np.float32), "s": np.sin(ANGLES).astype(np.float32)}
WIDE = {name: np.concatenate([values, values[::-1]], 1) for name, values in FULL.items()}
PARTIAL = {name: values[:, :2].copy() for name, values in FULL.items()}


def rotary(shape: str, positions: str = "int64[n,t] p", *, told: str = "", partial: bool = False) -> ModelProto:
    """A model of one RotaryEmbedding."""
    text = f"""g (float[{shape}] x, {positions}) => (float[{shape}] y) {{
        y = com.microsoft.RotaryEmbedding{f"<{told}>" if told else ""}(x, p, c, s) }}"""
    return contrib_model(text, **(PARTIAL if partial else FULL))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(
    ("shape", "told", "partial"),
    [
        ("n,3,16", "", False),
        ("n,2,3,8", "", False),
        ("n,t,16", "", False),
        ("n,2,t,8", "", False),
        ("n,3,16", ", num_heads = 2, rotary_embedding_dim = 4", True),
        ("n,2,3,8", ", num_heads = 2, rotary_embedding_dim = 4", True),
    ],
)
def test_rotation_keeps_its_numbers(shape: str, told: str, partial: bool, single: bool, interleaved: int) -> None:
    """Flat and by head, of fixed and dynamic length, whole and in part, for single positions and for all of them."""
    positions = "int64[1] p" if single else "int64[n,t] p"
    model = rotary(shape, positions, told=f"interleaved = {interleaved}{told}", partial=partial)
    sizes = [{"n": 2, "t": 3}.get(size) or int(size) for size in shape.split(",")]
    place = np.array([5]) if single else np.array([[0, 1, 2], [9, 4, 19]])
    after, _ = applied(DecomposeRotaryEmbedding(), model, feeds_of(model, x=floats(*sizes), p=place))
    assert is_standard(after)


def test_partial_rotation_without_heads_is_declined() -> None:
    """Without the number of heads it is not known where a head ends."""
    _, report = DecomposeRotaryEmbedding().run(rotary("n,3,16", told="rotary_embedding_dim = 4", partial=True))
    assert "size of a head" in report.declined[0].why


def grouped(inputs: str, arguments: str, *, width: int = 64, **attributes: float) -> ModelProto:
    """A model of one GroupQueryAttention: four heads of sixteen, two of them for each of keys and values."""
    told = {"num_heads": 4, "kv_num_heads": 2, **attributes}
    text = f"""g ({inputs}, int32[2] l) => (float[2,t,{width}] y, float[2,2,t,16] d, float[2,2,t,16] e) {{
        y, d, e = com.microsoft.GroupQueryAttention<{", ".join(f"{name} = {value}" for name, value in told.items())}>
            ({arguments}) }}"""
    return contrib_model(text, total=np.int32(3), **WIDE)


SINGLE = "float[2,t,64] q, float[2,t,32] k, float[2,t,32] v"


@pytest.mark.parametrize("length", ["t", "3"])
@pytest.mark.parametrize(
    ("inputs", "arguments", "attributes"),
    [
        (SINGLE, "q, k, v, , , l, total", {}),
        (SINGLE, "q, k, v, , , l, total", {"scale": 0.2, "softcap": 1.5}),
        (SINGLE, "q, k, v, , , l, total", {"local_window_size": 2}),
        (SINGLE, "q, k, v, , , l, total, c, s", {"do_rotary": 1}),
        (SINGLE, "q, k, v, , , l, total, c, s", {"do_rotary": 1, "rotary_interleaved": 1}),
        ("float[2,t,128] q", "q, , , , , l, total", {}),
        (f"{SINGLE}, float[1,1,t,t] a", "q, k, v, , , l, total, , , , a", {}),
    ],
)
def test_grouped_attention_keeps_its_numbers(
    inputs: str, arguments: str, attributes: dict[str, float], length: str
) -> None:
    """Single and packed inputs, rotation, windows, capped and added scores, of fixed and dynamic length."""
    model = grouped(inputs.replace("t", length).replace("floa" + length, "float"), arguments, **attributes)
    shapes = {"q": (2, 3, 128 if "128" in inputs else 64), "k": (2, 3, 32), "v": (2, 3, 32), "a": (1, 1, 3, 3)}
    given = {name: floats(*shape, seed=len(shape) + ord(name)) for name, shape in shapes.items()}
    samples = feeds_of(model, l=np.array([2, 2], np.int32), **given)
    after, _ = applied(DecomposeGroupedQueryAttention(), model, samples)
    assert is_standard(after)


@pytest.mark.parametrize(
    ("arguments", "attributes", "reason"),
    [
        ("q, k, v, past, past, l, total", {}, "without a cache"),
        ("q, k, v, , , l, total", {"causal": 0}, "not causal"),
        ("q, k, v, , , l, total", {"smooth_softmax": 1}, "not written out"),
    ],
)
def test_special_grouped_attention_is_declined(arguments: str, attributes: dict[str, float], reason: str) -> None:
    """What has no counterpart stays, and the report says why."""
    model = grouped(f"{SINGLE}, float[2,2,p,16] past", arguments, **attributes)
    assert reason in DecomposeGroupedQueryAttention().run(model)[1].declined[0].why


@pytest.mark.rtx
def test_rotary_attention_becomes_buildable() -> None:
    """TensorRT-RTX refuses a single position and attention without a past, and takes what the passes write."""
    single = rotary("2,2,3,8", "int64[1] p", told="interleaved = 1")
    attention = grouped(SINGLE.replace(",t,", ",3,"), "q, k, v, , , l, total, c, s", do_rotary=1, local_window_size=2)
    for entry, model in ((DecomposeRotaryEmbedding(), single), (DecomposeGroupedQueryAttention(), attention)):
        assert refused_by(model)
        assert not refused_by(entry.run(model)[0])
