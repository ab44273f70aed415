"""Asymmetric grids become symmetric ones by shifting what lies on them; the numbers stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from graphs import model_of, node, weights
from numpy.typing import NDArray
from onnx import TensorProto
from ort_session import outputs_of, sqnr_db

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.graph.check import check_model
from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.importing.symmetric_form import SymmetricForm, symmetric_form

Array = NDArray[np.generic]

LEAST_SQNR_DB = 50.0


class Graph:
    """Nodes and constants under construction; every method gives the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def constant(self, name: str, array: Array) -> str:
        self.constants[name] = array
        return name

    def add(self, op_type: str, sources: Sequence[str], name: str, **attributes: object) -> str:
        self.nodes.append(node(op_type, name, sources, name, **attributes))
        return name

    def pair(self, source: str, scale: float, zero: int, dtype: type = np.uint8) -> str:
        """QuantizeLinear and DequantizeLinear on one grid."""
        grid = [self.constant(f"{source}_s", np.float32(scale)), self.constant(f"{source}_z", np.array(zero, dtype))]
        self.add("QuantizeLinear", [source, *grid], f"{source}_q")
        return self.add("DequantizeLinear", [f"{source}_q", *grid], f"{source}_dq")

    def int8_weights(self, name: str, *shape: int, seed: int = 0, axis: int = 0) -> str:
        """Random INT8 weights with a scale per slice of an axis."""
        generator = np.random.default_rng(seed)
        self.constant(f"{name}_i", generator.integers(-127, 128, shape).astype(np.int8))
        self.constant(f"{name}_s", (generator.uniform(1, 3, shape[axis]) * 0.002).astype(np.float32))
        self.constant(f"{name}_z", np.zeros(shape[axis], np.int8))
        return self.add("DequantizeLinear", [f"{name}_i", f"{name}_s", f"{name}_z"], name, axis=axis)

    def conv(
        self, source: str, name: str, channels: tuple[int, int], *, bias: bool = True, **attributes: object
    ) -> str:
        """A 3x3 convolution with INT8 weights."""
        weight = self.int8_weights(f"{name}_w", channels[1], channels[0], 3, 3, seed=len(self.nodes))
        sources = [source, weight]
        if bias:
            sources.append(self.constant(f"{name}_b", weights(channels[1], seed=len(self.nodes))))
        return self.add("Conv", sources, name, **attributes)

    def model(
        self, inputs: Mapping[str, Sequence[int | str]], outputs: Mapping[str, Sequence[int | str]]
    ) -> onnx.ModelProto:
        return model_of(self.nodes, inputs, outputs, self.constants)


def folded(model: onnx.ModelProto, *feeds: Mapping[str, Array], equal: bool = False) -> SymmetricForm:
    """The symmetric form, checked: valid, what TensorRT takes, and the same numbers."""
    form = symmetric_form(model, zero_points="fold")
    check_model(form.model, "folded")
    assert asymmetric_nodes(form.model) == []
    for feed in feeds:
        expected, found = outputs_of(model, feed), outputs_of(form.model, feed)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert sqnr_db(array, found[name]) > LEAST_SQNR_DB, name
            if equal:
                assert np.array_equal(array, found[name])
    return form


def asymmetric_nodes(model: onnx.ModelProto) -> list[str]:
    """The QuantizeLinear and DequantizeLinear that TensorRT refuses or misreads."""
    index = GraphIndex(model)
    zeros = {
        entry.name: index.constant(entry.input[2])
        for entry in model.graph.node
        if entry.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    return [name for name, zero in zeros.items() if zero is None or zero.dtype != np.int8 or zero.any()]


def count(model: onnx.ModelProto, *op_types: str) -> int:
    return sum(entry.op_type in op_types for entry in model.graph.node)


def producer(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next(entry for entry in model.graph.node if tensor in entry.output)


def images(*shape: int, seed: int = 3) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)}


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 114), (np.uint8, 128), (np.int8, 37), (np.int8, -128)])
def test_padded_convolution_reads_a_padded_pair(dtype: type, zero: int) -> None:
    """A Conv with padding reads a symmetric pair of what a Pad with the shifted zero gives, and pads nothing itself."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 127, zero, dtype), "c", (3, 8), pads=[1, 2, 0, 1])
    graph.pair("c", 0.05, zero, dtype)
    form = folded(graph.model({"x": [1, 3, 9, 7]}, {"c_dq": [1, 8, 8, 8]}), images(1, 3, 9, 7))
    conv = next(entry for entry in form.model.graph.node if entry.op_type == "Conv")
    assert producer(form.model, conv.input[0]).op_type == "DequantizeLinear"
    if zero == 128:
        assert count(form.model, "Pad", "Add") == 0
    else:
        assert attribute_of(conv, "pads") is None
        assert count(form.model, "Pad") == 1
        assert count(form.model, "QuantizeLinear") == 2, "the pair of what is not padded has no reader"


def test_relu_that_saturation_does_is_taken_out() -> None:
    """Behind a Relu whose Q begins at zero nothing but the Conv with its bias is left."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 127, 0, np.int8), "c", (3, 8))
    graph.add("Relu", ["c"], "r")
    graph.conv(graph.pair("r", 0.02, -128, np.int8), "d", (8, 4))
    form = folded(graph.model({"x": [1, 3, 8, 8]}, {"d": [1, 4, 4, 4]}), images(1, 3, 8, 8))
    assert count(form.model, "Relu", "Clip", "Add", "Pad") == 0
    assert [entry.becomes for entry in form.tensors] == ["kept", "folded"]


@pytest.mark.parametrize(("high", "left"), [(6.0, 0), (2.0, 1)])
def test_clip_is_taken_out_only_where_the_grid_ends(high: float, left: int) -> None:
    """Clip(0, 6) goes where the grid ends at 0 and 6; one that ends earlier stays, with shifted bounds."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 60, 0, np.int8), "c", (3, 8))
    bounds = [graph.constant("low", np.float32(0)), graph.constant("high", np.float32(high))]
    graph.add("Clip", ["c", *bounds], "r")
    graph.pair("r", 6 / 255, 0)
    form = folded(graph.model({"x": [1, 3, 8, 8]}, {"r_dq": [1, 8, 6, 6]}), {"x": 8 * images(1, 3, 8, 8)["x"]})
    assert count(form.model, "Clip") == left


def test_relu_of_a_grid_that_reaches_below_zero_becomes_a_clip() -> None:
    """A Relu before a grid with negative numbers is a Clip at the shifted zero."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 127, 0, np.int8), "c", (3, 8))
    graph.add("Relu", ["c"], "r")
    graph.pair("r", 0.02, -100, np.int8)
    form = folded(graph.model({"x": [1, 3, 8, 8]}, {"r_dq": [1, 8, 6, 6]}), images(1, 3, 8, 8))
    assert count(form.model, "Relu") == 0
    assert count(form.model, "Clip") == 1


def test_equal_padding_is_shared() -> None:
    """Two convolutions with equal padding read one padded pair; a third without padding reads the plain pair."""
    graph = Graph()
    source = graph.pair("x", 1 / 127, 100)
    for name in ("a", "b"):
        graph.conv(source, name, (3, 4), pads=[1, 1, 1, 1])
    graph.conv(source, "c", (3, 4))
    model = graph.model({"x": [1, 3, 8, 8]}, {"a": [1, 4, 8, 8], "b": [1, 4, 8, 8], "c": [1, 4, 6, 6]})
    form = folded(model, images(1, 3, 8, 8))
    assert count(form.model, "Pad") == 1
    assert count(form.model, "QuantizeLinear") == 2
    assert "3 convolutions" not in form.notes[0]
    assert "2 convolutions" in form.notes[0]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_is_computed(auto_pad: str) -> None:
    """auto_pad of a static image becomes a Pad of the same width."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 127, 90), "c", (3, 4), auto_pad=auto_pad, strides=[2, 2])
    form = folded(graph.model({"x": [1, 3, 8, 7]}, {"c": [1, 4, 4, 4]}), images(1, 3, 8, 7))
    assert count(form.model, "Pad") == 1
    assert not form.declined


def test_same_padding_of_unknown_sizes_is_declined() -> None:
    """auto_pad of an image whose size is not known leaves an Add before the Conv, and says so."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 127, 90), "c", (3, 4), auto_pad="SAME_UPPER", strides=[2, 2])
    form = folded(graph.model({"x": [1, 3, "h", "w"]}, {"c": [1, 4, "a", "b"]}), images(1, 3, 8, 7))
    assert count(form.model, "Pad") == 0
    assert [entry.node for entry in form.declined] == ["c"]


def test_residual_and_movement_of_data_carry_shifts() -> None:
    """Transpose, MaxPool and GlobalAveragePool pass a shift on; a residual Add sums two up, one Add takes them out."""
    graph = Graph()
    skip = graph.pair("x", 1 / 127, 100)
    graph.conv(skip, "c", (3, 3), pads=[1, 1, 1, 1])
    graph.add("Add", [graph.pair("c", 0.02, 140), skip], "sum")
    graph.add("MaxPool", [graph.pair("sum", 0.03, 99)], "pool", kernel_shape=[2, 2], strides=[2, 2])
    graph.add("Transpose", ["pool"], "nhwc", perm=[0, 2, 3, 1])
    graph.add("Transpose", [graph.pair("nhwc", 0.03, 99)], "nchw", perm=[0, 3, 1, 2])
    graph.add("GlobalAveragePool", ["nchw"], "mean")
    form = folded(graph.model({"x": [1, 3, 8, 8]}, {"mean": [1, 3, 1, 1]}), images(1, 3, 8, 8))
    adds = [entry.output[0] for entry in form.model.graph.node if entry.op_type == "Add"]
    assert len(adds) == 4, adds  # to the input's grid, the residual one, to its grid, and back before the output
    assert "mean" in adds


def test_concat_of_two_grids() -> None:
    """Operands of one grid are joined as they are, one of another is moved first."""
    graph = Graph()
    parts = [graph.conv(graph.pair("x", 1 / 127, 100), name, (3, 4)) for name in ("a", "b", "c")]
    joined = [graph.pair(part, 0.03, zero) for part, zero in zip(parts, (120, 120, 7), strict=True)]
    graph.add("Concat", joined, "all", axis=1)
    graph.conv(graph.pair("all", 0.03, 120), "y", (12, 4))
    graph.nodes = list({entry.name: entry for entry in graph.nodes}.values())
    form = folded(graph.model({"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}), images(1, 3, 8, 8))
    concat = next(entry for entry in form.model.graph.node if entry.op_type == "Concat")
    assert [producer(form.model, name).op_type for name in concat.input] == ["DequantizeLinear"] * 2 + ["Add"]


def test_concat_that_no_pair_follows() -> None:
    """Operands of one grid reach the Conv behind the Concat without an Add."""
    graph = Graph()
    source = graph.pair("x", 1 / 127, 0, np.int8)
    joined = [graph.pair(graph.conv(source, name, (3, 4)), 0.03, 120) for name in ("a", "b")]
    graph.conv(graph.add("Concat", joined, "all", axis=1), "y", (8, 4))
    form = folded(graph.model({"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}), images(1, 3, 8, 8))
    assert count(form.model, "Add") == 0


def test_constant_that_is_added_takes_shifts_in() -> None:
    """An Add of a constant between two pairs bears the difference of their shifts."""
    graph = Graph()
    graph.add("Add", [graph.pair("x", 1 / 127, 60), graph.constant("k", weights(8))], "sum")
    graph.pair("sum", 1 / 90, 140)
    graph.add("Sigmoid", ["sum_dq"], "y")
    form = folded(graph.model({"x": [2, 8]}, {"y": [2, 8]}), images(2, 8))
    assert count(form.model, "Add") == 3  # to the input's grid, the constant's own, and back before the Sigmoid


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("op_type", ["Gemm", "Gemm^T", "MatMul"])
def test_matrix_products_take_shifts_into_their_bias(op_type: str, *, bias: bool) -> None:
    """Gemm and MatMul with constant weights read the pair; the sums of the weights go into the bias behind."""
    graph = Graph()
    transposed = op_type.endswith("T")
    shape, axis = ((8, 32), 0) if transposed else ((32, 8), 1)
    sources = [graph.pair("x", 1 / 127, 60), graph.int8_weights("w", *shape, axis=axis)]
    constant = graph.constant("b", weights(8))
    if op_type == "MatMul":
        graph.add("MatMul", sources, "m")
        if bias:
            graph.add("Add", [constant, "m"], "n")
    else:
        options = {"alpha": 0.5, "beta": 2.0, "transB": int(transposed)}
        graph.add("Gemm", [*sources, *([constant] * bias)], "m", **options)
    result = "n" if op_type == "MatMul" and bias else "m"
    graph.pair(result, 0.05, 140)
    form = folded(graph.model({"x": [4, 32]}, {f"{result}_dq": [4, 8]}), images(4, 32))
    product = next(entry for entry in form.model.graph.node if entry.op_type == op_type.removesuffix("^T"))
    assert producer(form.model, product.input[0]).op_type == "DequantizeLinear"
    assert count(form.model, "Add") == 2 + (op_type == "MatMul")  # the input's, the bias, the output's


def test_transposed_convolution() -> None:
    """ConvTranspose takes its reader's shift into its bias; its input is shifted back, which is reported."""
    graph = Graph()
    weight = graph.int8_weights("w", 3, 4, 3, 3, axis=1)
    graph.add("ConvTranspose", [graph.pair("x", 1 / 127, 60), weight], "t", strides=[2, 2])
    graph.pair("t", 0.05, 140)
    form = folded(graph.model({"x": [1, 3, 5, 5]}, {"t_dq": [1, 4, 11, 11]}), images(1, 3, 5, 5))
    assert [entry.node for entry in form.declined] == ["t"]


def test_activation_between_pairs_sees_the_numbers_of_the_source() -> None:
    """An operator that no shift passes reads the plain tensor."""
    graph = Graph()
    graph.add("Sigmoid", [graph.pair("x", 1 / 127, 60)], "s")
    graph.pair("s", 1 / 255, 0)
    graph.pair("s_dq", 1 / 255, 0)
    folded(graph.model({"x": [2, 40]}, {"s_dq_dq": [2, 40], "x_dq": [2, 40]}), images(2, 40))


def with_integer_ends(model: onnx.ModelProto, kinds: Mapping[str, int]) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        if value.name in kinds:
            value.type.tensor_type.elem_type = kinds[value.name]
    return model


@pytest.mark.parametrize(
    ("kind", "dtype", "zero"),
    [(TensorProto.INT8, np.int8, -128), (TensorProto.INT8, np.int8, 5), (TensorProto.UINT8, np.uint8, 77)],
)
def test_integer_ends(kind: int, dtype: type, zero: int) -> None:
    """Integers that are fed are read as they are, and those that are given out are the source's, to the last one."""
    graph = Graph()
    grid = [graph.constant("s", np.float32(1 / 64)), graph.constant("z", np.array(zero, dtype))]
    graph.add("DequantizeLinear", ["x", *grid], "f")
    graph.conv("f", "c", (3, 4), pads=[1, 1, 1, 1])
    graph.add("QuantizeLinear", ["c", graph.constant("t", np.float32(0.1)), "z"], "y")
    model = with_integer_ends(graph.model({"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}), {"x": int(kind), "y": int(kind)})
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.random.default_rng(0).integers(low, high + 1, (1, 3, 8, 8)).astype(dtype)
    form = symmetric_form(model, zero_points="fold")
    check_model(form.model, "folded")
    expected, found = outputs_of(model, {"x": x})["y"], outputs_of(form.model, {"x": x})["y"]
    assert np.array_equal(expected, found)
    assert found.dtype == dtype
    conv = next(entry for entry in form.model.graph.node if entry.op_type == "Conv")
    assert producer(form.model, conv.input[0]).op_type == "DequantizeLinear"
    for entry in form.model.graph.node:
        if dtype == np.uint8 and "x" in entry.input:
            assert entry.op_type == "Cast"
    assert producer(form.model, "y").op_type == "Cast"


def test_symmetric_model_comes_back_itself() -> None:
    """Nothing to change is nothing copied."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 127, 0, np.int8), "c", (3, 4))
    model = graph.model({"x": [1, 3, 8, 8]}, {"c": [1, 4, 6, 6]})
    form = symmetric_form(model, zero_points="fold")
    assert form.model is model
    assert [entry.becomes for entry in form.tensors] == ["kept"]


def test_float_model_comes_back_itself() -> None:
    """A model without a pair has nothing to report."""
    model = model_of([node("Relu", "r", ["x"], "y")], {"x": [2]}, {"y": [2]}, {})
    form = symmetric_form(model, zero_points="regrid")
    assert form.model is model
    assert not (form.tensors or form.weights or form.changed or form.declined)


def test_sixteen_bits_become_floats() -> None:
    """Activations of 16 bits are left in float, which is finer."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 32767, 3, np.int16), "c", (3, 4))
    graph.constants = {name: value for name, value in graph.constants.items()}
    model = model_of(graph.nodes, {"x": [1, 3, 8, 8]}, {"c": [1, 4, 6, 6]}, graph.constants, opset=21)
    model.ir_version = 10
    form = folded(model, images(1, 3, 8, 8))
    assert count(form.model, "QuantizeLinear") == 0
    assert [entry.becomes for entry in form.tensors] == ["float"]


def test_a_relu_stands_where_a_grid_of_sixteen_bits_began_at_zero() -> None:
    """Quantisers leave a Relu out where the integers begin at zero; floats need it back."""
    graph = Graph()
    graph.conv(graph.pair("x", 1 / 32767, 3, np.int16), "c", (3, 4))
    graph.pair("c", 0.001, 0, np.uint16)
    model = model_of(graph.nodes, {"x": [1, 3, 8, 8]}, {"c_dq": [1, 4, 6, 6]}, graph.constants, opset=21)
    model.ir_version = 10
    form = folded(model, images(1, 3, 8, 8))
    assert [entry.op_type for entry in form.model.graph.node if entry.op_type == "Relu"] == ["Relu"]


def test_scales_per_channel_are_declined() -> None:
    """An activation with a scale per channel stays as it is, with the reason."""
    graph = Graph()
    grid = [graph.constant("s", np.array([0.1, 0.2], np.float32)), graph.constant("z", np.array([1, 2], np.uint8))]
    graph.add("QuantizeLinear", ["x", *grid], "q", axis=1)
    graph.add("DequantizeLinear", ["q", *grid], "y", axis=1)
    model = graph.model({"x": [1, 2, 4]}, {"y": [1, 2, 4]})
    form = symmetric_form(model, zero_points="fold")
    assert form.model is model
    assert [(entry.node, entry.why) for entry in form.declined] == [("q", "an activation with one scale per channel")]


@pytest.mark.parametrize("seed", range(6))
def test_offset_tells_the_source_from_what_stands_for_it(seed: int) -> None:
    """For any grids, each tensor of the source is what stands for it less its offset, padding aside."""
    generator = np.random.default_rng(seed)
    graph = Graph()
    source = "x"
    for number in range(3):
        zero = int(generator.integers(0, 256))
        pads = [int(width) for width in generator.integers(0, 2, 4)]
        source = graph.conv(
            graph.pair(source, float(generator.uniform(0.01, 0.03)), zero), f"c{number}", (3, 3), pads=pads
        )
    graph.pair(source, 0.02, int(generator.integers(0, 256)))
    model = graph.model({"x": [1, 3, 12, 12]}, {f"{source}_dq": [1, 3, "h", "w"]})
    form = folded(model)
    entry = form.tensors[0]
    feed = images(1, 3, 12, 12, seed=seed)
    with OnnxRuntimeRunner(model, optimised=False, outputs=[entry.tensor]) as runner:
        expected = runner.infer(feed)[entry.tensor]
    with OnnxRuntimeRunner(form.model, optimised=False, outputs=[entry.now]) as runner:
        found = runner.infer(feed)[entry.now]
    if entry.pads:
        top, left, bottom, right = entry.pads
        found = found[:, :, top : found.shape[2] - bottom, left : found.shape[3] - right]
    assert np.allclose(expected, found - entry.offset, atol=1e-5)
