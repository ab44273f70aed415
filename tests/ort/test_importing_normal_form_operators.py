"""Each operator on integers, alone, in normal form against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from ort.normal_form_checks import assert_in_normal_form, assert_same_numbers, brought
from ort_session import outputs_of

Arrays = Mapping[str, NDArray[np.generic]]

STEPS: Arrays = {
    "xs": np.float32(0.05),
    "xz": np.uint8(120),
    "us": np.float32(0.08),
    "uz": np.uint8(3),
    "ys": np.float32(0.11),
    "yz": np.uint8(99),
    "ps": np.float32(1 / 256),
    "pz": np.uint8(0),
}
"""Grids of UINT8: of x, of u, of a result, and of probabilities."""

RNG = np.random.default_rng(0)
IMAGE = {"x": RNG.normal(0, 2, (2, 4, 6, 6)).astype(np.float32), "u": RNG.normal(0, 2, (2, 4, 6, 6)).astype(np.float32)}
ROWS = {"x": RNG.normal(0, 2, (3, 8)).astype(np.float32)}

Node = onnx.NodeProto


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> Node:
    """A node; its inputs in one text, "-" for one left out; operators ONNX lacks are ONNX Runtime's."""
    names = ["" if name == "-" else name for name in inputs.split()]
    known = onnx.defs.has(op_type, 21, "")
    return helper.make_node(
        op_type, names, [output], f"{op_type}_{output}", None, "" if known else "com.microsoft", **attributes
    )


def model_of(
    nodes: Sequence[Node],
    feed: Arrays,
    constants: Arrays,
    outputs: Mapping[str, int] = MappingProxyType({"y": TensorProto.FLOAT}),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model that takes the feed, with the `STEPS` that it reads."""
    read = {name for entry in nodes for name in entry.input}
    stored = {name: np.asarray(array) for name, array in {**STEPS, **constants}.items() if name in read}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feed.items()
            if name in read
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    # onnx's checker asks for the rank of outputs.
    for value, array in zip(graph.output, outputs_of(model, fed(model, feed)).values(), strict=True):
        value.type.tensor_type.shape.dim.extend([onnx.TensorShapeProto.Dimension(dim_value=n) for n in array.shape])
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def fed(model: onnx.ModelProto, feed: Arrays) -> dict[str, NDArray[np.generic]]:
    """Of the feed what the model takes."""
    return {value.name: feed[value.name] for value in model.graph.input}


def between(
    nodes: Sequence[Node], feed: Arrays, constants: Arrays, grid: str = "y", opset: int = 17
) -> onnx.ModelProto:
    """Operators from the integers q (of x) and r (of u) to the integers z, dequantised on a grid of `STEPS`."""
    ends = [node("QuantizeLinear", "x xs xz", "q"), node("QuantizeLinear", "u us uz", "r")]
    first = [end for end in ends if any(end.output[0] in entry.input for entry in nodes)]
    last = node("DequantizeLinear", f"z {grid}s {grid}z", "y")
    return model_of([*first, *nodes, last], feed, constants, opset=opset)


def integers(*shape: int, dtype: Any = np.int8, seed: int = 1) -> NDArray[np.generic]:
    """Random weights."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


WEIGHTS = {
    "w": integers(5, 4, 3, 3, dtype=np.uint8),
    "ws": np.float32(0.004),
    "wz": np.uint8(130),
    "b": integers(5, dtype=np.int16).astype(np.int32) // 8,
}

MATRIX = {"w": integers(8, 5, dtype=np.uint8), "ws": np.float32(0.01), "wz": np.uint8(111)}

COLUMNS = {
    "w": integers(5, 8, dtype=np.int8),
    "ws": np.linspace(0.004, 0.02, 5).astype(np.float32),
    "wz": np.zeros(5, np.int8),
    "b": integers(5, dtype=np.int16).astype(np.int32) // 16,
    "xs": np.float32(0.05),
    "xz": np.int8(-8),
    "ys": np.float32(0.1),
    "yz": np.int8(3),
}

CONV = "q xs xz w ws wz ys yz"

OPERATORS: Mapping[str, onnx.ModelProto] = MappingProxyType(
    {
        "conv": between([node("QLinearConv", CONV, "z", pads=[1, 1, 1, 1])], IMAGE, WEIGHTS),
        "conv_with_bias": between([node("QLinearConv", f"{CONV} b", "z", strides=[2, 2])], IMAGE, WEIGHTS),
        "conv_opset_10": between([node("QLinearConv", f"{CONV} b", "z")], IMAGE, WEIGHTS, opset=10),
        "matmul": between([node("QLinearMatMul", CONV, "z")], ROWS, MATRIX),
        "matmul_of_activations": between(
            [node("Transpose", "r", "t", perm=[0, 1, 3, 2]), node("QLinearMatMul", "q xs xz t us uz ys yz", "z")],
            IMAGE,
            {},
        ),
        "gemm_per_column": between([node("QGemm", "q xs xz w ws wz b ys yz", "z", transB=1)], ROWS, COLUMNS),
        "add": between([node("QLinearAdd", "q xs xz r us uz ys yz", "z")], IMAGE, {}),
        "add_of_constant": between(
            [node("QLinearAdd", "q xs xz c us uz ys yz", "z")], IMAGE, {"c": integers(1, 4, 1, 1, dtype=np.uint8)}
        ),
        "mul": between([node("QLinearMul", "q xs xz r us uz ys yz", "z")], IMAGE, {}),
        "concat": between([node("QLinearConcat", "ys yz q xs xz r us uz", "z", axis=1)], IMAGE, {}),
        "global_average_pool": between([node("QLinearGlobalAveragePool", "q xs xz ys yz", "z")], IMAGE, {}),
        "global_average_pool_nhwc": between(
            [node("QLinearGlobalAveragePool", "q xs xz ys yz", "z", channels_last=1)], IMAGE, {}
        ),
        "average_pool": between(
            [node("QLinearAveragePool", "q xs xz ys yz", "z", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], IMAGE, {}
        ),
        "average_pool_nhwc": between(
            [node("QLinearAveragePool", "q xs xz ys yz", "z", kernel_shape=[3, 2], channels_last=1)], IMAGE, {}
        ),
        "leaky_relu": between([node("QLinearLeakyRelu", "q xs xz ys yz", "z", alpha=0.2)], IMAGE, {}),
        "sigmoid": between([node("QLinearSigmoid", "q xs xz ps pz", "z")], IMAGE, {}, "p"),
        "softmax": between([node("QLinearSoftmax", "q xs xz ps pz", "z", opset=13, axis=-1)], ROWS, {}, "p"),
        "softmax_of_opset_11": between(
            [node("QLinearSoftmax", "q xs xz ps pz", "z", opset=11, axis=2)], IMAGE, {}, "p"
        ),
        "where": between(
            [node("QLinearWhere", "c q xs xz r us uz ys yz", "z")], IMAGE, {"c": RNG.random((2, 4, 6, 6)) > 0.5}
        ),
    }
)
"""Operator → a model that ends in a DequantizeLinear."""


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_compute_what_onnx_runtime_does(name: str) -> None:
    """All but a few numbers, whose sums lie between two steps, are the same."""
    source = OPERATORS[name]
    feed = fed(source, ROWS if source.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3 else IMAGE)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    wanted, got = outputs_of(source, feed)["y"], outputs_of(found.model, feed)["y"]
    scale = next(entry.input[1] for entry in source.graph.node if entry.output[0] == "y")
    step = next(numpy_helper.to_array(tensor) for tensor in source.graph.initializer if tensor.name == scale)
    assert wanted.shape == got.shape and wanted.std() > 0
    off = np.abs(wanted - got) / step
    assert off.max() < 1.01
    assert np.mean(off > 0.01) < 0.01


def test_gemm_without_a_grid_gives_floats() -> None:
    """QGemm without an output scale."""
    constants = {**COLUMNS}
    gemm = node("QGemm", "q xs xz w ws wz b", "y", transB=1, alpha=0.5)
    source = model_of([node("QuantizeLinear", "x xs xz", "q"), gemm], ROWS, constants)
    found = brought(source)
    assert found.declined == ()
    assert_same_numbers(source, found.model, [fed(source, ROWS)], 1e-6)


@pytest.mark.parametrize("opset", [13, 18])
def test_reduce_mean_takes_its_axes_as_the_opset_has_it(opset: int) -> None:
    """QLinearReduceMean, which ONNX Runtime has no kernel for, against the same written by hand."""
    linear = node("QLinearReduceMean", "q xs xz ys yz", "z", axes=[2, 3], keepdims=0)
    ends = [node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "z ys yz", "y")]
    by_hand = [
        node("DequantizeLinear", "q xs xz", "d"),
        node("GlobalAveragePool", "d", "m"),
        node("Flatten", "m", "f"),
        node("QuantizeLinear", "f ys yz", "z"),
    ]
    reference = model_of([ends[0], *by_hand, ends[1]], IMAGE, {})
    source = model_of([ends[0], *by_hand, ends[1]], IMAGE, {}, opset=opset)
    del source.graph.node[1:-1]
    source.graph.node.insert(1, linear)
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert_same_numbers(reference, found.model, [fed(source, IMAGE)], 1e-6)


def test_nhwc_convolution_is_an_nchw_one_between_transposes() -> None:
    """ONNX Runtime's QLinearConv with channels_last, against the NCHW one."""
    image = {"x": np.ascontiguousarray(IMAGE["x"].transpose(0, 2, 3, 1))}
    conv = node("QLinearConv", f"{CONV} b", "z", channels_last=1, pads=[1, 1, 1, 1])
    conv.domain = "com.microsoft"
    found = brought(between([conv], image, WEIGHTS))
    assert found.declined == ()
    assert_in_normal_form(found.model)
    plain = between([node("QLinearConv", f"{CONV} b", "z", pads=[1, 1, 1, 1])], IMAGE, WEIGHTS)
    expected = outputs_of(brought(plain).model, fed(plain, IMAGE))["y"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(outputs_of(found.model, image)["y"], expected, atol=1e-5)


MOVES: Mapping[str, tuple[Sequence[Node], Arrays]] = MappingProxyType(
    {
        "transpose": ([node("Transpose", "q", "z", perm=[0, 2, 3, 1])], {}),
        "chain": ([node("Transpose", "q", "t", perm=[0, 2, 3, 1]), node("Flatten", "t", "z")], {}),
        "reshape": ([node("Reshape", "q shape", "z")], {"shape": np.array([2, -1])}),
        "unsqueeze": ([node("Unsqueeze", "q axes", "z")], {"axes": np.array([0])}),
        "slice": ([node("Slice", "q begin end", "z")], {"begin": np.array([0, 1]), "end": np.array([2, 3])}),
        "gather": ([node("Gather", "q at", "z", axis=1)], {"at": np.array([2, 0])}),
        "max_pool": ([node("MaxPool", "q", "z", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])], {}),
        "concat": ([node("Concat", "q q c", "z", axis=1)], {"c": integers(2, 1, 6, 6, dtype=np.uint8)}),
        "pad_with_zero_point": (
            [node("Pad", "q pads xz", "z")],
            {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ),
        "pad_with_integer_0": ([node("Pad", "q pads", "z")], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        "resize": (
            [node("Resize", "q - sizes", "z", mode="nearest")],
            {"sizes": np.array([1, 1, 2, 2], np.float32)},
        ),
        "depth_to_space": ([node("DepthToSpace", "q", "z", blocksize=2)], {}),
        "expand": ([node("Expand", "q shape", "z")], {"shape": np.array([3, 1, 1, 1, 1])}),
        "tile": ([node("Tile", "q times", "z")], {"times": np.array([1, 2, 1, 1])}),
        "where": ([node("Where", "c q k", "z")], {"c": RNG.random((2, 4, 6, 6)) > 0.5, "k": np.uint8(130)}),
        "no_op_cast": ([node("Cast", "q", "z", to=TensorProto.UINT8)], {}),
        "identity": ([node("Identity", "q", "z")], {}),
    }
)


@pytest.mark.parametrize("name", MOVES)
def test_data_movement_happens_to_floats(name: str) -> None:
    """What moved integers between Q and DQ moves floats behind the DequantizeLinear, exactly."""
    nodes, constants = MOVES[name]
    source = between(nodes, IMAGE, constants, "x")
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert [entry.op_type for entry in found.model.graph.node][:2] == ["QuantizeLinear", "DequantizeLinear"]
    assert_same_numbers(source, found.model, [fed(source, IMAGE)], 1e-7)


@pytest.mark.parametrize("name", ["transpose", "chain", "max_pool"])
def test_moved_integers_leave_by_a_quantize_linear(name: str) -> None:
    """Where the moved integers are graph outputs, the floats are moved before their one QuantizeLinear."""
    nodes, constants = MOVES[name]
    source = model_of([node("QuantizeLinear", "x xs xz", "q"), *nodes], IMAGE, constants, {"z": TensorProto.UINT8})
    found = brought(source)
    kinds = [entry.op_type for entry in found.model.graph.node]
    assert kinds == [*(entry.op_type for entry in nodes), "QuantizeLinear"]
    assert_same_numbers(source, found.model, [fed(source, IMAGE)])


@pytest.mark.parametrize("name", ["transpose", "chain", "slice", "pad_with_zero_point"])
def test_integer_inputs_are_dequantised_first(name: str) -> None:
    """Data movement of a graph input happens behind its DequantizeLinear."""
    nodes, constants = MOVES[name]
    feed = {"q": integers(2, 4, 6, 6, dtype=np.uint8)}
    source = model_of([*nodes, node("DequantizeLinear", "z xs xz", "y")], feed, constants)
    found = brought(source)
    assert found.model.graph.node[0].op_type == "DequantizeLinear"
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [feed], 1e-7)


def test_argmax_reads_floats() -> None:
    """Largest integer and largest float are at the same place."""
    nodes = [node("QuantizeLinear", "x xs xz", "q"), node("ArgMax", "q", "y", axis=1)]
    source = model_of(nodes, IMAGE, {}, {"y": TensorProto.INT64})
    found = brought(source)
    assert found.declined == ()
    assert_in_normal_form(found.model)
    assert_same_numbers(source, found.model, [fed(source, IMAGE)])
