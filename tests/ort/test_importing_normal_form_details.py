"""Constants, scales found at run time, pairs that say nothing, and what is declined."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ort.normal_form_checks import assert_in_normal_form, assert_same_numbers, brought
from ort.test_importing_normal_form_operators import (
    COLUMNS,
    CONV,
    IMAGE,
    MATRIX,
    MOVES,
    ROWS,
    WEIGHTS,
    fed,
    integers,
    model_of,
    node,
)
from ort_session import outputs_of

from trt_opt.graph.query import opset

SIGNED = {"s": np.float32(0.05), "z": np.int8(0), "uz8": np.uint8(0)}


def kinds_of(model: onnx.ModelProto) -> list[str]:
    """The operators, in order."""
    return [entry.op_type for entry in model.graph.node]


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    """An initialiser."""
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


def test_a_model_in_normal_form_comes_back_itself() -> None:
    """One pair, weights behind a DequantizeLinear, a float bias."""
    constants = {**COLUMNS, "bias": np.ones(5, np.float32)}
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "d"),
        node("DequantizeLinear", "w ws wz", "v", axis=0),
        node("Gemm", "d v bias", "y", transB=1),
    ]
    source = model_of(nodes, ROWS, constants)
    found = brought(source)
    assert found.model is source
    assert (found.changed, found.declined, found.kinds) == ((), (), ("Q/DQ",))


def test_constant_nodes_identities_and_missing_zero_points_become_initialisers() -> None:
    """A scale of shape [1] out of Constant, Identity and Cast, and no zero-point, which means UINT8 0."""
    scale = node("Constant", "", "c", value=numpy_helper.from_array(np.array([0.05], np.float64)))
    nodes = [
        scale,
        node("Cast", "c", "f", to=TensorProto.FLOAT),
        node("Identity", "f", "scale"),
        node("QuantizeLinear", "x scale", "q"),
        node("DequantizeLinear", "q scale", "y"),
    ]
    source = model_of(nodes, ROWS, {})
    found = brought(source)
    assert_in_normal_form(found.model)
    assert kinds_of(found.model) == ["QuantizeLinear", "DequantizeLinear"]
    zero = stored(found.model, found.model.graph.node[0].input[2])
    assert (zero.dtype, int(zero)) == (np.uint8, 0)
    assert_same_numbers(source, found.model, [ROWS])


def test_several_dequantize_linear_of_one_tensor_become_one() -> None:
    """Both branches of a residual block read the same pair then."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "d"),
        node("DequantizeLinear", "q xs xz", "e"),
        node("Add", "d e", "y"),
    ]
    source = model_of(nodes, ROWS, {})
    found = brought(source)
    assert_in_normal_form(found.model)
    assert kinds_of(found.model) == ["QuantizeLinear", "DequantizeLinear", "Add"]
    assert_same_numbers(source, found.model, [ROWS])


@pytest.mark.parametrize("second", ["xs xz", "us uz"])
def test_a_pair_behind_a_pair_goes_if_its_grid_is_the_same(second: str) -> None:
    """Another grid rounds once more, and stays."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "d"),
        node("QuantizeLinear", f"d {second}", "r"),
        node("DequantizeLinear", f"r {second}", "y"),
    ]
    source = model_of(nodes, ROWS, {})
    found = brought(source)
    assert_in_normal_form(found.model)
    assert kinds_of(found.model).count("QuantizeLinear") == (1 if second == "xs xz" else 2)
    assert_same_numbers(source, found.model, [ROWS])


def test_float_weights_between_quantisers_are_rounded_as_onnx_says() -> None:
    """Half to even, and saturating: fake-quantised weights, behind a Transpose, are stored as INT8."""
    weights = np.array([[0.5, 1.5, 2.5, -0.5], [126.5, 127.5, 300, -300]], np.float32).repeat(2, axis=1)
    constants = {"w": weights, "s": np.ones(2, np.float32), "z": np.zeros(2, np.int8)}
    nodes = [
        node("QuantizeLinear", "w s z", "q", axis=0),
        node("DequantizeLinear", "q s z", "d", axis=0),
        node("Transpose", "d", "t", perm=[1, 0]),
        node("MatMul", "x t", "y"),
    ]
    source = model_of(nodes, ROWS, constants)
    found = brought(source)
    assert_in_normal_form(found.model)
    assert kinds_of(found.model) == ["DequantizeLinear", "MatMul"]
    kept = found.model.graph.node[0]
    assert helper.get_node_attr_value(kept, "axis") == 1
    assert stored(found.model, kept.input[0])[::2].T.tolist() == [[0, 2, 2, 0], [126, 127, 127, -128]]
    assert_same_numbers(source, found.model, [ROWS], 1e-6)


def test_int32_biases_become_floats() -> None:
    """With one scale per channel and one zero-point for all."""
    constants = {**COLUMNS, "bs": np.linspace(0.001, 0.002, 5).astype(np.float32), "bz": np.int32(0)}
    nodes = [
        node("DequantizeLinear", "w ws wz", "v", axis=0),
        node("DequantizeLinear", "b bs bz", "bias", axis=0),
        node("Gemm", "x v bias", "y", transB=1),
    ]
    constants["bz"] = np.zeros(5, np.int32)
    source = model_of(nodes, ROWS, constants)
    found = brought(source)
    assert_in_normal_form(found.model)
    assert stored(found.model, "bias").dtype == np.float32
    assert_same_numbers(source, found.model, [ROWS])


@pytest.mark.parametrize(("low", "high", "left"), [(-127, 127, 0), (-128, 127, 0), (-20, 50, 1)])
def test_clips_of_integers_go_or_move_to_the_floats(low: int, high: int, left: int) -> None:
    """PyTorch's narrow range costs one step at most, and says so; a real Clip stands before the QuantizeLinear."""
    constants = {**SIGNED, "low": np.int8(low), "high": np.int8(high)}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("Clip", "q low high", "c"),
        node("DequantizeLinear", "c s z", "y"),
    ]
    source = model_of(nodes, ROWS, constants)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert kinds_of(found.model).count("Clip") == left
    assert any("one step" in change.what for change in found.changed) == (low == -127)
    assert_same_numbers(source, found.model, [ROWS], 0 if low != -127 else 1 / 127)


def test_relu_of_integers_clips_the_floats() -> None:
    """max(q, 0) of INT8 is a lower bound of -zero_point steps."""
    constants = {"s": np.float32(0.05), "z": np.int8(-7)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("Relu", "q", "r"), node("DequantizeLinear", "r s z", "y")]
    source = model_of(nodes, ROWS, constants)
    found = brought(source)
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [ROWS], 1e-6)


DYNAMIC = node("DynamicQuantizeLinear", "x", "q")
DYNAMIC.output.extend(["qs", "qz"])


def integer_matmul(*behind: onnx.NodeProto) -> onnx.ModelProto:
    """DynamicQuantizeLinear and MatMulInteger with per-column weights, and what follows them."""
    constants = {**MATRIX, "ws": np.linspace(0.01, 0.03, 5).astype(np.float32), "bias": np.ones(5, np.float32)}
    nodes = [DYNAMIC, node("MatMulInteger", "q w qz wz", "p"), node("Cast", "p", "f", to=TensorProto.FLOAT)]
    return model_of([*nodes, *behind], ROWS, constants)


@pytest.mark.parametrize(
    "behind",
    [
        [node("Mul", "qs ws", "t"), node("Mul", "f t", "g"), node("Add", "g bias", "y")],
        [node("Mul", "f ws", "g"), node("Mul", "qs g", "y")],
        [node("Mul", "f qs", "g"), node("Mul", "g ws", "y")],
    ],
    ids=["scales_first", "weights_first", "activation_first"],
)
def test_scales_found_at_run_time_are_recognised_in_any_order(behind: list[onnx.NodeProto]) -> None:
    """The product reads floats; the activation's rounding is dropped, which the report says."""
    source = integer_matmul(*behind)
    found = brought(source)
    assert found.declined == ()
    assert found.kinds == ("dynamic",)
    assert_in_normal_form(found.model)
    assert any("no longer rounded" in change.what for change in found.changed)
    assert "MatMul" in kinds_of(found.model)
    assert_same_numbers(source, found.model, [ROWS], 0.02)


def test_products_without_their_scale_stay() -> None:
    """A MatMulInteger whose result is used as it is is declined by name, and nothing is changed."""
    source = integer_matmul(node("Mul", "f ws", "y"))
    found = brought(source)
    assert found.model is source
    assert "MatMulInteger_p" in {decline.node for decline in found.declined}


def test_products_with_a_zero_point_of_their_own_stay() -> None:
    """MatMulInteger that subtracts another zero-point than its operand's is no product of what was quantised."""
    nodes = [
        DYNAMIC,
        node("MatMulInteger", "q w xz wz", "p"),
        node("Cast", "p", "f", to=TensorProto.FLOAT),
        node("Mul", "f qs", "y"),
    ]
    source = model_of(nodes, ROWS, MATRIX)
    found = brought(source)
    assert found.model is source
    assert "its zero-point is not that of its operand" in {decline.why for decline in found.declined}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("has_zero_points", [True, False])
def test_products_in_blocks_keep_their_numbers(bits: int, has_zero_points: bool) -> None:
    """MatMulNBits with a last block that is not full; without zero-points the integers become signed."""
    constants = {
        "w": integers(6, 2, 2 * bits, dtype=np.uint8),
        "s": np.linspace(0.01, 0.02, 12).astype(np.float32).reshape(6, 2),
        "z": integers(6, 2 * bits // 8, dtype=np.uint8),
        "bias": np.ones(6, np.float32),
    }
    zero = "z" if has_zero_points else "-"
    product = node("MatMulNBits", f"x w s {zero} - bias", "y", K=24, N=6, bits=bits, block_size=16)
    feed = {"x": np.random.default_rng(2).normal(0, 1, (3, 24)).astype(np.float32)}
    source = model_of([product], feed, constants)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    kept = next(tensor for tensor in found.model.graph.initializer if tensor.name == found.model.graph.node[0].input[0])
    names = {4: ("UINT4", "INT4"), 8: ("UINT8", "INT8")}[bits]
    assert TensorProto.DataType.Name(kept.data_type) == names[0 if has_zero_points else 1]
    assert_same_numbers(source, found.model, [feed], 1e-5)


def test_products_in_blocks_stay_where_the_opset_cannot_rise() -> None:
    """Another operator of ONNX Runtime's keeps the model at its opset; the product is declined, nothing is lost."""
    constants = {"w": integers(6, 1, 16, dtype=np.uint8), "s": np.full((6, 1), 0.01, np.float32)}
    nodes = [node("QuickGelu", "x", "g"), node("MatMulNBits", "g w s", "y", K=32, N=6, bits=4, block_size=32)]
    source = model_of(nodes, {"x": np.zeros((3, 32), np.float32)}, constants)
    found = brought(source)
    assert found.model is source
    assert [decline.node for decline in found.declined] == ["MatMulNBits_y"]


def test_integer_products_of_constant_grids_are_exact() -> None:
    """MatMulInteger of a QuantizeLinear's integers keeps the pair."""
    constants = {**MATRIX, "both": np.float32(0.0007)}
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("MatMulInteger", "q w xz wz", "p"),
        node("Cast", "p", "f", to=TensorProto.FLOAT),
        node("Mul", "f both", "y"),
    ]
    source = model_of(nodes, ROWS, constants)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [ROWS], 1e-6)


@pytest.mark.parametrize("is_fused", [True, False])
def test_onnx_runtimes_fused_products_become_matmul(is_fused: bool) -> None:
    """DynamicQuantizeMatMul and MatMulIntegerToFloat with a bias."""
    constants = {**MATRIX, "bias": np.ones(5, np.float32)}
    fused = node("DynamicQuantizeMatMul", "x w ws wz bias", "y")
    parts = [DYNAMIC, node("MatMulIntegerToFloat", "q w qs ws qz wz bias", "y")]
    source = model_of([fused] if is_fused else parts, ROWS, constants)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [ROWS], 0.02)


def test_dynamic_convolution_keeps_scales_per_channel() -> None:
    """ConvInteger, whose factor [1, C, 1, 1] becomes the scales of its weights."""
    constants = {**WEIGHTS, "ws": np.linspace(0.004, 0.01, 5).astype(np.float32).reshape(1, 5, 1, 1)}
    nodes = [
        DYNAMIC,
        node("ConvInteger", "q w qz wz", "p", pads=[1, 1, 1, 1]),
        node("Cast", "p", "f", to=TensorProto.FLOAT),
        node("Mul", "qs ws", "t"),
        node("Mul", "f t", "y"),
    ]
    source = model_of(nodes, IMAGE, constants)
    found = brought(source)
    assert_in_normal_form(found.model)
    assert kinds_of(found.model) == ["DequantizeLinear", "Conv"]
    assert_same_numbers(source, found.model, [fed(source, IMAGE)], 0.02)


def test_factors_behind_a_convolution_go_into_the_scales() -> None:
    """What quantisation-aware training leaves: Div, BatchNormalization with a negative factor, a constant Add."""
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.integers(-127, 127, (5, 4, 3, 3), dtype=np.int8),
        "s": np.float32(0.01),
        "z": np.int8(0),
        "std": rng.uniform(0.5, 2, (1, 5, 1, 1)).astype(np.float32),
        "gamma": np.array([1, -2, 0.5, 3, 0], np.float32),
        "beta": rng.normal(0, 1, 5).astype(np.float32),
        "mean": rng.normal(0, 1, 5).astype(np.float32),
        "var": rng.uniform(0.5, 2, 5).astype(np.float32),
        "c": rng.normal(0, 1, (5, 1, 1)).astype(np.float32),
    }
    nodes = [
        node("DequantizeLinear", "w s z", "v"),
        node("Conv", "x v", "a"),
        node("Div", "a std", "b"),
        node("BatchNormalization", "b gamma beta mean var", "n"),
        node("Add", "n c", "m"),
        node("Relu", "m", "y"),
    ]
    source = model_of(nodes, IMAGE, constants)
    found = brought(source)
    assert_in_normal_form(found.model)
    assert kinds_of(found.model) == ["DequantizeLinear", "Conv", "Relu"]
    assert_same_numbers(source, found.model, [fed(source, IMAGE)], 1e-5)


def test_weights_per_channel_raise_the_opset() -> None:
    """QLinearConv is of opset 10; DequantizeLinear takes one scale per channel from 13 on."""
    per_channel = {"ws": np.linspace(0.004, 0.01, 5).astype(np.float32), "wz": np.full(5, 130, np.uint8)}
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("QLinearConv", CONV, "r"),
        node("QLinearAdd", "r ys yz r ys yz us uz", "s"),
        node("DequantizeLinear", "s us uz", "y"),
    ]
    source = model_of(nodes, IMAGE, {**WEIGHTS, **per_channel}, opset=10)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert found.model.opset_import[0].version == 13
    assert_same_numbers(source, found.model, [fed(source, IMAGE)], 0.01)


def test_scales_known_at_run_time_are_declined() -> None:
    """The pair stays as it is."""
    nodes = [
        node("ReduceMax", "x", "s", keepdims=0),
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "y"),
    ]
    source = model_of(nodes, ROWS, {"z": np.int8(0)})
    found = brought(source)
    assert found.model is source
    assert [decline.node for decline in found.declined] == ["QuantizeLinear_q", "DequantizeLinear_y"]
    assert all("run time" in decline.why for decline in found.declined)


def test_integers_read_by_others_are_declined() -> None:
    """A Cast to INT32 of the integers has no float form; what can be rewritten beside it is."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("Transpose", "q", "t", perm=[1, 0]),
        node("Cast", "t", "i", to=TensorProto.INT32),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("DequantizeLinear", "t xs xz", "d"),
        node("Add", "f d", "y"),
    ]
    source = model_of(nodes, ROWS, {})
    found = brought(source)
    assert [decline.why for decline in found.declined] == ["Cast 'Cast_i' reads its integers"]
    assert_same_numbers(source, found.model, [ROWS], 1e-6)


def test_quantised_subgraphs_are_declined_by_name() -> None:
    """The branches of an If stay as they are, and may read integers from outside."""
    branches = {}
    for name, factor in (("then_branch", 2.0), ("else_branch", 3.0)):
        nodes = [
            helper.make_node("DequantizeLinear", ["q", "xs", "xz"], [f"{name}_d"]),
            helper.make_node("Mul", [f"{name}_d", f"{name}_f"], [name]),
        ]
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 8])
        held = numpy_helper.from_array(np.float32(factor), f"{name}_f")
        branches[name] = helper.make_graph(nodes, name, [], [result], [held])
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "d"),
        node("ReduceMax", "d", "m", keepdims=0),
        node("Cast", "m", "c", to=TensorProto.BOOL),
        node("If", "c", "y", **branches),
    ]
    source = model_of(nodes, ROWS, {})
    found = brought(source)
    assert "If_y" in {decline.node for decline in found.declined}
    assert_same_numbers(source, found.model, [ROWS])


def test_operators_without_a_float_form_are_declined() -> None:
    """DynamicQuantizeLSTM."""
    lstm = node("DynamicQuantizeLSTM", "x w r - - - - - ws wz rs rz", "y", hidden_size=4)
    constants = {
        "w": integers(1, 8, 16),
        "r": integers(1, 4, 16),
        "ws": np.full(1, 0.01, np.float32),
        "wz": np.zeros(1, np.int8),
        "rs": np.full(1, 0.01, np.float32),
        "rz": np.zeros(1, np.int8),
    }
    source = model_of([lstm], {"x": ROWS["x"][None]}, constants)
    found = brought(source)
    assert found.model is source
    assert [(decline.node, "DynamicQuantizeLSTM" in decline.why) for decline in found.declined] == [(lstm.name, True)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pairs_of_onnx_runtimes_domain_become_onnxs(dtype: type) -> None:
    """Those of 16 bits from opset 21 on."""
    constants = {"s": np.float32(0.01), "z": np.asarray(100, dtype)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    for entry in nodes:
        entry.domain = "com.microsoft"
    source = model_of(nodes, ROWS, constants, opset=17 if dtype is np.uint8 else 21)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [ROWS])


def test_sixteen_bits_below_opset_21_raise_the_opset() -> None:
    """ONNX has no 16-bit pairs below it."""
    constants = {"s": np.float32(0.01), "z": np.uint16(100)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    for entry in nodes:
        entry.domain = "com.microsoft"
    source = model_of(nodes, ROWS, constants, opset=17)
    found = brought(source)
    assert found.declined == ()
    assert opset(found.model) == 21
    assert {entry.domain for entry in found.model.graph.node} == {""}
    assert_same_numbers(source, found.model, [ROWS])


def test_embeddings_of_integers_are_stored_weights() -> None:
    """A Gather out of an INT8 table: the table is dequantised, on the grid its reader tells."""
    constants = {"table": integers(10, 4), "s": np.float32(0.02), "z": np.int8(5)}
    nodes = [node("Gather", "table at", "g"), node("DequantizeLinear", "g s z", "y")]
    feed = {"at": np.array([3, 1, 9])}
    source = model_of(nodes, feed, constants)
    found = brought(source)
    assert kinds_of(found.model) == ["DequantizeLinear", "Gather"]
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [feed])


def test_an_output_that_is_also_read_inside_stays() -> None:
    """Moved integers that are a graph output and read on: both get what they had."""
    nodes, _ = MOVES["transpose"]
    both = [node("QuantizeLinear", "x xs xz", "q"), *nodes, node("DequantizeLinear", "z xs xz", "y")]
    source = model_of(both, IMAGE, {}, {"y": TensorProto.FLOAT, "z": TensorProto.UINT8})
    found = brought(source)
    assert outputs_of(found.model, fed(source, IMAGE))["z"].dtype == np.uint8
    assert_same_numbers(source, found.model, [fed(source, IMAGE)], 1e-7)
