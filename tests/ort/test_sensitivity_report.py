"""The figures of a sensitivity report, against models that are quantised by hand; its cost; awkward models."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, two_branches_into_a_concat, weights
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sensitivity_study import Feeds, feeds_of, study_of

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.quantize.stage import float_graph, quantized_graph
from trt_opt.sensitivity import end_to_end
from trt_opt.sensitivity.end_to_end import affordable, damages, own_errors
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.sensitivity.measure import Study, report_of
from trt_opt.sensitivity.switchboard import Switchboard
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.progress import Silent
from trt_opt.values.sensitivity import Loss, SensitivityReport


def images(count: int, *shape: int, name: str = "x", seed: int = 0) -> Feeds:
    return feeds_of({name: np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)})


def outputs(
    model: onnx.ModelProto, data: Feeds, tensors: Collection[str] = ()
) -> list[Mapping[str, NDArray[np.generic]]]:
    with OnnxRuntimeRunner(model, optimised=False, outputs=tuple(tensors)) as runner:
        return [runner.infer(sample.feed) for sample in data]


def sqnr_db(model: onnx.ModelProto, other: onnx.ModelProto, data: Feeds, tensor: str) -> float:
    """Pooled over all samples."""
    pairs = zip(outputs(model, data, [tensor]), outputs(other, data, [tensor]), strict=True)
    both = [(np.float64(first[tensor]), np.float64(second[tensor])) for first, second in pairs]
    error = sum(float(np.square(first - second).sum()) for first, second in both)
    return float(10 * np.log10(sum(float(np.square(first).sum()) for first, _ in both) / error))


def with_only(study: Study, nodes: Collection[str]) -> onnx.ModelProto:
    """The quantised graph with everything but these layers excluded."""
    request = study.source.request
    others = tuple(sorted(study.source.quantized_nodes - set(nodes)))
    graph = float_graph(study.source.model, type(request)(method="static", exclude=others))
    return quantized_graph(graph, study.table.ranges).model


def db(loss: Loss) -> float:
    assert loss.kind == "noise"
    assert loss.sqnr_db is not None
    return loss.sqnr_db


def test_every_figure_is_that_of_the_model_quantised_so() -> None:
    """Alone and up to each layer, at its own output and at the graph's; everything in INT8 as it would be built."""
    data = images(8, 16, 8, 8)
    study = study_of(residual_block(), data)
    report = report_of(study, "m", Silent(), passes=12)
    in_order = sorted(report.layers, key=lambda layer: layer.position)
    assert [layer.node for layer in in_order] == ["conv1", "conv2", "add", "conv3"]
    model, whole = study.source.model, quantized_graph(study.source, study.table.ranges).model
    for layer in in_order:
        output = study.source.index.nodes[layer.node].output[0]
        if layer.node != "add":  # by itself it is not quantised: it goes with its neighbours
            alone = with_only(study, {layer.node})
            assert db(layer.own) == pytest.approx(sqnr_db(model, alone, data, output), abs=0.02)
            assert db(layer.output) == pytest.approx(sqnr_db(model, alone, data, "y"), abs=0.02)
        assert db(layer.own_cumulative) == pytest.approx(sqnr_db(model, whole, data, output), abs=0.02)
    assert db(in_order[-1].output_cumulative) == pytest.approx(sqnr_db(model, whole, data, "y"), abs=0.02)
    two = with_only(study, {"conv1", "conv2"})
    assert db(in_order[1].output_cumulative) == pytest.approx(sqnr_db(model, two, data, "y"), abs=0.02)
    assert db(report.outputs[0]) == pytest.approx(sqnr_db(model, whole, data, "y"), abs=0.02)
    assert (report.outputs[0].output, report.outputs[0].samples, report.samples_each) == ("y", 8, 8)


def test_worst_comes_first_and_shares_of_the_arithmetic_add_up() -> None:
    """Ordered by the error at the output; MACs as the shapes of the samples give them."""
    report = report_of(study_of(residual_block(), images(4, 16, 8, 8)), "m", Silent())
    found = [db(layer.output) for layer in report.layers]
    assert found == sorted(found)
    assert sum(layer.macs_share or 0 for layer in report.layers) == pytest.approx(1.0)
    assert {layer.macs for layer in report.layers} == {16 * 16 * 9 * 8 * 8, None}


def test_end_to_end_figures_come_from_the_evaluation_data() -> None:
    """Where there are any; statistics stay with the calibration data."""
    model, calibration = residual_block(), images(4, 16, 8, 8)
    evaluation = Feeds(images(6, 16, 8, 8, seed=5).feeds, "others")
    without = report_of(study_of(model, calibration), "m", Silent())
    study = study_of(model, calibration, evaluation=evaluation)
    report = report_of(study, "m", Silent())
    assert (report.calibration.source, report.end_to_end.source) == ("feeds", "others")
    assert without.end_to_end == without.calibration
    whole = quantized_graph(study.source, study.table.ranges).model
    assert db(report.outputs[0]) == pytest.approx(sqnr_db(study.source.model, whole, evaluation, "y"), abs=0.02)
    own = {layer.node: layer.own for layer in report.layers}
    assert own == {layer.node: layer.own for layer in without.layers}
    assert [layer.output for layer in report.layers] != [layer.output for layer in without.layers]


@pytest.mark.parametrize(("samples", "passes"), [(16, 6.0), (16, 0.5), (3, 1.0), (1, 6.0), (1, 0.1)])
def test_the_cost_does_not_grow_with_layers_times_samples(
    samples: int, passes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of the switched model are counted: so many passes for the layers, one more for float outputs."""
    counted: list[int] = []
    infer = Switchboard.infer

    def counting(self: Switchboard, feed: Mapping[str, NDArray[np.generic]], quantized: Collection[str]) -> object:
        counted.append(len(quantized))
        return infer(self, feed, quantized)

    monkeypatch.setattr(end_to_end.Switchboard, "infer", counting)
    data = images(samples, 3, 8, 8)
    study = study_of(pooled(), data)
    layers = quantized_layers(study.source, study.table.ranges)
    found = damages(study.source, layers, data, Silent(), passes=passes)
    alone = [size for size in counted if size]
    assert len(alone) <= max(1, passes * samples)
    assert len(counted) - len(alone) <= samples
    assert set(alone) == {1}
    measured = [damage for damage in found if damage.samples]
    assert len(measured) == min(len(layers), max(1, int(passes * samples)))
    assert len({damage.samples for damage in measured}) == 1


def test_what_cannot_be_afforded_is_left_out_and_said() -> None:
    """Few samples, many layers: those with the largest own error are measured, the others come behind by it."""
    data = images(2, 3, 8, 8)
    study = study_of(pooled(), data)
    report = report_of(study, "m", Silent(), passes=1)
    kinds = [layer.output.kind for layer in report.layers]
    assert kinds == ["noise"] * 2 + ["unmeasured"] * (len(kinds) - 2)
    assert [layer.output_cumulative.kind for layer in report.layers].count("noise") == 1
    own = [db(layer.own) for layer in report.layers]
    assert max(own[:2]) <= own[2]
    assert own[2:] == sorted(own[2:])
    assert "only the 2 layers" in report.notes[0]


def test_a_ranking_measures_own_errors_only_where_they_are_not_known() -> None:
    """The same ranking either way."""
    data = images(4, 16, 8, 8)
    study = study_of(residual_block(), data)
    layers = quantized_layers(study.source, study.table.ranges)
    own = own_errors(study.source, layers, data, Silent())
    assert damages(study.source, layers, data, Silent(), own=own) == damages(study.source, layers, data, Silent())
    assert affordable(layers, 4, own, 6.0) == (layers, 4)


def test_a_report_is_json_and_back() -> None:
    """Every field, by the one codec."""
    report = report_of(study_of(pooled(), images(3, 3, 8, 8)), "m", Silent())
    assert value_from_json(SensitivityReport, json_from_value(report), where="report") == report


def test_one_sample_and_one_layer_are_enough() -> None:
    """A single convolution on a single sample."""
    model = model_of(
        [conv("only", "x", "y", "w")], {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, {"w": weights(4, 3, 3, 3)}
    )
    report = report_of(study_of(model, images(1, 3, 8, 8)), "m", Silent())
    (layer,) = report.layers
    assert layer.own.sqnr_db == pytest.approx(layer.output.sqnr_db, abs=0.01)
    assert layer.macs_share == 1.0
    assert layer.output_cumulative.samples == 1


def test_a_dynamic_batch_and_samples_of_other_sizes() -> None:
    """Samples of one, two and three rows pool."""
    constants = {"w1": weights(32, 32, seed=1), "w2": weights(32, 32, seed=2)}
    nodes = [
        node("MatMul", "first", ["x", "w1"], "a"),
        node("Relu", "relu", ["a"], "b"),
        node("MatMul", "second", ["b", "w2"], "y"),
    ]
    model = model_of(nodes, {"x": ["n", 32]}, {"y": ["n", 32]}, constants)
    generator = np.random.default_rng(0)
    data = Feeds(tuple({"x": generator.standard_normal((rows, 32)).astype(np.float32)} for rows in (1, 2, 3)))
    report = report_of(study_of(model, data), "m", Silent())
    assert {layer.node for layer in report.layers} == {"first", "second"}
    assert all(20 < db(layer.output) < 60 for layer in report.layers)
    assert all(layer.macs == 32 * 32 for layer in report.layers)


def test_several_inputs_and_outputs_the_worst_is_named() -> None:
    """One branch with an outlier, one without; an integer output is left out."""
    constants = {"w1": weights(8, 3, 3, 3, seed=1), "w2": weights(8, 3, 3, 3, seed=2)}
    nodes = [
        conv("fine", "p", "good", "w1"),
        conv("poor", "q", "bad", "w2"),
        node("ArgMax", "which", ["good"], "index", axis=1),
    ]
    shape = [1, 3, 8, 8]
    model = model_of(nodes, {"p": shape, "q": shape}, {"good": [1, 8, 8, 8], "bad": [1, 8, 8, 8]}, constants)
    model.graph.output.append(helper.make_tensor_value_info("index", TensorProto.INT64, [1, 1, 8, 8]))
    arrays = {name: np.random.default_rng(3).standard_normal((4, 3, 8, 8)).astype(np.float32) for name in "pq"}
    arrays["q"][:, 0, 0, 0] = 500
    report = report_of(study_of(model, feeds_of(arrays), calibrator="minmax"), "m", Silent())
    assert [(layer.node, layer.output.output) for layer in report.layers] == [("poor", "bad"), ("fine", "good")]
    assert [loss.output for loss in report.outputs] == ["good", "bad"]
    assert report.layers[0].cause == "channels"


def test_no_floating_point_output_ranks_by_the_own_error() -> None:
    """A classifier that ends in its answer."""
    constants = {"w": weights(8, 3, 3, 3), "v": weights(8, 8, 3, 3, seed=2)}
    nodes = [
        conv("conv1", "x", "a", "w"),
        conv("conv2", "a", "b", "v"),
        node("ArgMax", "answer", ["b"], "y", axis=1, keepdims=0),
    ]
    model = model_of(nodes, {"x": [1, 3, 8, 8]}, {}, constants)
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.INT64, [1, 8, 8]))
    data = images(3, 3, 8, 8)
    study = study_of(model, data)
    report = report_of(study, "m", Silent())
    assert report.outputs == ()
    assert {layer.output.kind for layer in report.layers} == {"unmeasured"}
    assert [db(layer.own) for layer in report.layers] == sorted(db(layer.own) for layer in report.layers)
    assert "no floating-point output" in report.notes[0]
    found = damages(study.source, quantized_layers(study.source, study.table.ranges), data, Silent())
    assert [damage.node for damage in found] == [layer.node for layer in report.layers]
    assert {damage.energy for damage in found} == {None}


def test_what_becomes_nan_in_int8_is_ruined_and_comes_first() -> None:
    """A root of what INT8 makes negative: never a figure, never behind one."""
    constants = {"w": weights(8, 3, 3, 3), "v": weights(8, 8, 3, 3, seed=2), "low": np.float32(0.002)}
    nodes = [
        conv("fine", "x", "a", "w"),
        conv("root", "x", "b", "w"),
        node("Mul", "square", ["b", "b"], "c"),
        node("Add", "above", ["c", "low"], "d"),
        node("Conv", "ones", ["d", "eye"], "e"),
        node("Log", "log", ["e"], "f"),
        node("Add", "sum", ["a", "f"], "y"),
    ]
    constants["eye"] = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
    model = model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8, 8, 8]}, constants)
    report = report_of(study_of(model, images(4, 3, 8, 8)), "m", Silent())
    first = report.layers[0]
    assert (first.node, first.output.kind, first.output.sqnr_db, first.output.output) == ("ones", "ruined", None, "y")
    assert report.outputs[0].kind == "ruined"


def test_a_branch_beside_the_layers_is_left_alone() -> None:
    """An If whose branches hold layers too: those of the main graph are measured."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 19]>
        g (float[1,16,8,8] x) => (float[1,16,8,8] y) {
          a = Conv<pads=[1,1,1,1]>(x, w)
          total = ReduceSum<keepdims=0>(a)
          positive = Greater(total, nothing)
          b = If (positive) <then_branch = t () => (float[1,16,8,8] p) { p = Conv<pads=[1,1,1,1]>(a, w) },
                             else_branch = e () => (float[1,16,8,8] q) { q = Neg(a) }>
          y = Conv<pads=[1,1,1,1]>(b, w)
        }"""
    )
    for name, array in {"w": weights(16, 16, 3, 3), "nothing": np.float32(0)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    report = report_of(study_of(model, images(4, 16, 8, 8)), "m", Silent())
    assert len(report.layers) == 2
    assert all(db(layer.output) > 20 for layer in report.layers)


def test_layers_that_share_a_scale_are_measured_with_it() -> None:
    """Two branches of unlike ranges in one Concat: the narrow one is not blamed, the reader is measured."""
    report = report_of(study_of(two_branches_into_a_concat(), images(4, 3, 8, 8)), "m", Silent())
    assert {layer.node for layer in report.layers} == {"conv1", "conv2", "conv3"}
    reader = next(layer for layer in report.layers if layer.node == "conv3")
    assert reader.activations[0].tensor == "c"
    assert reader.activations[0].channels == 32


def test_dead_and_outlying_weights_are_counted() -> None:
    """One channel of zeros, one weight of 60 among many of 1."""
    values = np.random.default_rng(0).choice([-1.0, 1.0], (16, 64, 3, 3)).astype(np.float32)
    values[2] = 0
    values[5, 0, 0, 0] = 300
    model = model_of([conv("only", "x", "y", "w")], {"x": [1, 64, 8, 8]}, {"y": [1, 16, 8, 8]}, {"w": values})
    report = report_of(study_of(model, images(4, 64, 8, 8), calibrator="minmax"), "m", Silent())
    found = report.layers[0].weights
    assert found is not None
    assert (found.channels, found.dead_channels, found.largest, found.smallest_range) == (16, 1, 300.0, 1.0)
    assert found.outlier_ratio == pytest.approx(300 / np.sqrt(np.square(values[5]).mean()))
    assert found.outlier_channels == 1
    assert report.layers[0].cause == "weight-outliers"


def test_random_data_are_called_that() -> None:
    """A ranking on noise says little."""
    data = Feeds(images(2, 3, 8, 8).feeds, "random:2", is_random=True)
    assert "random:2 is random data" in report_of(study_of(pooled(), data), "m", Silent()).notes[-1]
