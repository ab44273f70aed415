"""The calibrator "auto": each tensor's threshold is the one that does least harm where the tensor is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, residual_block, weights
from numpy.typing import NDArray

from calibrators import Auto, Histogram, calibrator_from_text
from trt_opt import range_choice
from trt_opt.calibrate.ranges import CalibrationPass, calibration_pass
from trt_opt.datasets import open_dataset
from trt_opt.graph.query import graph_inputs
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, float_graph, quantized_graph
from trt_opt.range_choice import activations_behind, chosen_table, tables_of_each
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.progress import Silent
from trt_opt.values.samples import Dataset

Array = NDArray[np.float32]


def outlier_channel(importance: float) -> onnx.ModelProto:
    """A product over 32 features of which the last is a hundred times as large as the others, read with this weight."""
    matrix = weights(32, 32)
    matrix[31] = importance
    return model_of([node("MatMul", "product", ["x", "w"], "y")], {"x": ["n", 32]}, {"y": ["n", 32]}, {"w": matrix})


def outlier_rows(count: int) -> Array:
    """Normal numbers; in the last feature of every row, 100 or so."""
    rows = weights(count, 32, seed=3, scale=1.0)
    rows[:, 31] = 100 + rows[:, 31]
    return rows


def relu_removes_what_is_clipped() -> onnx.ModelProto:
    """Large inputs make the product so negative that the Relu behind it gives zero, clipped or not."""
    matrix = weights(32, 32)
    matrix[31] = -30.0
    nodes = [node("MatMul", "product", ["x", "w"], "y"), node("Relu", "relu", ["y"], "r")]
    return model_of(nodes, {"x": ["n", 32]}, {"r": ["n", 32]}, {"w": matrix})


def stored(folder: Path, model: onnx.ModelProto, rows: Array) -> Dataset:
    path = folder / "data.npz"
    np.savez(path, x=rows)
    return open_dataset(str(path), graph_inputs(model))


def stored_batches(folder: Path, rows: Array) -> Path:
    """A folder of two samples with half of the rows each."""
    for number, batch in enumerate(np.array_split(rows, 2)):
        np.savez(folder / f"{number}.npz", x=batch)
    return folder


def passed(graph: FloatGraph, data: Dataset) -> CalibrationPass:
    return calibration_pass(graph.model, graph.taps, data, calibrator_from_text("auto"), Silent())


def chosen(graph: FloatGraph, data: Dataset) -> CalibrationTable:
    return chosen_table(graph, passed(graph, data), data, Silent())


def static(model: onnx.ModelProto) -> FloatGraph:
    return float_graph(model, PrecisionRequest(method="static"))


def test_outliers_are_clipped_only_where_nobody_needs_them(tmp_path: Path) -> None:
    """The same tensor keeps its outliers for a reader that weighs them, and loses them for one that does not."""
    found = {}
    for importance in (0.0, 1.0):
        model = outlier_channel(importance)
        data = stored(tmp_path, model, outlier_rows(40))
        found[importance] = chosen(static(model), data)
    assert found[1.0].ranges["x"].amax == pytest.approx(found[1.0].ranges["x"].extreme, rel=0.05)
    least = min(Auto().thresholds(passed(static(model), data).histograms["x"]).values())
    assert found[0.0].ranges["x"].amax == least < 0.5 * found[0.0].ranges["x"].extreme
    assert found[0.0].model_sha256 != found[1.0].model_sha256
    assert found[0.0].calibrator == "auto"


def test_what_an_activation_removes_does_not_count(tmp_path: Path) -> None:
    """Clipping that ruins a layer's output is harmless, and chosen, where the Relu behind it makes zeros of both."""
    rows = weights(400, 32, seed=3, scale=1.0)
    rows[:, 31] = 0
    rows[::8] = 0
    rows[::8, 31] = 100
    model = relu_removes_what_is_clipped()
    data = stored(tmp_path, model, rows)
    graph = static(model)
    assert activations_behind(graph.index, "product") == ("relu",)
    assert chosen(graph, data).ranges["x"].amax < 50
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.graph.output[0].name = "y"
    del bare.graph.node[1]
    assert chosen(static(bare), data).ranges["x"].amax == 100


def test_choice_lessens_the_error_of_every_reader_in_sum(tmp_path: Path) -> None:
    """The chosen threshold's output error is the smallest of all candidates', measured in the quantised graph."""
    model = outlier_channel(0.02)
    data = stored(tmp_path, model, outlier_rows(16))
    graph = static(model)
    found = passed(graph, data)
    table = chosen_table(graph, found, data, Silent())
    rows, matrix = outlier_rows(16).astype(np.float64), np.asarray(graph.index.constant("w"), np.float64)

    def error(amax: float) -> float:
        scale = np.float32(amax / 127)
        rounded = np.clip(np.rint(rows / scale), -128, 127) * scale
        return float((((rounded - rows) @ matrix) ** 2).sum())

    errors = {name: error(amax) for name, amax in Auto().thresholds(found.histograms["x"]).items()}
    assert len(errors) > 5
    assert errors[table.chosen["x"]] <= min(errors.values()) * 1.002


def test_choice_is_the_same_every_time_and_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, and runs that probe three candidates at once, give equal tables."""
    model = residual_block()
    data = stored(tmp_path, model, weights(24, 16, 8, 8, scale=1.0))
    graph = static(model)
    first = chosen(graph, data)
    assert set(first.chosen) == set(graph.placement.ranges_needed)
    assert chosen(graph, data) == first
    monkeypatch.setattr(range_choice, "PROBES_AT_ONCE", 3)
    assert chosen(graph, data) == first


def test_inputs_of_a_concatenation_follow_its_reader(tmp_path: Path) -> None:
    """Both inputs of a concatenation get the one threshold that the layer behind it chose."""
    constants = {name: weights(16, 16, 3, 3, seed=seed) for seed, name in enumerate("abc")}
    constants["c"] = weights(16, 32, 3, 3, seed=5)
    nodes = [
        conv("left", "x", "l", "a"),
        conv("right", "x", "r", "b"),
        node("Concat", "joined", ["l", "r"], "j", axis=1),
        conv("last", "j", "y", "c"),
    ]
    model = model_of(nodes, {"x": ["n", 16, 8, 8]}, {"y": ["n", 16, 8, 8]}, constants)
    graph = static(model)
    table = chosen(graph, stored(tmp_path, model, weights(12, 16, 8, 8, scale=1.0)))
    assert set(table.chosen) == {"x", "j"}
    quantized_graph(graph, table.ranges)


@pytest.mark.parametrize("method", ["static", "full-integer", "implicit", "fp8", "weights-only"])
def test_every_method_takes_the_table(tmp_path: Path, method: str) -> None:
    """Each method's graph can be written from the table; where thresholds decide nothing, none is chosen."""
    model = residual_block()
    graph = float_graph(model, PrecisionRequest(method=method, fp16=True))
    data = stored(tmp_path, model, weights(8, 16, 8, 8, scale=1.0))
    table = chosen(graph, data)
    quantized_graph(graph, table.ranges)
    decides = method not in ("fp8", "weights-only")
    assert set(table.chosen) == (set(graph.taps.calibrated) if decides else set())
    for name, candidate in table.chosen.items():
        assert table.ranges[name].amax == passed(graph, data).histograms[name].extreme or candidate != "minmax"


def test_tensor_that_no_layer_reads_loses_least_itself(tmp_path: Path) -> None:
    """A graph output with an integer range gets the candidate with the smallest squared error of its own elements."""
    model = outlier_channel(0.0)
    graph = float_graph(model, PrecisionRequest(method="full-integer"))
    rows = weights(3000, 32, scale=1.0)
    rows[7] *= 30
    data = open_dataset(str(stored_batches(tmp_path, rows)), graph_inputs(model))
    found = passed(graph, data)
    table = chosen_table(graph, found, data, Silent())
    assert table.ranges["y"].amax == Auto().amax(found.histograms["y"]) < table.ranges["y"].extreme
    assert table.chosen["y"] != "minmax"


def test_tensor_of_zeros_has_one_candidate(tmp_path: Path) -> None:
    """A tensor of nothing but zeros keeps its threshold of 0, and the others are chosen."""
    model = residual_block()
    graph = static(model)
    table = chosen(graph, stored(tmp_path, model, np.zeros((4, 16, 8, 8), np.float32)))
    assert {found.amax for found in table.ranges.values()} == {0.0}
    assert set(table.chosen.values()) == {"minmax"}


def test_histograms_come_with_the_table(tmp_path: Path) -> None:
    """A data pass gives every calibrated tensor's histogram beside the table; minmax keeps none."""
    model = residual_block()
    graph = static(model)
    data = stored(tmp_path, model, weights(8, 16, 8, 8, scale=1.0))
    found = passed(graph, data)
    assert set(found.histograms) == set(graph.taps.calibrated)
    assert found.histograms["x"].extreme == found.table.ranges["x"].extreme
    assert replace(found.table).chosen == {}
    minmax = calibration_pass(graph.model, graph.taps, data, calibrator_from_text("minmax"), Silent())
    assert minmax.histograms == {}
    counted = Histogram(found.histograms["x"].bins)
    counted.observe(weights(8, 16, 8, 8, scale=1.0))
    assert counted == found.histograms["x"]


def test_one_pass_gives_the_table_of_every_single_calibrator(tmp_path: Path) -> None:
    """Each is what a data pass of its own gives, name and thresholds."""
    model = residual_block()
    graph = static(model)
    data = stored(tmp_path, model, weights(8, 16, 8, 8, scale=1.0))
    tables = list(tables_of_each(passed(graph, data)))
    assert [table.calibrator.partition("(")[0] for table in tables] == ["minmax", "entropy", "mse", "percentile"]
    for table in tables:
        calibrator = calibrator_from_text(table.calibrator)
        alone = calibration_pass(graph.model, graph.taps, data, calibrator, Silent()).table
        assert (table.calibrator, table.ranges) == (alone.calibrator, alone.ranges)
