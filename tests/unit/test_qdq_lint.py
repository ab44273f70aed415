"""What the lint says of small graphs, rule by rule, and what it lets this package write."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import model_of, node, pooled, residual_block, two_branches_into_a_concat
from lint_models import CASES, GRID, network, pair, tail, two
from onnx import TensorProto, helper

from trt_opt.errors import RequestError, StageError
from trt_opt.quantize.lint import RULES, chosen_rules, findings_of, require_clean
from trt_opt.values.calibration import TensorRange

T = np.array(0.05, np.float32)


def rules(model: onnx.ModelProto) -> set[str]:
    """The rules that the model breaks."""
    return {entry.rule for entry in findings_of(model)}


def severities(model: onnx.ModelProto, rule: str) -> list[str]:
    """How bad the rule's findings are."""
    return [entry.severity for entry in findings_of(model) if entry.rule == rule]


@pytest.mark.parametrize("make", [residual_block, two_branches_into_a_concat, pooled])
def test_what_this_package_quantises_breaks_no_rule(make: object) -> None:
    """Sums, concatenations, pools and data movement between INT8 layers are as TensorRT wants them."""
    model = make()  # type: ignore[operator]
    assert not rules(model)
    taken = requantized_of(model)
    assert not rules(taken)
    require_clean(taken)


def requantized_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float model quantised by this package, with made-up ranges."""
    from trt_opt.quantize.stage import PrecisionRequest, float_graph, quantized_graph

    graph = float_graph(model, PrecisionRequest(method="static"))
    ranges = {name: TensorRange(-3.0, 3.0, 3.0, 1) for name in graph.taps.all}
    return quantized_graph(graph, ranges).model


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_must_be_positive(scale: float) -> None:
    """Zero and negative scales are found."""
    assert "scale-not-positive" in rules(network(s=np.float32(scale)))


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_scale_must_be_finite(scale: float) -> None:
    """NaN and infinite scales are found, and only as such."""
    found = rules(network(s=np.float32(scale)))
    assert "scale-not-finite" in found
    assert "scale-not-positive" not in found


def test_an_fp16_scale_must_be_normal_in_fp16() -> None:
    """What float32 holds precisely FP16 may not."""
    halves = [
        node("Cast", "half", ["x"], "a", to=TensorProto.FLOAT16),
        *pair("x", "a", "b", "hs"),
        node("Cast", "single", ["b"], "xd", to=TensorProto.FLOAT),
    ]
    assert "scale-subnormal" in rules(network(halves, hs=np.float16(3e-5)))
    assert "scale-subnormal" not in rules(network(s=np.float32(3e-5)))


def test_one_finding_for_a_pair_of_uint8() -> None:
    """UINT8 around 128 is refused, UINT8 from 0 is misread: one of the two is said."""
    assert rules(network(z=np.uint8(0))) == {"uint8-read-as-int8"}
    assert rules(network(z=np.uint8(128))) == {"zero-point-not-zero"}


def test_a_quantizer_of_int8_weights_needs_no_zero_point() -> None:
    """The type of stored integers says what they are."""
    model = network()
    del next(entry for entry in model.graph.node if entry.name == "w_dq").input[2:]
    assert not rules(model)


def test_the_type_may_be_an_attribute() -> None:
    """From opset 21 a QuantizeLinear names its type instead of a zero-point."""
    told = pair("x", "x", "xd", zero="")
    told[0].attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert not rules(network(told, opset=21))


def test_zero_points_are_seen_through_identities_and_casts() -> None:
    """As PyTorch writes them: one initialiser behind Identity, zeros cast from a fill."""
    front = [
        node("Identity", "same", ["kept"], "zero"),
        *pair("x", "x", "xd", zero="zero"),
    ]
    assert rules(network(front, kept=np.int8(5))) == {"zero-point-not-zero"}
    filled = [
        node("ConstantOfShape", "fill", ["no_shape"], "floats"),
        node("Cast", "cast", ["floats"], "zero", to=TensorProto.INT8),
        *pair("x", "x", "xd", zero="zero"),
    ]
    assert not rules(network(filled, no_shape=np.zeros(0, np.int64)))


def test_blocked_weights_have_an_axis_of_their_own() -> None:
    """A scale per block of the reduction axis is not a scale per channel."""
    blocked = node("DequantizeLinear", "w_dq", ["i", "ws", "wz"], "wd", axis=0, block_size=16)
    constants = {"i": np.ones((32, 16), np.int8), "ws": np.ones((2, 16), np.float32), "wz": np.zeros((2, 16), np.int8)}
    model = model_of([blocked, node("MatMul", "m", ["x", "wd"], "y")], {"x": [4, 32]}, {"y": [4, 16]}, constants, 21)
    assert not rules(model)


@pytest.mark.parametrize(("axis", "permutation", "is_wrong"), [(0, [1, 0], False), (1, [1, 0], True)])
def test_the_axis_is_followed_through_a_transposition(axis: int, permutation: list[int], is_wrong: bool) -> None:
    """PyTorch stores a Linear's weights [out, in] and transposes them."""
    constants = {**GRID, "i": np.ones((32, 32), np.int8), "ws": np.ones(32, np.float32), "wz": np.zeros(32, np.int8)}
    nodes = [
        *pair("x", "x", "xd"),
        node("DequantizeLinear", "w_dq", ["i", "ws", "wz"], "wd", axis=axis),
        node("Transpose", "t", ["wd"], "wt", perm=permutation),
        node("MatMul", "m", ["xd", "wt"], "y"),
    ]
    assert ("weights-axis-wrong" in rules(model_of(nodes, {"x": [4, 32]}, {"y": [4, 32]}, constants))) == is_wrong


def test_a_pair_nobody_reads_is_an_error() -> None:
    """One that float operators read only costs accuracy."""
    idle = [*pair("x", "x", "xd"), *pair("idle", "x", "unread")]
    assert severities(network(idle), "orphan-pair") == ["error"]
    assert severities(CASES["orphan-pair"].bad(), "orphan-pair") == ["warning"]


def test_a_pair_on_the_weights_branch_alone_is_an_orphan() -> None:
    """A convolution whose weights are float runs in float, whatever its input went through."""
    nodes = [*pair("x", "x", "xd"), node("Conv", "conv", ["xd", "w"], "y")]
    model = model_of(nodes, {"x": [1, 4, 8, 8]}, {"y": [1, 4, 8, 8]}, {**GRID, "w": np.ones((4, 4, 1, 1), np.float32)})
    assert rules(model) == {"orphan-pair"}


def test_data_movement_between_equal_grids_is_wanted() -> None:
    """MaxPool runs in INT8 there; with another grid behind it, each element is rounded twice."""
    for scale, expected in ((T, set()), (T * 2, {"double-quantization"})):
        nodes = [
            *pair("mid", "h", "hd", "t"),
            node("MaxPool", "pool", ["hd"], "r", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            *pair("behind", "r", "rd", "u"),
            node("DequantizeLinear", "v_dq", ["v_i", "v_s", "v_z"], "vd", axis=0),
            node("Conv", "conv2", ["rd", "vd"], "y", pads=[1, 1, 1, 1]),
        ]
        assert rules(tail(*nodes, t=T, u=scale)) == expected


def test_integers_may_be_given_out_and_fed() -> None:
    """An INT8 output is no torn pair; INT8 that a Cast reads is."""
    model = two()
    model.graph.node.extend(pair("last", "y", "end", "t")[:1])
    model.graph.output.append(helper.make_tensor_value_info("end_q", TensorProto.INT8, [1, 16, 8, 8]))
    assert not rules(model)
    model.graph.node.append(node("Cast", "cast", ["end_q"], "bytes", to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("bytes", TensorProto.FLOAT, [1, 16, 8, 8]))
    assert rules(model) == {"pair-torn"}


def test_operators_on_integers_are_found_in_subgraphs() -> None:
    """Both branches of an If are looked into; nodes of one name are told apart."""
    branch = helper.make_graph(
        [node("MatMulInteger", "inner", ["a", "a"], "b")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.INT32, None)],
    )
    choose = node("If", "if", ["flag"], "y", then_branch=branch, else_branch=branch)
    constants = {"a": np.ones((2, 2), np.int8), "flag": np.array(True)}
    model = model_of([choose], {}, {}, constants)
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.INT32, None))
    found = [entry.node for entry in findings_of(model) if entry.rule == "qoperator-leftover"]
    assert found == ["inner", "inner_2"]


def test_ranges_tell_what_fp16_would_overflow() -> None:
    """Without them constants alone are judged."""
    model = CASES["fp16-overflow-risk"].good()
    assert not rules(model)
    ranges = {"x": TensorRange(-1, 1, None, 1), "a": TensorRange(-1e5, 1e5, None, 1)}
    found = findings_of(model, ranges=ranges)
    assert {entry.node for entry in found} == {"scale", "conv"}
    assert {entry.rule for entry in found} == {"fp16-overflow-risk"}


def test_a_broken_graph_is_refused_by_node() -> None:
    """The error names rule and node."""
    with pytest.raises(StageError, match=r"x_q.*zero-point-not-zero"):
        require_clean(network(z=np.int8(1)))


@pytest.mark.parametrize("rule", RULES)
def test_only_what_is_wrong_is_refused(rule: str) -> None:
    """Errors are refused, and Concats that this package would never write; what only costs is not."""
    model = CASES[rule].bad()
    worst = {entry.severity for entry in findings_of(model)}
    if "error" in worst or rule.startswith("concat-"):
        with pytest.raises(StageError):
            require_clean(model)
    else:
        require_clean(model)


def test_rules_are_chosen_by_name() -> None:
    """An unknown name gets a guess; nothing left to check is a mistake."""
    assert [rule.name for rule in chosen_rules(["orphan-pair"])] == ["orphan-pair"]
    assert "orphan-pair" not in {rule.name for rule in chosen_rules((), ["orphan-pair"])}
    with pytest.raises(RequestError, match="did you mean orphan-pair"):
        chosen_rules(["orphans-pair"])
    with pytest.raises(RequestError, match="no rule is left"):
        chosen_rules(["orphan-pair"], ["orphan-pair"])


def test_every_rule_says_what_why_and_what_to_do() -> None:
    """Names are in kebab-case; a rule without a reason is no rule."""
    for name, rule in RULES.items():
        about = rule.about
        assert name == about.name == name.lower().replace("_", "-")
        assert about.summary
        assert len(about.why) > 30
        assert about.remedy


def test_the_bounds_of_a_clip_may_be_beyond_fp16() -> None:
    """They saturate without a change; the operand of a sum does not."""
    constants = {"low": np.array(0, np.float32), "high": np.array(3e38, np.float32)}
    clip = model_of([node("Clip", "clip", ["x", "low", "high"], "y")], {"x": [1, 2]}, {"y": [1, 2]}, constants)
    assert not rules(clip)
    add = model_of([node("Add", "add", ["x", "high"], "y")], {"x": [1, 2]}, {"y": [1, 2]}, constants)
    assert rules(add) == {"fp16-overflow-risk"}
