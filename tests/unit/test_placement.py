"""Where Q/DQ pairs go."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, two_branches_into_a_concat, weights

from trt_opt.errors import RequestError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import infer_shapes
from trt_opt.quantize.placement import placement_of
from trt_opt.values.placement import Placement, Reader


def placed(model: onnx.ModelProto, **options: object) -> Placement:
    """The placement for a model as it is."""
    return placement_of(GraphIndex(infer_shapes(model)), **options)


def readers_of(placement: Placement, tensor: str) -> set[Reader]:
    """Who reads the tensor quantised."""
    return {reader for entry in placement.activations if entry.tensor == tensor for reader in entry.readers}


def rule_of(placement: Placement, name: str) -> str:
    """The rule that decided about a node."""
    return next(layer.rule for layer in placement.layers if layer.node == name)


@pytest.mark.parametrize("addition", ["Add", "Sum"])
def test_the_skip_branch_of_a_residual_add_is_quantised_and_the_fused_branch_is_not(addition: str) -> None:
    """conv2's output stays float up to the sum; the tensor that skips is read quantised by sum and conv2 alike."""
    placement = placed(residual_block(addition))
    assert readers_of(placement, "b") == {Reader("conv2", 0), Reader("add", 1)}
    assert not readers_of(placement, "c")
    assert rule_of(placement, "add") == "residual-add"


def test_nothing_is_quantised_between_convolution_and_activation() -> None:
    """The outputs of the convolutions that an activation follows carry no pair."""
    placement = placed(residual_block())
    assert {entry.tensor for entry in placement.activations} == {"x", "b", "e"}


def test_a_sum_nobody_reads_in_int8_stays_float() -> None:
    """An Add at the graph's end is left alone: a pair there would cost accuracy for nothing."""
    nodes = [conv("conv1", "x", "a", "w"), node("Add", "add", ["a", "x"], "y")]
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, {"w": weights(16, 16, 3, 3)})
    placement = placed(model)
    assert readers_of(placement, "x") == {Reader("conv1", 0)}
    assert rule_of(placement, "add") == "not-a-compute-layer"


def test_all_inputs_of_a_concat_take_the_range_of_its_output() -> None:
    """Both branches are quantised with the range of the concatenated tensor."""
    placement = placed(two_branches_into_a_concat())
    ranges = {entry.tensor: entry.range_of for entry in placement.activations}
    assert ranges == {"x": "x", "a": "c", "b": "c", "c": "c"}


def test_a_concat_with_a_float_reader_is_left_alone() -> None:
    """Where somebody reads the concatenated tensor in float, only the convolution's input is quantised."""
    model = two_branches_into_a_concat()
    model.graph.node.append(node("Sigmoid", "sigmoid", ["c"], "z"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 32, 8, 8]))
    placement = placed(model)
    assert {entry.tensor for entry in placement.activations} == {"x", "c"}


def test_pooling_and_data_movement_run_in_int8_between_int8_layers() -> None:
    """MaxPool and the Transposes share the scale of the convolution behind them; averaging has its own range."""
    placement = placed(pooled())
    ranges = {entry.tensor: entry.range_of for entry in placement.activations}
    assert {name: ranges[name] for name in "bcde"} == dict.fromkeys("bcde", "e")
    assert ranges["g"] == "g"
    assert rule_of(placement, "average") == "average-pooling"


def test_weights_of_a_gemm_are_quantised_along_their_output_axis() -> None:
    """TransB decides which axis holds the output channels."""
    axes = {}
    for transposed in (0, 1):
        shape = (32, 16) if transposed else (16, 32)
        nodes = [node("Gemm", "gemm", ["x", "w"], "y", transB=transposed)]
        placement = placed(model_of(nodes, {"x": [4, 16]}, {"y": [4, 32]}, {"w": weights(*shape)}))
        axes[transposed] = placement.weights[0].axis
    assert axes == {0: 1, 1: 0}


def test_a_small_matrix_product_stays_float_and_says_why() -> None:
    """Below 16 rows or columns INT8 seldom gains."""
    nodes = [node("MatMul", "matmul", ["x", "w"], "y")]
    placement = placed(model_of(nodes, {"x": [4, 16]}, {"y": [4, 10]}, {"w": weights(16, 10)}))
    assert not placement.weights
    assert rule_of(placement, "matmul") == "matmul-too-small"


def test_a_product_of_two_activations_stays_float() -> None:
    """MatMul of two graph inputs is off by default."""
    nodes = [node("MatMul", "matmul", ["x", "z"], "y")]
    placement = placed(model_of(nodes, {"x": [4, 32], "z": [32, 32]}, {"y": [4, 32]}, {}))
    assert rule_of(placement, "matmul") == "activation-by-activation"
    assert not placement.activations


def test_a_product_of_two_activations_is_quantised_on_both_sides_if_asked() -> None:
    """With the option both operands of the MatMul carry a pair, and no weights are stored."""
    nodes = [node("MatMul", "matmul", ["x", "z"], "y")]
    model = model_of(nodes, {"x": [4, 32], "z": [32, 32]}, {"y": [4, 32]}, {})
    placement = placed(model, activation_products=True)
    assert readers_of(placement, "x") | readers_of(placement, "z") == {Reader("matmul", 0), Reader("matmul", 1)}
    assert not placement.weights


def test_weights_with_nan_are_never_quantised() -> None:
    """A NaN in the weights keeps the layer in float, with that reason."""
    poisoned = weights(16, 16, 3, 3)
    poisoned[0, 0, 0, 0] = np.nan
    nodes = [conv("conv1", "x", "y", "w")]
    model = model_of(nodes, {"x": [1, 16, 4, 4]}, {"y": [1, 16, 4, 4]}, {"w": poisoned})
    assert rule_of(placed(model), "conv1") == "weights-not-finite"


def test_an_excluded_layer_stays_float() -> None:
    """--exclude wins over the rules."""
    placement = placed(residual_block(), exclude=["conv2"])
    assert rule_of(placement, "conv2") == "excluded"
    assert {weight.reader.node for weight in placement.weights} == {"conv1", "conv3"}


def test_an_unknown_excluded_layer_is_an_error() -> None:
    """A misspelt node name must not be ignored."""
    with pytest.raises(RequestError, match="conv9"):
        placed(residual_block(), exclude=["conv9"])


def test_a_tensor_that_is_a_graph_output_keeps_its_float_form() -> None:
    """A pool whose output leaves the graph is not pulled into INT8."""
    model = pooled()
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1, 16, 4, 4]))
    assert rule_of(placed(model), "pool") == "not-a-compute-layer"
