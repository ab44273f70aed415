"""What a training is told: where quantisers go, with which scales, and how to find the places again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, two_branches_into_a_concat, weights

from trt_opt.errors import StaleError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.qat.configuration import configuration_of
from trt_opt.qat.places import INPUT, NEAREST, places_of, weight_in_file
from trt_opt.quantize.stage import PrecisionRequest, float_graph
from trt_opt.values.calibration import CalibrationTable, TensorRange
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.placement import Reader
from trt_opt.values.qat import QatConfiguration
from trt_opt.values.samples import DataProvenance


def configuration(
    model: onnx.ModelProto,
    *,
    original: onnx.ModelProto | None = None,
    amax: dict[str, float] | None = None,
    exclude: tuple[str, ...] = (),
) -> QatConfiguration:
    """The configuration of a rewritten model whose tensors all have the threshold 1, unless told otherwise."""
    graph = float_graph(model, PrecisionRequest("static", exclude=exclude))
    found = dict.fromkeys(graph.taps.all, 1.0) | (amax or {})
    ranges = {name: TensorRange(-value, value, value, 10) for name, value in found.items()}
    table = CalibrationTable("0" * 64, DataProvenance("data.npz", "1" * 64, 3), "minmax", ranges, {})
    given = with_unique_node_names(original or model)
    return configuration_of(graph, table, given, model="model.onnx", model_sha256="2" * 64)


def batch_norm_behind_a_convolution() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A convolution with BatchNormalization as exported, without node names, and the same folded under another name."""
    statistics = {"scale": np.full(16, 2, np.float32), "variance": np.full(16, 4 - 1e-5, np.float32)}
    statistics |= {"shift": np.zeros(16, np.float32), "mean": np.zeros(16, np.float32)}
    kernel = weights(16, 3, 3, 3)
    given = model_of(
        [
            conv("", "x", "a", "block.conv.weight"),
            node("BatchNormalization", "", ["a", "scale", "shift", "mean", "variance"], "y"),
        ],
        {"x": [1, 3, 8, 8]},
        {"y": [1, 16, 8, 8]},
        {"block.conv.weight": kernel, **statistics},
    )
    folded = model_of(
        [conv("folded", "x", "y", "w_folded")], {"x": [1, 3, 8, 8]}, {"y": [1, 16, 8, 8]}, {"w_folded": kernel}
    )
    return given, folded


def two_sums_alike() -> onnx.ModelProto:
    """conv1 and conv2 are added twice, one way and the other; a convolution reads each sum."""
    nodes = [
        conv("conv1", "x", "a", "w1"),
        conv("conv2", "x", "b", "w2"),
        node("Add", "first", ["a", "b"], "c"),
        node("Add", "second", ["b", "a"], "d"),
        conv("conv3", "c", "y", "w3"),
        conv("conv4", "d", "z", "w3"),
    ]
    constants = {"w1": weights(16, 3, 3, 3), "w2": weights(16, 3, 3, 3), "w3": weights(16, 16, 3, 3)}
    return model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 16, 8, 8], "z": [1, 16, 8, 8]}, constants)


def six_convolutions_joined() -> onnx.ModelProto:
    """Six convolutions of one input, a Concat, and one that reads it."""
    nodes = [conv(f"conv{number}", "x", f"a{number}", f"w{number}") for number in range(6)]
    nodes += [
        node("Concat", "concat", [f"a{number}" for number in range(6)], "b", axis=1),
        node("Relu", "relu", ["b"], "c"),
        node("MaxPool", "pool", ["c"], "d", kernel_shape=[2, 2]),
        conv("last", "d", "y", "w"),
    ]
    constants = {f"w{number}": weights(16, 3, 3, 3, seed=number) for number in range(6)} | {"w": weights(16, 96, 3, 3)}
    return model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 16, 7, 7]}, constants)


def test_initial_activation_scales_are_threshold_over_127() -> None:
    """127 stands for the calibrated threshold, in float32."""
    found = configuration(residual_block(), amax={"x": 3.0, "b": 0.5})
    assert found.activation_scales["x"] == np.float32(3.0 / 127)
    assert found.activation_scales["b"] == np.float32(0.5 / 127)


def test_one_quantizer_serves_the_convolution_and_the_skip_branch() -> None:
    """What the second convolution reads is what the residual Add reads."""
    (skip,) = [quantizer for quantizer in configuration(residual_block()).activations if quantizer.tensor == "b"]
    assert set(skip.readers) == {Reader("conv2", 0), Reader("add", 1)}


def test_concat_inputs_name_one_scale() -> None:
    """Tensors joined by a Concat share the scale of what they become."""
    found = configuration(two_branches_into_a_concat(), amax={"c": 5.0})
    names = {quantizer.scale for quantizer in found.activations if quantizer.tensor in ("a", "b", "c")}
    assert len(names) == 1
    assert found.activation_scales[names.pop()] == np.float32(5.0 / 127)


def test_close_scales_of_one_tensor_become_one_quantizer() -> None:
    """A tensor that joins a Concat and is read beside it has one pair, as static quantisation would write it."""
    model = two_branches_into_a_concat()
    model.graph.node.append(conv("beside", "a", "z", "w4"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights(16, 16, 3, 3), "w4"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 16, 8, 8]))
    (close,) = [quantizer for quantizer in configuration(model, amax={"a": 0.9}).activations if quantizer.tensor == "a"]
    assert set(close.readers) == {Reader("concat", 0), Reader("beside", 0)}
    apart = [quantizer for quantizer in configuration(model, amax={"a": 0.1}).activations if quantizer.tensor == "a"]
    assert len(apart) == 2


def test_weight_scales_are_per_output_channel() -> None:
    """One scale per output channel, the channel's largest magnitude over 127; Gemm's axis follows transB."""
    model = pooled()
    layers = {layer.node: layer for layer in configuration(model).layers}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(
        np.float32(layers["conv2"].scales), np.float32(np.abs(stored["w2"]).max(axis=(1, 2, 3)) / 127.0)
    )
    assert (layers["gemm"].kind, layers["gemm"].axis, len(layers["gemm"].scales)) == ("Linear", 1, 32)


def test_weights_are_named_as_in_the_file() -> None:
    """A layer with a folded BatchNormalization is traced to the initialiser that was exported, without a node name."""
    given, folded = batch_norm_behind_a_convolution()
    (layer,) = configuration(folded, original=given).layers
    assert layer.weight == "block.conv.weight"


def test_transposed_weights_are_named_as_in_the_file() -> None:
    """A Transpose between initialiser and MatMul is looked through."""
    nodes = [node("Transpose", "turn", ["fc.weight"], "w"), node("MatMul", "product", ["x", "w"], "y")]
    model = model_of(nodes, {"x": [4, 32]}, {"y": [4, 16]}, {"fc.weight": weights(16, 32)})
    assert weight_in_file(model.graph.node[1], GraphIndex(model)) == "fc.weight"


def test_what_stays_float_is_told_with_its_reason() -> None:
    """An excluded layer keeps its place among the layers, without scales, and its reason."""
    found = configuration(residual_block(), exclude=("conv3",))
    assert [layer.scales for layer in found.layers if layer.node == "conv3"] == [()]
    assert {layer.node: layer.reason for layer in found.float_layers}["conv3"] == "excluded by request"


def test_places_are_told_by_the_layers_above_their_operands() -> None:
    """A sum of a convolution and what an earlier one gave names both."""
    (place,) = configuration(residual_block()).places
    assert (place.node, place.kind, place.operands) == ("add", "Add", (("conv2",), ("conv1",)))
    assert (place.alike, place.position) == (1, 0)


def test_places_alike_are_counted() -> None:
    """Two sums of the same layers differ by their order in the graph, however their operands are ordered."""
    first, second = places_of(GraphIndex(two_sums_alike()), {"first", "second"})
    assert (first.alike, first.position, second.alike, second.position) == (2, 0, 2, 1)


def test_no_more_than_the_nearest_layers_are_named() -> None:
    """Of six layers joined by a Concat the last four tell the place apart."""
    found = {place.node: place for place in configuration(six_convolutions_joined()).places}
    assert found["pool"].operands == (("conv2", "conv3", "conv4", "conv5"),)
    assert len(found["pool"].operands[0]) == NEAREST


def test_a_graph_input_counts_as_a_layer() -> None:
    """What nothing is above of comes from the input."""
    nodes = [node("MaxPool", "pool", ["x"], "a", kernel_shape=[1, 1]), conv("conv", "a", "y", "w")]
    model = model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 16, 8, 8]}, {"w": weights(16, 3, 3, 3)})
    (place,) = configuration(model).places
    assert place.operands == ((INPUT,),)


def test_json_round_trip() -> None:
    """What is written is read back."""
    found = configuration(pooled())
    assert value_from_json(QatConfiguration, json_from_value(found), where="qat.json") == found


def test_a_missing_range_is_an_error() -> None:
    """Without a range there is no scale, and none is made up."""
    graph = float_graph(residual_block(), PrecisionRequest("static"))
    table = CalibrationTable("0" * 64, DataProvenance("data.npz", "1" * 64, 3), "minmax", {}, {})
    with pytest.raises(StaleError, match="no range"):
        configuration_of(graph, table, graph.model, model="model.onnx", model_sha256="2" * 64)
