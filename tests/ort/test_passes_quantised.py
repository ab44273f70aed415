"""Quantised operators in float arithmetic, and quantised constants without zero-points."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.base import Pass
from trt_opt.passes.clean_up.fold_constants import FoldConstants
from trt_opt.passes.clean_up.fold_scale_and_bias import FoldScaleAndBias
from trt_opt.passes.clean_up.remove_dead_nodes import RemoveDeadNodes
from trt_opt.passes.node_pass import NodePass
from trt_opt.passes.quantised.emulate_dequantize_linear import EmulateDequantizeLinear
from trt_opt.passes.quantised.emulate_dynamic_quantize_linear import EmulateDynamicQuantizeLinear
from trt_opt.passes.quantised.emulate_quantize_linear import EmulateQuantizeLinear
from trt_opt.passes.quantised.emulate_quantized_conv import EmulateQuantizedConv
from trt_opt.passes.quantised.emulate_quantized_matmul import EmulateQuantizedMatMul
from trt_opt.passes.quantised.fp8_as_qdq import Fp8AsQdq
from trt_opt.passes.quantised.symmetric_weights import SymmetricWeights
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample

NUMPY = {"uint8": np.uint8, "int8": np.int8, "uint16": np.uint16, "int16": np.int16}


def quantised(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Integers over the whole range of a type."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)


def fed(**arrays: np.ndarray) -> list[Sample]:
    """One sample of these inputs."""
    return [Sample("fed", {name: np.asarray(values) for name, values in arrays.items()})]


def assert_same_integers(entry: Pass, model: ModelProto, samples: list[Sample]) -> dict[str, int]:
    """Applies the pass; integer outputs are equal to the last one, floats within the tolerance. Gives the operators."""
    after, report = applied(entry, model, samples)
    assert report.changed
    for sample in samples:
        before_outputs, after_outputs = run_model(model, [sample])[0], run_model(after, [sample])[0]
        for name, expected in before_outputs.items():
            if np.issubdtype(expected.dtype, np.integer):
                np.testing.assert_array_equal(after_outputs[name], expected)
    return operators(after)


def declined(entry: Pass, model: ModelProto) -> str:
    """Why the pass leaves the model as it is."""
    after, report = entry.run(model)
    assert after is model
    return report.declined[0].why


def in_then_branch(node: str, result: str, inputs: str) -> str:
    """A graph that computes `then` by the node where `c` holds, and else zeros of its shape."""
    return (
        f"g (bool c, {inputs}) => ({result} y) {{ y = If(c) <"
        f"then_branch = t () => ({result} then) {{ then = {node} }}, "
        f"else_branch = e () => ({result} other) {{ other = Identity(zeros) }}> }}"
    )


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("kind", ["one", "per axis", "blocks"])
def test_quantize_linear_keeps_its_integers(dtype: str, kind: str) -> None:
    """Every integer type and granularity gives the integers of ONNX Runtime, ties and saturated numbers included."""
    shape = {"one": (), "per axis": (6,), "blocks": (3, 2)}[kind]
    told = {"one": "", "per axis": "<axis = -1>", "blocks": "<axis = 1, block_size = 3>"}[kind]
    steps = np.full(shape, 0.5, np.float32) * np.arange(1, 1 + max(1, int(np.prod(shape))), dtype=np.float32).reshape(
        shape
    )
    zero = quantised(*shape, dtype=dtype, seed=3)
    text = f"g (float[3,6] x) => ({dtype}[3,6] y) {{ y = QuantizeLinear{told}(x, s, z) }}"
    model = model_of(text, opset=21, ir_version=10, s=steps, z=np.asarray(zero))
    x = np.round(floats(3, 6) * 300) / 4
    assert "QuantizeLinear" not in assert_same_integers(EmulateQuantizeLinear(), model, fed(x=x))


@pytest.mark.parametrize(("opset", "told"), [(21, ""), (23, ""), (23, "<precision = 1>")])
def test_quantize_linear_divides_in_the_precision_of_its_opset(opset: int, told: str) -> None:
    """FLOAT16 is divided in FLOAT up to opset 22, then in the scale's type unless `precision` says otherwise."""
    text = f"g (float16[500] x) => (int8[500] y) {{ y = QuantizeLinear{told}(x, s, z) }}"
    model = model_of(text, opset=opset, ir_version=10, s=np.float16(0.1), z=np.int8(1))
    assert_same_integers(EmulateQuantizeLinear(), model, fed(x=floats(500).astype(np.float16)))


def test_quantize_linear_with_zero_point_of_input_is_emulated() -> None:
    """Scale and zero-point may be graph inputs, and the batch dynamic."""
    text = "g (float[N,3] x, float[1] s, uint8[1] z) => (uint8[N,3] y) { y = QuantizeLinear(x, s, z) }"
    feed = fed(x=floats(2, 3), s=np.float32([0.1]), z=np.uint8([7]))
    assert_same_integers(EmulateQuantizeLinear(), model_of(text, opset=21, ir_version=10), feed)


@pytest.mark.parametrize(
    "node", ["QuantizeLinear(x, s)", "QuantizeLinear<output_dtype = 2>(x, s)", "QuantizeLinear(x, s, z)"]
)
def test_uint8_is_misread(node: str) -> None:
    """UINT8 with a zero-point of 0, or by default, is replaced though TensorRT does not refuse it; INT8 is not."""
    text = f"g (float[4] x) => (float[4] y) {{ q = {node} y = DequantizeLinear(q, s) }}"
    model = model_of(text, opset=21, ir_version=10, s=np.float32(0.1), z=np.uint8(0))
    nothing_refused = frozenset({"another"})
    after, _ = applied(EmulateQuantizeLinear(nothing_refused), model)
    after, _ = applied(EmulateDequantizeLinear(nothing_refused), after)
    assert set(operators(after)) == {"Div", "Round", "Clip", "Cast", "Mul"}
    model = model_of(text.replace("= 2", "= 3"), opset=21, ir_version=10, s=np.float32(0.1), z=np.int8(0))
    if node != "QuantizeLinear(x, s)":
        assert EmulateQuantizeLinear(nothing_refused).run(model)[0] is model
        assert EmulateDequantizeLinear(nothing_refused).run(model)[0] is model
        assert declined(EmulateQuantizeLinear(), model) == "TensorRT takes it as it is"
        assert declined(EmulateDequantizeLinear(), model) == "TensorRT takes it as it is"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("kind", ["one", "per axis", "blocks"])
def test_dequantize_linear_keeps_its_numbers(dtype: str, kind: str) -> None:
    """Every integer type and granularity gives the numbers of ONNX Runtime."""
    shape = {"one": (1,), "per axis": (3,), "blocks": (2, 6)}[kind]
    told = {"one": "", "per axis": "<axis = 0>", "blocks": "<axis = 0, block_size = 2>"}[kind]
    text = f"g ({dtype}[3,6] x) => (float[3,6] y) {{ y = DequantizeLinear{told}(x, s, z) }}"
    zero = quantised(*shape, dtype=dtype, seed=3)
    model = model_of(text, opset=21, ir_version=10, s=np.abs(floats(*shape)) + 0.1, z=zero)
    after, _ = applied(EmulateDequantizeLinear(), model, fed(x=quantised(3, 6, dtype=dtype)))
    assert operators(after) == {"Cast": 2, "Sub": 1, "Mul": 1}


def test_dequantize_linear_of_runtime_int32_is_a_cast_and_a_product() -> None:
    """INT32 needs no zero-point; FLOAT16 scales give FLOAT16."""
    text = "g (int32[5] x) => (float16[5] y) { y = DequantizeLinear(x, s) }"
    model = model_of(text, opset=21, ir_version=10, s=np.float16(0.25))
    after, _ = applied(EmulateDequantizeLinear(), model, fed(x=np.int32([-7, 0, 1, 2, 30000])))
    assert operators(after) == {"Cast": 2, "Mul": 1}


def test_narrow_floats_are_declined() -> None:
    """FP8 is left to TensorRT, which has it."""
    text = "g (float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    model = model_of(text, opset=21, ir_version=10, s=np.float32(1), z=np.zeros((), ml_dtypes.float8_e4m3fn))
    assert "float8e4m3fn" in declined(EmulateQuantizeLinear(), model)
    assert "float8e4m3fn" in declined(EmulateDequantizeLinear(), model)


@pytest.mark.parametrize("offset", [-3.0, 0.0, 5.0])
def test_dynamic_quantize_linear_keeps_its_integers(offset: float) -> None:
    """Ranges on both sides of 0, or on one side only, give the integers, scale and zero-point of ONNX Runtime."""
    text = "g (float[N,3] x) => (uint8[N,3] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }"
    feeds = fed(x=floats(4, 3) + np.float32(offset))
    made = assert_same_integers(EmulateDynamicQuantizeLinear(), model_of(text, opset=18), feeds)
    assert "DynamicQuantizeLinear" not in made


def test_dynamic_quantize_linear_of_zeros_has_a_scale_of_one() -> None:
    """What the standard leaves open is as in ONNX Runtime."""
    text = "g (float[3] x) => (uint8[3] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }"
    assert_same_integers(EmulateDynamicQuantizeLinear(), model_of(text, opset=18), fed(x=np.zeros(3, np.float32)))


QLINEAR_MATMUL = """g ({left}[N,{k}] a) => ({right}[N,3] y) {{
    y = QLinearMatMul(a, sa, za, b, sb, zb, sy, zy)
}}"""


@pytest.mark.parametrize(("left", "right"), [("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8")])
@pytest.mark.parametrize("length", [5, 2000])
def test_quantised_matmul_keeps_its_integers(left: str, right: str, length: int) -> None:
    """Scales and zero-points per column, and sums beyond 2^24, give the integers of ONNX Runtime."""
    text = QLINEAR_MATMUL.format(left=left, right=left, k=length)
    step = np.float32(0.01 * length)
    model = model_of(
        text,
        opset=18,
        **{"sa": np.float32(0.02), "za": quantised(dtype=left), "b": quantised(length, 3, dtype=right, seed=2)},
        **{"sb": np.float32([0.01, 0.02, 0.03]), "zb": quantised(3, dtype=right, seed=3)},
        **{"sy": step, "zy": quantised(dtype=left, seed=4)},
    )
    made = assert_same_integers(EmulateQuantizedMatMul(), model, fed(a=quantised(2, length, dtype=left, seed=5)))
    assert (made["MatMul"] == 1) == (length == 5)


def test_matmul_of_integers_is_exact_beyond_two_to_the_24th() -> None:
    """Sums of the largest products, odd ones among them, are exact in INT32 where a single MatMul would round them."""
    text = "g (uint8[1,300] a, uint8[300,2] b) => (int32[1,2] y) { y = MatMulInteger(a, b) }"
    feed = fed(a=np.full((1, 300), 255, np.uint8), b=np.full((300, 2), 255, np.uint8))
    made = assert_same_integers(EmulateQuantizedMatMul(), model_of(text, opset=18), feed)
    assert made["MatMul"] == 2


def test_matmul_of_integers_takes_zero_points_of_inputs() -> None:
    """Zero-points that are graph inputs, one of them per column, are subtracted at run time."""
    text = (
        "g (uint8[4,3] a, uint8[3,2] b, uint8[1] za, uint8[2] zb) => (int32[4,2] y) { y = MatMulInteger(a, b, za, zb) }"
    )
    feed = fed(a=quantised(4, 3), b=quantised(3, 2), za=np.uint8([9]), zb=np.uint8([1, 200]))
    assert_same_integers(EmulateQuantizedMatMul(), model_of(text, opset=18), feed)


def test_zero_points_of_rows_are_a_column() -> None:
    """A vector of zero-points of the left operand holds one per row (ONNX Runtime has no kernel for it)."""
    text = "g (uint8[2,3] a, uint8[3,2] b) => (int32[2,2] y) { y = MatMulInteger(a, b, za) }"
    model = model_of(text, opset=18, za=np.uint8([3, 90]))
    a, b = quantised(2, 3), quantised(3, 2, seed=1)
    after = EmulateQuantizedMatMul().run(model)[0]
    result = ReferenceEvaluator(after).run(None, {"a": a, "b": b})[0]
    np.testing.assert_array_equal(result, (a.astype(int) - [[3], [90]]) @ b.astype(int))


def test_matmul_of_unknown_length_is_declined() -> None:
    """Where the number of products is dynamic, nothing tells whether their sum is exact."""
    text = "g (uint8[2,K] a, uint8[K,2] b) => (int32[2,2] y) { y = MatMulInteger(a, b) }"
    assert "not static" in declined(EmulateQuantizedMatMul(), model_of(text, opset=18))


CONVOLUTION = """g (uint8[N,{channels},6,6] x) => (uint8[N,4,o,o] y) {{
    y = QLinearConv{told}(x, sx, zx, w, sw, zw, sy, zy{bias})
}}"""


def convolution(told: str, group: int, bias: np.ndarray | None, channels: int = 4) -> ModelProto:
    """QLinearConv of INT8 weights, scales per output channel."""
    text = CONVOLUTION.format(channels=channels, told=told, bias=", B" if bias is not None else "")
    weights: dict[str, np.ndarray] = {
        "sx": np.float32(0.02),
        "zx": np.uint8(100),
        # ONNX Runtime saturates sums of two products to 16 bits on processors without VNNI; 7-bit weights stay below.
        "w": quantised(4, channels // group, 3, 3, dtype="int8", seed=2) // 2,
        "sw": np.float32([0.01, 0.02, 0.03, 0.04]),
        "zw": np.zeros(4, np.int8),
        "sy": np.float32(0.05 * channels),
        "zy": np.uint8(120),
    }
    return model_of(text, opset=18, **weights, **({} if bias is None else {"B": bias}))


@pytest.mark.parametrize(
    ("told", "group"),
    [
        ("", 1),
        ("<pads = [1, 0, 1, 2], strides = [2, 1]>", 1),
        ('<auto_pad = "SAME_UPPER", dilations = [2, 2]>', 1),
        ("<group = 4>", 4),
    ],
)
def test_quantised_conv_keeps_its_integers(told: str, group: int) -> None:
    """Padding, strides, dilations and groups give the integers of ONNX Runtime, in one Conv with its bias."""
    model = convolution(told, group, np.int32([0, 1000, -1000, 7]))
    made = assert_same_integers(EmulateQuantizedConv(), model, fed(x=quantised(2, 4, 6, 6)))
    assert made["Conv"] == 1
    assert made["Add"] == 1


def test_quantised_conv_is_exact_where_onnx_runtime_saturates() -> None:
    """INT8 weights of the whole range give the integers of the reference implementation on every processor."""
    model = convolution("", 1, np.int32([0, 1000, -1000, 7]))
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(numpy_helper.from_array(quantised(4, 4, 3, 3, dtype="int8", seed=2), "w"))
    feed = {"x": quantised(2, 4, 6, 6)}
    after = EmulateQuantizedConv().run(model)[0]
    np.testing.assert_array_equal(run_model(after, fed(**feed))[0]["y"], ReferenceEvaluator(model).run(None, feed)[0])


@pytest.mark.parametrize("group", [1, 2])
def test_large_quantised_conv_is_exact_in_pieces(group: int) -> None:
    """Sums that may pass 2^24 are computed over groups of channels, in every group of the convolution."""
    model = convolution(f"<group = {group}>", group, np.int32([5, 6, 7, 8]), channels=600 * group)
    made = assert_same_integers(EmulateQuantizedConv(), model, fed(x=quantised(1, 600 * group, 6, 6)))
    assert made["Conv"] > 1
    assert ("Gather" in made) == (group == 2)


def test_large_bias_of_quantised_conv_is_added_in_int32() -> None:
    """A bias beyond 2^24 is added where it is exact."""
    model = convolution("", 1, np.int32([1 << 25, -(1 << 25) - 1, 0, 1]))
    made = assert_same_integers(EmulateQuantizedConv(), model, fed(x=quantised(2, 4, 6, 6)))
    assert (made["Conv"], made["Add"]) == (1, 2)


def test_scale_of_quantised_conv_is_not_folded_into_its_weights() -> None:
    """The weights stay integers when scales behind convolutions are folded, or sums would no longer be exact."""
    after = EmulateQuantizedConv().run(convolution("", 1, None))[0]
    assert FoldScaleAndBias().run(after)[0] is after


def test_conv_of_integers_pads_with_its_zero_point() -> None:
    """ConvInteger pads with the zero-point, given at run time, and gives INT32."""
    text = "g (uint8[1,2,3,3] x, uint8 z) => (int32[1,2,3,3] y) { y = ConvInteger<pads = [1,1,1,1]>(x, w, z, zw) }"
    model = model_of(text, opset=18, w=quantised(2, 2, 3, 3, seed=2), zw=np.uint8(3))
    assert_same_integers(EmulateQuantizedConv(), model, fed(x=quantised(1, 2, 3, 3), z=np.uint8(100)))


def test_conv_with_too_many_products_per_channel_is_declined() -> None:
    """A kernel whose one channel sums too much cannot be cut along channels."""
    text = "g (uint8[1,1,20,20] x, uint8[1,1,17,17] w) => (int32[1,1,4,4] y) { y = ConvInteger(x, w) }"
    assert "single channel" in declined(EmulateQuantizedConv(), model_of(text, opset=18))


NESTED: Mapping[str, tuple[NodePass, str, str, str]] = {
    "quantize": (EmulateQuantizeLinear(), "QuantizeLinear(x, s, z)", "uint8[3]", "float[3] x"),
    "matmul": (EmulateQuantizedMatMul(), "MatMulInteger(x, w)", "int32[3]", "uint8[3,3] x"),
}


@pytest.mark.parametrize("name", NESTED)
def test_branches_are_rewritten(name: str) -> None:
    """A node inside an If branch is replaced there."""
    entry, node, result, inputs = NESTED[name]
    dtype = result.partition("[")[0]
    weights = {"s": np.float32(0.1), "z": np.uint8(3), "w": quantised(3), "zeros": np.zeros(3, dtype)}
    model = model_of(in_then_branch(node, result, inputs), opset=18, **weights)
    x = floats(3) if inputs.startswith("float") else quantised(3, 3)
    made = assert_same_integers(entry, model, fed(c=np.asarray(True), x=x))
    assert made["If"] == 1


def test_result_read_twice_and_returned_is_written_once() -> None:
    """A quantised tensor that is a graph output and has readers keeps its name and both."""
    text = """g (float[4] x) => (uint8[4] q, float[4] y) {
        q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) y = Add(a, b)
    }"""
    model = model_of(text, opset=18, s=np.float32(0.05), z=np.uint8(128))
    made = assert_same_integers(EmulateQuantizeLinear(), model, fed(x=floats(4)))
    assert made["Round"] == 1


def constant_dequantised(values: np.ndarray, zero: np.ndarray | None, steps: np.ndarray, told: str = "") -> ModelProto:
    """A product with a dequantised constant."""
    text = f"""g (float[2,{values.shape[0]}] x) => (float[2,n] y) {{
        w = DequantizeLinear{told}(q, s{", z" if zero is not None else ""}) y = MatMul(x, w)
    }}"""
    weights = {"q": values, "s": steps} | ({} if zero is None else {"z": zero})
    return model_of(text.replace("[2,n]", f"[2,{values.shape[1]}]"), opset=21, ir_version=10, **weights)


def nibbles(*shape: int, dtype: str = "uint4") -> np.ndarray:
    """4-bit integers over the whole range."""
    low = 0 if dtype == "uint4" else -8
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % 16 + low).astype(getattr(ml_dtypes, dtype))


def stored(model: ModelProto) -> list[int]:
    """The ONNX types of the integers that DequantizeLinear nodes read."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return [types[node.input[0]] for node in model.graph.node if node.op_type == "DequantizeLinear"]


@pytest.mark.parametrize(
    ("values", "zero", "told", "expected"),
    [
        (nibbles(4, 6), ml_dtypes.uint4(8), "", [onnx.TensorProto.INT4]),
        (nibbles(4, 6), np.full((2, 6), 8, ml_dtypes.uint4), "<axis = 0, block_size = 2>", [onnx.TensorProto.INT4]),
        (nibbles(4, 6, dtype="int4"), np.full(6, 1, ml_dtypes.int4), "<axis = 1>", [onnx.TensorProto.INT8]),
        (nibbles(3, 3), ml_dtypes.uint4(8), "", []),
        (quantised(4, 6), np.uint8(128), "", [onnx.TensorProto.INT8]),
        (quantised(4, 6), np.full(6, 100, np.uint8), "<axis = 1>", []),
        (quantised(4, 6, dtype="int16"), np.int16(0), "", []),
        (quantised(4, 6, dtype="int32"), None, "", []),
    ],
    ids=["uint4", "blocks", "int4 beyond", "odd", "uint8", "uint8 beyond", "int16", "int32"],
)
def test_zero_points_of_constants_are_taken_out(
    values: np.ndarray, zero: np.ndarray | None, told: str, expected: list[int]
) -> None:
    """Constants keep their quantisation where INT4 or INT8 hold them without a zero-point, else become FLOAT."""
    steps = np.abs(floats(*np.shape(zero))) + np.float32(0.1)
    model = constant_dequantised(values, None if zero is None else np.asarray(zero), steps.astype(np.float32), told)
    after, report = applied(SymmetricWeights(), model)
    assert len(report.changed) == 1
    assert stored(after) == expected
    if not expected:
        assert operators(FoldConstants().run(after)[0]) == {"MatMul": 1}


def test_int8_constants_stay() -> None:
    """What TensorRT dequantises itself is left to it, and so is what is no constant."""
    model = constant_dequantised(quantised(4, 6, dtype="int8"), np.int8(0), np.float32(0.1))
    assert SymmetricWeights().run(model)[0] is model
    text = "g (int8[4] x) => (float[4] y) { y = DequantizeLinear(x, s) }"
    model = model_of(text, opset=21, ir_version=10, s=np.float32(0.1))
    assert SymmetricWeights().run(model)[1].declined == ()


def test_zero_points_that_do_not_fit_their_constants_are_declined() -> None:
    """A broken file: five zero-points for three channels."""
    text = "g (float[3] x) => (float[3] y) { w = DequantizeLinear <axis = 0> (q, s, z) y = Add(x, w) }"
    zeros = np.uint8([1, 2, 3, 4, 5])
    model = model_of(text, opset=21, ir_version=10, s=np.float32([0.1] * 3), z=zeros, q=quantised(3))
    assert "do not fit its weights" in declined(SymmetricWeights(), model)


def test_runtime_zero_point_of_constants_is_declined() -> None:
    """The report says how to give its value."""
    text = "g (uint8[1] z) => (float[3] y) { y = DequantizeLinear(q, s, z) }"
    model = model_of(text, opset=21, ir_version=10, s=np.float32([0.1]), q=quantised(3))
    assert "--freeze-input z=" in declined(SymmetricWeights(), model)


@pytest.mark.parametrize("name", ["float", "float16", "bfloat16", "int32"])
@pytest.mark.parametrize("like", [False, True])
def test_fp8_casts_keep_their_numbers(name: str, like: bool) -> None:
    """There and back through FP8, saturated numbers included, gives what the casts give."""
    there, back = ("CastLike(x, f)", "CastLike(m, x)") if like else ("Cast<to = 17>(x)", f"Cast<to = {TYPES[name]}>(m)")
    text = f"g ({name}[6] x) => ({name}[6] y) {{ m = {there} y = {back} }}"
    model = model_of(text, opset=21, ir_version=10, f=np.zeros((), ml_dtypes.float8_e4m3fn))
    after, report = Fp8AsQdq().run(model)
    onnx.checker.check_model(after, full_check=True)
    assert len(report.changed) == 2
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators(after))
    x = np.asarray([0, 1, -3, 17, 448, 1000]).astype(onnx.helper.tensor_dtype_to_np_dtype(TYPES[name]))
    expected, found = (ReferenceEvaluator(entry).run(None, {"x": x})[0] for entry in (model, after))
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))
    assert found.dtype == x.dtype


TYPES = {"float": 1, "float16": 10, "bfloat16": 16, "int32": 6}


def test_fp8_cast_that_does_not_saturate_is_declined() -> None:
    """TensorRT cannot make NaN of large numbers."""
    text = "g (float[4] x) => (float8e4m3fn[4] y) { y = Cast<to = 17, saturate = 0>(x) }"
    assert "saturate=0" in declined(Fp8AsQdq(), model_of(text, opset=21, ir_version=10))


BUILDABLE: Mapping[str, tuple[NodePass, ModelProto]] = {
    "quantize": (
        EmulateQuantizeLinear(),
        model_of("g (float[4] x) => (uint8[4] y) { y = QuantizeLinear(x, s, z) }", s=np.float32(0.1), z=np.uint8(128)),
    ),
    "dequantize": (
        EmulateDequantizeLinear(),
        model_of(
            "g (uint8[4] x) => (float[4] y) { y = DequantizeLinear(x, s, z) }", s=np.float32(0.1), z=np.uint8(128)
        ),
    ),
    "dynamic": (
        EmulateDynamicQuantizeLinear(),
        model_of("g (float[4] x) => (uint8[4] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }", opset=18),
    ),
    "matmul in pieces": (
        EmulateQuantizedMatMul(),
        model_of("g (uint8[2,300] a, int8[300,2] b) => (int32[2,2] y) { y = MatMulInteger(a, b) }"),
    ),
    "conv": (EmulateQuantizedConv(), convolution("<group = 2>", 2, np.int32([5, 6, 7, 8]), channels=600)),
    "int32 bias": (
        SymmetricWeights(),
        model_of(
            "g (float[4] x) => (float[4] y) { b = DequantizeLinear(q, s) y = Add(x, b) }",
            s=np.float32(0.1),
            q=np.int32([1, 2, 3, 400]),
        ),
    ),
    "uint4 blocks": (
        SymmetricWeights(),
        constant_dequantised(
            nibbles(64, 16),
            np.full((2, 16), 8, ml_dtypes.uint4),
            np.full((2, 16), 0.1, np.float32),
            "<axis = 0, block_size = 32>",
        ),
    ),
    "odd int4": (SymmetricWeights(), constant_dequantised(nibbles(3, 3, dtype="int4"), None, np.float32(0.1))),
}


@pytest.mark.rtx
@pytest.mark.parametrize("name", BUILDABLE)
def test_quantised_operators_become_buildable(name: str) -> None:
    """TensorRT-RTX refuses each of these, and takes what the pass writes."""
    entry, model = BUILDABLE[name]
    if name == "conv":
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 1
    assert refused_by(model)
    after = entry.run(model)[0]
    assert not refused_by(RemoveDeadNodes().run(FoldConstants().run(after)[0])[0])


@pytest.mark.rtx
def test_fp8_casts_become_buildable() -> None:
    """A cast to FP8 and back builds for SM89 as quantisation."""
    text = "g (float[4] x) => (float[4] y) { m = Cast<to = 17>(x) y = Cast<to = 1>(m) }"
    model = model_of(text, opset=21, ir_version=10)
    assert refused_by(model, "rtx:8.9")
    assert not refused_by(Fp8AsQdq().run(model)[0], "rtx:8.9")
