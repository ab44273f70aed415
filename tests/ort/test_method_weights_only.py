"""Weights stored in INT8 and INT4, activations in float: against NumPy, and in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import conv, model_of, node, residual_block, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from ort_session import outputs_of, sqnr_db

import trt_opt.samples
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.quantize.number_format import INT4
from trt_opt.quantize.stage import PrecisionRequest, QuantizedGraph, float_graph, quantized_graph
from trt_opt.quantize.stored_weights import stored_weights
from trt_opt.values.placement import Reader, WeightQuantizer

DIGITS = Path(trt_opt.samples.__file__).parent / "digits"

INT8 = PrecisionRequest("weights-only")
INT4_REQUEST = PrecisionRequest("weights-only", weights="int4", block_size=64)


def stored(model: onnx.ModelProto, request: PrecisionRequest = INT8) -> QuantizedGraph:
    """The model with its weights stored as asked, no data seen."""
    return quantized_graph(float_graph(model, request), {})


def perceptron(inner: int = 256, outer: int = 128) -> onnx.ModelProto:
    """MatMul → Relu → Gemm with transposed weights and bias."""
    nodes = [
        node("MatMul", "matmul", ["x", "w1"], "a"),
        node("Relu", "relu", ["a"], "b"),
        node("Gemm", "gemm", ["b", "w2", "bias"], "y", transB=1),
    ]
    constants = {"w1": weights(inner, outer, seed=1), "w2": weights(64, outer, seed=2), "bias": weights(64, seed=3)}
    return model_of(nodes, {"x": [4, inner]}, {"y": [4, 64]}, constants)


def single(operator: str, names: list[str], shape: list[int], *weight: int, **attributes: object) -> onnx.ModelProto:
    """One node with the constant `w`; of the output's shape only the rank is told."""
    sizes = [f"size{axis}" for axis in range(max(len(shape), len(weight)))]
    only = node(operator, "only", names, "y", **attributes)
    return model_of([only], {"x": shape}, {"y": sizes}, {"w": weights(*weight)})


FORMS = {
    "conv": single("Conv", ["x", "w"], [1, 8, 8, 8], 32, 8, 3, 3),
    "grouped-conv": single("Conv", ["x", "w"], [1, 32, 8, 8], 32, 8, 3, 3, group=4),
    "conv-1d": single("Conv", ["x", "w"], [1, 8, 8], 32, 8, 3),
    "conv-transpose": single("ConvTranspose", ["x", "w"], [1, 32, 8, 8], 32, 8, 3, 3, group=2),
    "gemm": single("Gemm", ["x", "w"], [4, 64], 64, 32),
    "gemm-transposed": single("Gemm", ["x", "w"], [64, 4], 32, 64, transA=1, transB=1, alpha=0.5),
    "gemm-left": single("Gemm", ["w", "x"], [64, 4], 32, 64),
    "gemm-left-transposed": single("Gemm", ["w", "x"], [64, 4], 64, 32, transA=1),
    "matmul": single("MatMul", ["x", "w"], [2, 4, 64], 64, 33),
    "matmul-left": single("MatMul", ["w", "x"], [2, 64, 4], 33, 64),
    "matmul-batched": single("MatMul", ["x", "w"], [3, 4, 64], 3, 64, 32),
    "matmul-batched-left": single("MatMul", ["w", "x"], [3, 64, 4], 3, 32, 64),
}
CHANNEL_AXES = {
    "conv-transpose": 1,
    "gemm": 1,
    "gemm-left-transposed": 1,
    "matmul": 1,
    "matmul-batched": 2,
    "matmul-batched-left": 1,
}


def fed(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Normal random numbers for the input `x`."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fp16", [False, True])
def test_int8_weights_compute_what_rounded_weights_do(form: str, fp16: bool) -> None:
    """The graph gives what the float one gives with weights rounded to 255 steps per output channel by NumPy."""
    model = FORMS[form]
    result = stored(model, PrecisionRequest("weights-only", fp16))
    assert result.plan.layers[0].precision == "int8-weights"
    values = numpy_helper.to_array(model.graph.initializer[0])
    others = tuple(axis for axis in range(values.ndim) if axis != CHANNEL_AXES.get(form, 0))
    step = np.abs(values).max(axis=others, keepdims=True) / 127
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    rounded.graph.initializer[0].CopyFrom(
        numpy_helper.from_array((np.rint(values / step) * step).astype(np.float32), "w")
    )
    expected, found = outputs_of(rounded, fed(model))["y"], outputs_of(result.model, fed(model))["y"]
    assert sqnr_db(expected, found) > (45 if fp16 else 100)
    assert sqnr_db(outputs_of(model, fed(model))["y"], found) > 38


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_int4_weights_stay_near_the_float_ones(size: int, fp16: bool) -> None:
    """A perceptron in blocked INT4 stays near the float one, the nearer the smaller the blocks."""
    model = perceptron()
    result = stored(model, PrecisionRequest("weights-only", fp16, weights="int4", block_size=size))
    assert result.plan.count("int4-weights") == 2
    least = {16: 19.5, 32: 18.5, 64: 17.2, 128: 16.7}[size]
    assert sqnr_db(outputs_of(model, fed(model))["y"], outputs_of(result.model, fed(model))["y"]) > least


def test_blocks_are_along_the_axis_that_the_product_sums() -> None:
    """A MatMul's weights have their blocks on axis 0, transposed Gemm weights on axis 1; scales are one per block."""
    result = stored(perceptron(), INT4_REQUEST)
    quantizers = {entry.input[0]: entry for entry in result.model.graph.node if entry.op_type == "DequantizeLinear"}
    stored_shapes = {tensor.name: list(tensor.dims) for tensor in result.model.graph.initializer}
    found = {}
    for name, entry in quantizers.items():
        axes = {attribute.name: attribute.i for attribute in entry.attribute}
        found[name] = (axes["axis"], axes["block_size"], stored_shapes[entry.input[1]])
    assert found == {"w1_int4": (0, 64, [4, 128]), "w2_int4": (1, 64, [64, 2])}


@pytest.mark.parametrize(("axis", "shape"), [(0, (96, 10)), (1, (6, 64)), (1, (3, 64, 5))])
def test_each_block_has_the_threshold_with_the_least_squared_error(axis: int, shape: tuple[int, ...]) -> None:
    """No threshold among the ratios is better for any block, and clipping beats the largest magnitude overall."""
    values = weights(*shape, seed=5)
    found = stored_weights(values, WeightQuantizer(Reader("n", 1), "w", axis, "int4", 32), fp16=False)

    def block_errors(numbers: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float64]:
        """The squared error of every block: the blocked axis comes first, block by block."""
        wide = np.repeat(scales, 32, axis=axis)
        error = np.moveaxis((wide * numbers - values).astype(np.float64) ** 2, axis, 0)
        return error.reshape(shape[axis] // 32, 32, -1).sum(axis=1)

    chosen = block_errors(found.numbers, found.scales)
    blocks = np.abs(np.moveaxis(values, axis, 0)).reshape(shape[axis] // 32, 32, -1)
    rest = [size for at, size in enumerate(shape) if at != axis]
    amax = np.moveaxis(blocks.max(axis=1).reshape(-1, *rest), 0, axis)
    plain = None
    for ratio in (1.0, 0.9, 0.8, 0.7):
        scales = (amax * ratio / 7).astype(np.float32)
        numbers = np.clip(np.rint(values / np.repeat(scales, 32, axis=axis)), -8, 7)
        tried = block_errors(numbers, scales)
        plain = tried if plain is None else plain
        assert (chosen <= tried * 1.001).all()
    assert chosen.sum() < 0.9 * plain.sum()


def test_four_bits_are_packed_as_onnx_reads_them() -> None:
    """An odd number of INT4 numbers, all sixteen among them, comes back through onnx unchanged."""
    numbers = np.array([*range(-8, 8), 3], np.float32)
    read = numpy_helper.to_array(INT4.tensor(numbers, "t"))
    np.testing.assert_array_equal(read.astype(np.float32), numbers)


@pytest.mark.parametrize(
    ("names", "shape", "weight", "reason"),
    [
        (["w", "x"], [64, 4], (32, 64), "on the left"),
        (["x", "w"], [4, 65], (65, 63), "even number"),
        (["x", "w"], [4, 66], (66, 64), "33"),
        (["x", "w"], [4, 134], (134, 64), "134 is no multiple"),
    ],
)
def test_what_four_bits_cannot_hold(names: list[str], shape: list[int], weight: tuple[int, int], reason: str) -> None:
    """Left operands, odd counts and axes without a fitting divisor stay in INT8; 66 is cut into blocks of 33."""
    layer = stored(single("MatMul", names, shape, *weight), INT4_REQUEST).plan.layers[0]
    assert layer.precision == ("int4-weights" if reason == "33" else "int8-weights")
    assert reason in layer.reason


def test_a_convolution_asked_for_int4_gets_int8() -> None:
    """The decision says why."""
    layer = stored(FORMS["conv"], INT4_REQUEST).plan.layers[0]
    assert layer.precision == "int8-weights"
    assert "convolution" in layer.reason


def embedding() -> onnx.ModelProto:
    """Gather from a table of 200 rows, whose numbers differ in size by row."""
    table = weights(200, 32) * np.linspace(0.01, 1, 200, dtype=np.float32)[:, None]
    model = model_of([node("Gather", "look_up", ["table", "x"], "y")], {"x": [5]}, {"y": [5, 32]}, {"table": table})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


@pytest.mark.parametrize("request_", [INT8, INT4_REQUEST])
def test_a_table_is_stored_with_one_scale_per_row(request_: PrecisionRequest) -> None:
    """Every looked-up row is within half of its own step, in INT8 whatever was asked for."""
    model, rows = embedding(), np.array([0, 7, 100, 199, 7])
    result = stored(model, request_)
    assert "table entries in INT8" in result.plan.layers[0].reason
    assert ("four bits are too few" in result.plan.layers[0].reason) == (request_ is INT4_REQUEST)
    table = numpy_helper.to_array(model.graph.initializer[0])[rows]
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    found = outputs_of(result.model, {"x": rows})["y"]
    assert (np.abs(found - table) <= step / 2 * 1.001).all()
    assert not np.array_equal(found, table)


def test_tables_read_in_float_too_stay_float() -> None:
    """Weights that a MatMul and an Add share would be stored twice: they stay, and say so."""
    nodes = [
        conv("conv1", "x", "a", "w"),
        node("Add", "add", ["a", "v"], "b"),
        node("MatMul", "matmul", ["b", "v"], "y"),
    ]
    constants = {"w": weights(16, 16, 3, 3), "v": weights(64, 64)}
    model = model_of(nodes, {"x": [1, 16, 64, 64]}, {"y": [1, 16, 64, 64]}, constants)
    decisions = {layer.node: layer for layer in stored(model).plan.layers}
    assert decisions["conv1"].precision == "int8-weights"
    assert decisions["matmul"].rule == "read-elsewhere"
    assert "'add'" in decisions["matmul"].reason


def test_shared_weights_are_stored_once() -> None:
    """Two convolutions with the same weights read the same INT8 tensor."""
    nodes = [conv("conv1", "x", "a", "w"), conv("conv2", "a", "y", "w")]
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, {"w": weights(16, 16, 3, 3)})
    assert sum(len(tensor.dims) == 4 for tensor in stored(model).model.graph.initializer) == 1


def test_weights_in_a_constant_node_leave_the_file_too() -> None:
    """The float weights are gone, whether they were an initialiser or the value of a Constant."""
    model = residual_block()
    tensor = model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], name="constant", value=tensor))
    model.graph.initializer.remove(tensor)
    assert "Constant" not in [entry.op_type for entry in stored(model).model.graph.node]


@pytest.mark.parametrize(
    ("request_", "share"),
    [(INT8, (0.25, 0.27)), (PrecisionRequest("weights-only", weights="int4"), (0.13, 0.145))],
    ids=["int8", "int4"],
)
def test_the_file_shrinks_with_the_weights(request_: PrecisionRequest, share: tuple[float, float]) -> None:
    """A quarter for INT8; an eighth, a zero-point of half a byte and a scale of four per 128 weights for INT4."""
    model = perceptron(1024, 1024)
    ratio = len(stored(model, request_).model.SerializeToString()) / len(model.SerializeToString())
    assert share[0] < ratio < share[1]


def test_few_weights_stay_float() -> None:
    """A depthwise kernel of 16 channels is smaller than what stores it smaller: it stays, with the reason."""
    nodes = [conv("depthwise", "x", "a", "v", group=16), conv("conv1", "a", "y", "w")]
    constants = {"v": weights(16, 1, 3, 3), "w": weights(16, 16, 3, 3)}
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, constants)
    decisions = {layer.node: layer.rule for layer in stored(model, PrecisionRequest("weights-only", True)).plan.layers}
    assert decisions == {"depthwise": "weights-too-few", "conv1": "weights-in-int8"}


def test_nothing_to_store_smaller_is_an_error_with_the_reasons() -> None:
    """A model without weights of a useful size is refused, exit code 3."""
    model = model_of([node("MatMul", "m", ["x", "w"], "y")], {"x": [4, 4]}, {"y": [4, 4]}, {"w": weights(4, 4)})
    with pytest.raises(UnsupportedModelError, match="16 weights") as caught:
        stored(model)
    assert caught.value.exit_code == 3


def test_an_excluded_node_keeps_its_weights_and_an_unknown_one_is_an_error() -> None:
    """By name."""
    request = PrecisionRequest("weights-only", exclude=("conv2",))
    assert {layer.node for layer in stored(residual_block(), request).plan.layers if layer.rule == "excluded"} == {
        "conv2"
    }
    with pytest.raises(RequestError, match="nobody"):
        stored(residual_block(), PrecisionRequest("weights-only", exclude=("nobody",)))


def test_blocks_too_small_to_save_anything_are_refused() -> None:
    """Below sixteen."""
    with pytest.raises(RequestError, match="blocks of 8"):
        stored(perceptron(), PrecisionRequest("weights-only", weights="int4", block_size=8))


@pytest.mark.parametrize("amax", [1e-2, 1e-4, 1e-6])
def test_scales_below_fp16s_normal_numbers_keep_the_weights(amax: float) -> None:
    """Weights whose scale is subnormal in FP16 are as near as 127 steps allow, or FP16's smallest step."""
    values = weights(64, 64)
    values *= np.float32(amax) / np.abs(values).max()
    found = stored_weights(values, WeightQuantizer(Reader("n", 1), "w", 1), fp16=True)
    back = found.numbers * found.scales
    np.testing.assert_array_equal(found.scales, found.scales.astype(np.float16).astype(np.float32))
    assert np.abs(back - values).max() <= max(amax / 127, 2.0**-24) / 2 * 1.1 + 2.0**-25


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize(("kind", "least_db"), [("int8", 37.0), ("int4", 18.0)])
def test_the_digits_are_read_as_before(kind: str, least_db: float, fp16: bool) -> None:
    """On all 450 test images the small network's first choice is the float model's."""
    model = onnx.load(DIGITS / "model.onnx")
    with np.load(DIGITS / "test.npz") as test:
        feed = {"image": test["image"]}
    result = stored(model, PrecisionRequest("weights-only", fp16, weights=kind, block_size=32))
    expected, found = outputs_of(model, feed)["logits"], outputs_of(result.model, feed)["logits"]
    np.testing.assert_array_equal(expected.argmax(1), found.argmax(1))
    assert sqnr_db(expected, found) > least_db


@pytest.mark.parametrize("opset", [21, 23, 24])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_later_opsets_are_written_in_fp16_too(kind: str, opset: int) -> None:
    """DequantizeLinear's later versions get FP16 scales as well, and no float32 constant stays."""
    model = perceptron()
    model.opset_import[0].version, model.ir_version = opset, 11
    result = stored(model, PrecisionRequest("weights-only", True, weights=kind, block_size=64)).model
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in result.graph.initializer}
    if opset == 24 and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24):
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} does not run opset 24")
    assert sqnr_db(outputs_of(model, fed(model))["y"], outputs_of(result, fed(model))["y"]) > 17
