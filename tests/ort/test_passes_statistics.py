"""Normalisations that give or take their statistics."""

from __future__ import annotations

import numpy as np
import pytest
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.layers.batch_statistics import BatchStatistics
from trt_opt.passes.layers.layer_normalization_statistics import LayerNormalizationStatistics

LAYER = """g ({dtype}[N,3,4] x, {dtype}[{sizes}] s, {dtype}[{sizes}] b)
    => ({dtype}[N,3,4] y, float[N,{kept}] m, float[N,{kept}] d)
    {{ y, m, d = LayerNormalization<axis = {axis}, epsilon = 0.01>(x, s, b) }}"""

BATCH = """g ({dtype}[2,3,4] x) => ({dtype}[2,3,4] y, {dtype}[3] m, {dtype}[3] v) {{
    y, m, v = BatchNormalization<training_mode = 1, momentum = 0.7, epsilon = 0.01>(x, scale, bias, mean, var) }}"""


def layer(axis: int = -1, dtype: str = "float") -> str:
    """A graph of one LayerNormalization with three outputs."""
    sizes, kept = ("4", "3,1") if axis == -1 else ("3,4", "1,1")
    return LAYER.format(axis=axis, dtype=dtype, sizes=sizes, kept=kept)


def parameters(dtype: str = "float32") -> dict[str, np.ndarray]:
    """What BatchNormalization reads per channel."""
    names = ("scale", "bias", "mean", "var")
    return {name: np.abs(floats(3, seed=seed)).astype(dtype) for seed, name in enumerate(names)}


@pytest.mark.parametrize("axis", [-1, 1, -2])
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_layer_statistics_keep_their_numbers(axis: int, dtype: str) -> None:
    """Mean and inverse deviation come in float32 whatever the input; the layer stays one node."""
    after, _ = applied(LayerNormalizationStatistics(), model_of(layer(axis, dtype)))
    assert operators(after)["LayerNormalization"] == 1
    assert operators(after)["ReduceMean"] == 2
    assert not any(len(node.output) > 1 for node in after.graph.node)


def test_unread_layer_statistics_go() -> None:
    """Outputs that nobody reads leave nothing behind."""
    text = "g (float[2,4] x, float[4] s) => (float[2,4] y) { y, m, d = LayerNormalization(x, s) }"
    after, _ = applied(LayerNormalizationStatistics(), model_of(text))
    assert operators(after) == {"LayerNormalization": 1}


def test_deviation_without_mean() -> None:
    """The inverse deviation is there where the mean has no name."""
    text = "g (float[2,4] x, float[4] s) => (float[2,4] y, float[2,1] d) { y, , d = LayerNormalization(x, s) }"
    after, _ = applied(LayerNormalizationStatistics(), model_of(text))
    assert operators(after)["ReduceMean"] == 2


def test_layer_with_one_output_is_left_alone() -> None:
    """That is the form TensorRT takes."""
    text = "g (float[2,4] x, float[4] s) => (float[2,4] y) { y = LayerNormalization(x, s) }"
    after, report = LayerNormalizationStatistics().run(model := model_of(text))
    assert after is model
    assert not report.declined


@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
def test_batch_statistics_keep_their_numbers(dtype: str) -> None:
    """The batch normalises itself, and the running statistics move towards it."""
    kind = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    model = model_of(BATCH.format(dtype=dtype), **parameters(kind))
    after, report = applied(BatchStatistics(), model)
    assert "BatchNormalization" not in operators(after)
    assert len(report.changed) == 1


def test_batch_statistics_inside_a_branch() -> None:
    """A branch's node reads the tensors around it."""
    text = """g (bool c, float[N,3] x) => (float[N,3] y) { y = If(c) <
        then_branch = a () => (float[N,3] l) { l = BatchNormalization<training_mode = 1>(x, scale, bias, mean, var) },
        else_branch = b () => (float[N,3] l2) { l2 = Neg(x) }> }"""
    model = model_of(text, **parameters())
    after, _ = applied(BatchStatistics(), model)
    assert "BatchNormalization" not in operators(after)


def test_batch_normalization_for_inference_is_left_alone() -> None:
    """Without training_mode the node stays."""
    text = "g (float[2,3] x) => (float[2,3] y) { y = BatchNormalization(x, scale, bias, mean, var) }"
    after, report = BatchStatistics().run(model := model_of(text, **parameters()))
    assert after is model
    assert "training mode" in report.declined[0].why


@pytest.mark.rtx
def test_statistics_become_buildable() -> None:
    """TensorRT-RTX refuses both and takes what the passes write."""
    one, other = model_of(layer().replace("N,", "2,")), model_of(BATCH.format(dtype="float"), **parameters())
    assert refused_by(one)
    assert refused_by(other)
    assert not refused_by(LayerNormalizationStatistics().run(one)[0])
    assert not refused_by(BatchStatistics().run(other)[0])
