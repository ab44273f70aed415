"""What it costs to bring a quantised model into TensorRT's form is measured, told, and undone where it is wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from collection import data_folder, model_file, needs_collection
from graphs import model_of, node, weights

from trt_opt.graph.load import load_model
from trt_opt.importing import LEAST_OWN_SQNR_DB, imported
from trt_opt.quantize.importing.grid_unsigned import with_unsigned_weights
from trt_opt.report.importing import show_import
from trt_opt.report.show import show
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.importing import ImportReport
from trt_opt.values.samples import Sample


def two_convolutions() -> onnx.ModelProto:
    """A padded Conv, Relu and Conv with class scores behind, all activations UINT8."""
    constants = {
        "w1": weights(8, 3, 3, 3, seed=1),
        "w2": weights(6, 8, seed=2).T.copy(),
        "s1": np.float32(1 / 127),
        "z1": np.array(120, np.uint8),
        "s2": np.float32(0.02),
        "z2": np.array(0, np.uint8),
    }
    nodes = [
        node("QuantizeLinear", "q1", ["x", "s1", "z1"], "q1"),
        node("DequantizeLinear", "d1", ["q1", "s1", "z1"], "d1"),
        node("Conv", "c1", ["d1", "w1"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", "r1", ["c1"], "r1"),
        node("QuantizeLinear", "q2", ["r1", "s2", "z2"], "q2"),
        node("DequantizeLinear", "d2", ["q2", "s2", "z2"], "d2"),
        node("GlobalAveragePool", "p", ["d2"], "p"),
        node("Flatten", "f", ["p"], "f"),
        node("MatMul", "m", ["f", "w2"], "y"),
    ]
    return model_of(nodes, {"x": [2, 3, 8, 8]}, {"y": [2, 6]}, constants)


def samples(*shape: int, count: int = 10) -> tuple[Sample, ...]:
    generator = np.random.default_rng(0)
    return tuple(
        Sample(f"{number}", {"x": generator.uniform(-1, 1, shape).astype(np.float32)}) for number in range(count)
    )


def test_report_of_a_folded_model() -> None:
    """Tensors, outputs and notes are all there, and survive JSON."""
    found = imported(two_convolutions(), samples(2, 3, 8, 8), zero_points="fold")
    report = found.report
    assert report is not None
    assert report.undone is None
    assert (report.samples, report.made_up) == (8, False)
    assert {entry.becomes for entry in report.tensors} == {"folded"}
    assert all(entry.own_sqnr_db is None or entry.own_sqnr_db > 50 for entry in report.tensors)
    assert report.outputs[0].top1_agreement == 1.0
    assert any("Pad" in note for note in report.notes)
    assert value_from_json(ImportReport, json_from_value(report), where="test") == report


def test_regrid_costs_more_than_fold() -> None:
    """Half of a symmetric grid is unused by what is never negative; the report says so."""
    folded, regridded = (
        imported(two_convolutions(), samples(2, 3, 8, 8), zero_points=mode).report for mode in ("fold", "regrid")
    )
    assert folded is not None
    assert regridded is not None
    assert regridded.sqnr_db is not None
    assert folded.sqnr_db is None or folded.sqnr_db > regridded.sqnr_db + 6


def test_report_for_people() -> None:
    """A few lines say what came, what became of it, and what it costs."""
    report = imported(two_convolutions(), samples(2, 3, 8, 8), zero_points="regrid").report
    stream = io.StringIO()
    show(report, show_import, stream, as_json=False)
    lines = stream.getvalue().splitlines()
    assert len(lines) < 14
    assert any(line.startswith("tensors    2 on a new symmetric scale") for line in lines)
    assert any(line.startswith("output     y: ") and "top-1 agrees on" in line for line in lines)
    assert any(line.startswith("worst      d") and "by its own layer" in line for line in lines)


def test_samples_are_made_up_where_there_are_none() -> None:
    """Without data the inputs' grids are filled with random numbers, and the report says so."""
    report = imported(two_convolutions(), (), zero_points="fold").report
    assert report is not None
    assert (report.samples, report.made_up) == (1, True)


def test_float_model_is_not_imported() -> None:
    """A model that is not quantised comes back itself, without a report."""
    model = model_of([node("Relu", "r", ["x"], "y")], {"x": [2]}, {"y": [2]}, {})
    found = imported(model, samples(2), zero_points="fold")
    assert found.model is model
    assert found.report is None


def test_what_folding_cannot_keep_is_undone() -> None:
    """An average of two numbers of a grid of few steps lies half-way between two of them every other time."""
    grid = {"s": np.float32(0.5), "z": np.array(129, np.uint8)}
    nodes = [
        node("QuantizeLinear", "q", ["x", "s", "z"], "q"),
        node("DequantizeLinear", "d", ["q", "s", "z"], "d"),
        node("AveragePool", "p", ["d"], "p", kernel_shape=[1, 2], strides=[1, 2]),
        node("QuantizeLinear", "q2", ["p", "s", "z"], "q2"),
        node("DequantizeLinear", "y", ["q2", "s", "z"], "y"),
    ]
    model = model_of(nodes, {"x": [1, 1, 8, 8]}, {"y": [1, 1, 8, 4]}, grid)
    found = imported(model, samples(1, 1, 8, 8), zero_points="fold")
    assert found.model is model
    assert found.report is not None
    assert found.report.undone is not None
    assert f"{LEAST_OWN_SQNR_DB:g} dB are asked for" in found.report.undone


def test_integer_weights_become_unsigned() -> None:
    """128 more in the weights and in their zero-point is the same product."""
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.integers(-60, 60, (8, 4)).astype(np.int8),
        "az": np.array(3, np.uint8),
        "wz": np.array(-2, np.int8),
        "one": np.float32(1),
    }
    nodes = [
        node("QuantizeLinear", "q", ["x", "one", "az"], "q"),
        node("MatMulInteger", "m", ["q", "w", "az", "wz"], "i"),
        node("Cast", "c", ["i"], "y", to=onnx.TensorProto.FLOAT),
    ]
    model = model_of(nodes, {"x": [2, 8]}, {"y": [2, 4]}, constants)
    unsigned = with_unsigned_weights(model)
    stored = {tensor.name: tensor.data_type for tensor in unsigned.graph.initializer}
    product = next(entry for entry in unsigned.graph.node if entry.op_type == "MatMulInteger")
    assert [stored[name] for name in product.input[1::2]] == [onnx.TensorProto.UINT8] * 2
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    expected = x @ (constants["w"].astype(np.float32) + 2)
    evaluated = onnx.reference.ReferenceEvaluator(unsigned).run(None, {"x": x})[0]
    assert np.array_equal(evaluated, expected)


LEAST_OUTPUT_SQNR_DB = {"mlperf_ic01_int8": 30, "mlperf_kws_int8": 40, "mlperf_sww_int8": 40, "squeezenet_qop_int8": 25}


@needs_collection
@pytest.mark.models
@pytest.mark.parametrize("name", LEAST_OUTPUT_SQNR_DB)
def test_real_models_answer_as_before(name: str, tmp_path: Path) -> None:
    """Folding leaves every layer of real networks alone, and their answers."""
    feeds = [np.load(file) for file in sorted(data_folder(name, 8, tmp_path / "data").glob("*.npz"))]
    given = tuple(Sample(str(at), {key: feed[key] for key in feed.files}) for at, feed in enumerate(feeds))
    for feed in feeds:
        feed.close()
    report = imported(load_model(model_file(name)), given, zero_points="fold").report
    assert report is not None
    assert report.undone is None
    assert report.sqnr_db is None or report.sqnr_db > LEAST_OUTPUT_SQNR_DB[name]
    assert all(output.top1_agreement == 1.0 for output in report.outputs)
    assert min(entry.own_sqnr_db or 1000 for entry in report.tensors) > 30
