"""Multiply-accumulate operations, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import model_of
from graphs import pooled

from trt_opt.advising.compute import compute_share
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.macs import macs_by_node, with_input_shapes
from trt_opt.graph.names import with_unique_node_names
from trt_opt.values.advice import ComputeShare
from trt_opt.values.precision import LayerDecision


def zeros(*shape: int) -> np.ndarray:
    """Weights of a shape."""
    return np.zeros(shape, np.float32)


def counted(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> list[int | None]:
    """The MACs of every layer, in graph order."""
    return list(macs_by_node(GraphIndex(with_input_shapes(with_unique_node_names(model), shapes))).values())


@pytest.mark.parametrize(
    ("text", "weights", "macs"),
    [
        # 8·8 positions · 16 channels out · 3·3·3 products each
        ("g (float[1,3,8,8] x) => (y) { y = Conv<pads=[1,1,1,1]>(x, w) }", (16, 3, 3, 3), 64 * 16 * 27),
        # stride 2 halves both sides: 4·4 positions
        ("g (float[1,3,8,8] x) => (y) { y = Conv<pads=[1,1,1,1],strides=[2,2]>(x, w) }", (16, 3, 3, 3), 16 * 16 * 27),
        # depthwise: one channel goes into each of 8
        ("g (float[1,8,8,8] x) => (y) { y = Conv<group=8>(x, w) }", (8, 1, 3, 3), 36 * 8 * 9),
        # one dimension, batch 2: 10 positions
        ("g (float[2,4,12] x) => (y) { y = Conv(x, w) }", (6, 4, 3), 2 * 10 * 6 * 12),
        # transposed: each of 4·4 inputs in 8 channels meets 6 channels · 2·2
        ("g (float[1,8,4,4] x) => (y) { y = ConvTranspose<strides=[2,2]>(x, w) }", (8, 6, 2, 2), 16 * 8 * 6 * 4),
        # transposed in 2 groups: 3 channels out per group
        ("g (float[1,8,4,4] x) => (y) { y = ConvTranspose<group=2>(x, w) }", (8, 3, 2, 2), 16 * 8 * 3 * 4),
        ("g (float[5,32] x) => (y) { y = Gemm(x, w) }", (32, 10), 5 * 32 * 10),
        ("g (float[5,32] x) => (y) { y = Gemm<transB=1>(x, w) }", (10, 32), 5 * 32 * 10),
        ("g (float[32,5] x) => (y) { y = Gemm<transA=1>(x, w) }", (32, 10), 5 * 32 * 10),
        ("g (float[2,7,32] x) => (y) { y = MatMul(x, w) }", (32, 10), 2 * 7 * 32 * 10),
        # a vector times a matrix
        ("g (float[32] x) => (y) { y = MatMul(x, w) }", (32, 10), 320),
    ],
)
def test_layers(text: str, weights: tuple[int, ...], macs: int) -> None:
    """Every operator, with strides, groups, transposition and batches."""
    assert counted(model_of(text, w=zeros(*weights))) == [macs]


def test_products_of_two_activations_count() -> None:
    """Attention's batched products: 4 heads of 6x8 by 8x6."""
    model = model_of("g (float[1,4,6,8] q, float[1,4,8,6] k) => (y) { y = MatMul(q, k) }")
    assert counted(model) == [4 * 6 * 8 * 6]


def test_an_unknown_batch_is_one_unless_a_sample_tells() -> None:
    """A symbolic batch, and a symbolic shape in the file for what is behind it, give way to numbers."""
    model = onnx.shape_inference.infer_shapes(
        model_of("g (float[n,32] x) => (float[n,10] y) { a = Relu(x)  y = Gemm(a, w) }", w=zeros(32, 10))
    )
    assert counted(model) == [320]
    assert counted(model, x=(4, 32)) == [4 * 320]


def test_stale_shapes_in_the_file_give_way() -> None:
    """A file that says batch 8 of an inner tensor, and a sample of batch 4."""
    model = model_of("g (float[n,32] x) => (float[n,10] y) { a = Relu(x)  y = Gemm(a, w) }", w=zeros(32, 10))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [8, 32]))
    assert counted(model, x=(4, 32)) == [4 * 320]


def test_a_group_of_few_channels_is_narrow() -> None:
    """Four groups of 16 channels in and 8 out: INT8, and not wide."""
    text = "g (float[1,64,8,8] x) => (y) { y = Conv<group=4>(x, w) }"
    model = with_unique_node_names(model_of(text, w=zeros(32, 16, 3, 3)))
    found = shares_of(model, model.graph.node[0].name)
    assert found.int8_macs == 36 * 32 * 144
    assert found.wide_macs == 0


def test_an_unknown_size_is_unknown() -> None:
    """No number is made up for an image of unknown size."""
    assert counted(model_of("g (float[1,3,h,w] x) => (y) { y = Conv(x, w0) }", w0=zeros(4, 3, 3, 3))) == [None]


def shares_of(model: onnx.ModelProto, *int8: str) -> ComputeShare:
    """The shares if these nodes are INT8."""
    decisions = [
        LayerDecision(node.name, node.op_type, "int8" if node.name in int8 else "fp32", "rule", f"because {node.name}")
        for node in model.graph.node
    ]
    return compute_share(model, decisions, {}, "test")


def test_shares_of_a_small_network() -> None:
    """conv1 3→16 on 8x8, conv2 16→16 on 4x4, a Gemm 16→32: only INT8 layers of 16 channels in and out are wide."""
    found = shares_of(pooled(), "conv1", "conv2")
    assert found.macs == 27648 + 36864 + 512
    assert (found.int8_macs, found.wide_macs, found.product_macs) == (27648 + 36864, 36864, 512)
    assert found.weights == 16 * 27 + 16 * 144 + 512
    assert [(layer.node, layer.macs, layer.reason) for layer in found.left_out] == [("gemm", 512, "because gemm")]


def test_the_largest_layers_left_out_come_first() -> None:
    """Three are named, a depthwise convolution is never wide, and what has no count is the largest."""
    text = """g (float[1,32,8,8] x, float[1,32,h,w] z) => (a, b, c, d)
              { a = Conv(x, w1)  b = Conv(x, w3)  c = Conv<group=32>(x, wd)  d = Conv(z, w1) }"""
    model = with_unique_node_names(
        model_of(text, w1=zeros(32, 32, 1, 1), w3=zeros(32, 32, 3, 3), wd=zeros(32, 1, 3, 3))
    )
    names = [node.name for node in model.graph.node]
    found = shares_of(model)
    assert [layer.node for layer in found.left_out] == [names[3], names[1], names[0]]
    assert dict(found.not_counted) == {"Conv": 1}
    assert shares_of(model, names[2]).wide_macs == 0


def test_what_multiplies_and_is_not_counted_is_named() -> None:
    """An LSTM's arithmetic is not in the sum, and the result says so."""
    text = "g (float[4,1,8] x) => (y) { y = LSTM<hidden_size=8>(x, w, r) }"
    model = with_unique_node_names(model_of(text, w=zeros(1, 32, 8), r=zeros(1, 32, 8)))
    found = shares_of(model)
    assert (found.macs, dict(found.not_counted)) == (0, {"LSTM": 1})
