"""Every rule of the Q/DQ lint has a graph that breaks it, and a good graph breaks none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, node

from trt_opt.errors import StageError
from trt_opt.quantize.lint import findings_of, require_clean

GOOD = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}


def pair(name: str, source: str, target: str, scale: str = "scale", zero: str = "zero") -> list[onnx.NodeProto]:
    """A QuantizeLinear and its DequantizeLinear; an empty zero-point is left out."""
    tail = [scale] + ([zero] if zero else [])
    return [
        node("QuantizeLinear", f"{name}_q", [source, *tail], f"{target}_q", axis=1),
        node("DequantizeLinear", f"{name}_dq", [f"{target}_q", *tail], target, axis=1),
    ]


def rules(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> set[str]:
    """The rules a small graph breaks."""
    return {entry.rule for entry in findings_of(model_of(nodes, {"x": [1, 2]}, {"y": [1, 2]}, {**GOOD, **constants}))}


def test_a_good_pair_breaks_no_rule() -> None:
    """Constant positive scale, INT8 zero-point 0, read by its partner."""
    assert not rules(pair("p", "x", "y"))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_must_be_a_positive_number(scale: float) -> None:
    """Zero, negative, NaN and infinite scales are found."""
    assert "scale-not-positive" in rules(pair("p", "x", "y"), scale=np.array(scale, np.float32))


def test_a_scale_must_be_constant() -> None:
    """A scale computed at run time is found."""
    nodes = [node("ReduceMax", "max", ["x"], "scale_now", keepdims=0), *pair("p", "x", "y", scale="scale_now")]
    assert "scale-not-constant" in rules(nodes)


def test_an_activation_has_one_scale() -> None:
    """Two scales on an activation are found; the builder would take them."""
    scales = {"scale": np.array([0.1, 0.2], np.float32), "zero": np.zeros(2, np.int8)}
    assert rules(pair("p", "x", "y"), **scales) == {"per-channel-activation"}


def test_a_missing_zero_point_means_uint8() -> None:
    """Without a zero-point ONNX says UINT8 and TensorRT reads INT8."""
    assert "zero-point-missing" in rules(pair("p", "x", "y", zero=""))


def test_uint8_is_read_as_int8() -> None:
    """A UINT8 zero-point is found even if it is 0."""
    assert rules(pair("p", "x", "y"), zero=np.array(0, np.uint8)) == {"uint8-read-as-int8"}


def test_a_zero_point_must_be_zero() -> None:
    """Asymmetric quantisation is found."""
    assert rules(pair("p", "x", "y"), zero=np.array(3, np.int8)) == {"zero-point-not-zero"}


def test_an_int32_bias_is_refused() -> None:
    """A DequantizeLinear of INT32 is found."""
    nodes = [node("DequantizeLinear", "bias", ["b", "scale"], "c"), node("Add", "add", ["x", "c"], "y")]
    assert "int32-bias" in rules(nodes, b=np.array([1, 2], np.int32))


def test_a_pair_nobody_reads_is_found() -> None:
    """A dequantised tensor without a reader costs time and accuracy for nothing."""
    nodes = [*pair("p", "x", "z"), node("Relu", "relu", ["x"], "y")]
    assert rules(nodes) == {"orphan-pair"}


def test_a_torn_pair_is_found() -> None:
    """A quantised tensor that something else than DequantizeLinear reads is found."""
    nodes = [*pair("p", "x", "y"), node("Cast", "cast", ["y_q"], "z", to=onnx.TensorProto.FLOAT)]
    assert rules(nodes) == {"pair-torn"}


def test_the_inputs_of_a_concat_share_one_scale() -> None:
    """Two branches with different scales, or one without a pair, are found."""
    different = [
        *pair("p", "x", "a"),
        *pair("r", "x", "b", scale="other"),
        node("Concat", "concat", ["a", "b"], "y", axis=1),
    ]
    assert rules(different, other=np.array(0.3, np.float32)) == {"concat-scales-differ"}
    one_missing = [*pair("p", "x", "a"), node("Concat", "concat", ["a", "x"], "y", axis=1)]
    assert rules(one_missing) == {"concat-scales-differ"}


def test_a_broken_graph_is_refused_by_node() -> None:
    """The error names rule and node."""
    model = model_of(pair("p", "x", "y"), {"x": [1, 2]}, {"y": [1, 2]}, {**GOOD, "zero": np.array(1, np.int8)})
    with pytest.raises(StageError, match=r"p_q.*zero-point-not-zero"):
        require_clean(model)
