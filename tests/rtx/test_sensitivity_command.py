"""`trt-opt sensitivity` as users meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from collection import data_folder, model_file, needs_collection
from command_line import run
from graphs import model_of, node, pooled, weights
from planted_faults import PLANTED

from trt_opt.samples import DIGITS

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

TARGET = ("--target", "rtx:8.6")


@pytest.fixture
def faulty(folder: Path) -> Path:
    """A model with an outlier channel and its data."""
    planted = PLANTED["outlier_channel"]()
    onnx.save(planted.model, folder / "m.onnx")
    np.savez(folder / "calibration.npz", **planted.calibration)
    np.savez(folder / "evaluation.npz", **planted.labelled)
    return folder


def told(*arguments: str) -> dict[str, Any]:
    """What --json prints."""
    result = run("sensitivity", *arguments, *TARGET, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_people_see_the_guilty_layer_first_with_its_reason(faulty: Path) -> None:
    """The table, the whole model's line, what the figures rest on; progress stays on stderr."""
    result = run("sensitivity", "m.onnx", "--calib-data", "calibration.npz", "--eval-data", "evaluation.npz", *TARGET)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("│ ") and "%" in line]
    assert "conv3" in rows[0]
    for text in ("1 of 16 channels carries", "INT8      everywhere: -8", "at y", "calibration.npz", "evaluation.npz"):
        assert text in result.stdout
    for stage in ("calibrate", "own outputs", "operands", "whole model", "layers alone", "layers up to each"):
        assert stage in result.stderr
        assert stage not in result.stdout


def test_json_holds_every_layer_whatever_the_table_shows(faulty: Path) -> None:
    """--top is about the table."""
    found = told("m.onnx", "--calib-data", "calibration.npz", "--top", "1")
    assert found["layers"][0]["node"] == "conv3"
    assert len(found["layers"]) == 5
    assert found["layers"][0]["output"]["output"] == "y"
    assert found["calibration"] == found["end_to_end"]
    shown = run("sensitivity", "m.onnx", "--calib-data", "calibration.npz", "--top", "1", *TARGET).stdout
    assert "and 4 more" in shown
    assert "conv2" not in shown
    assert "the calibration data" in shown


def test_what_is_excluded_is_not_measured(faulty: Path) -> None:
    """And the rest is fine then."""
    found = told("m.onnx", "--calib-data", "calibration.npz", "--exclude", "conv3")
    assert "conv3" not in {layer["node"] for layer in found["layers"]}
    assert found["outputs"][0]["sqnr_db"] > 30


def test_products_of_activations_are_measured_where_they_are_quantised(folder: Path) -> None:
    """With --activation-products the softmax's reader is there, and first."""
    planted = PLANTED["attention_probabilities"]()
    onnx.save(planted.model, folder / "m.onnx")
    np.savez(folder / "d.npz", **planted.calibration)
    plain = told("m.onnx", "--calib-data", "d.npz")
    assert planted.guilty not in {layer["node"] for layer in plain["layers"]}
    assert told("m.onnx", "--calib-data", "d.npz", "--activation-products")["layers"][0]["node"] == planted.guilty


def test_random_data_are_called_that(folder: Path) -> None:
    """In the line about the ranges and in a note."""
    onnx.save(pooled(), folder / "m.onnx")
    result = run("sensitivity", "m.onnx", "--calib-data", "random:4", *TARGET)
    assert result.exit_code == 0, result.output
    assert "RANDOM DATA" in result.stdout
    assert "random:4 is random data" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["m.onnx"], 2, "--calib-data"),
        (["m.onnx", "--calib-data", "absent.npz"], 2, "absent.npz"),
        (["absent.onnx", "--calib-data", "random:2"], 2, "absent.onnx"),
        (["m.onnx", "--calib-data", "random:2", "--exclude", "nobody"], 2, "nobody"),
        (["m.onnx", "--calib-data", "random:2", "--skip-pass", "nothing"], 2, "nothing"),
        (["m.onnx", "--calib-data", "random:2", "--calibrator", "guess"], 2, "guess"),
        (["m.onnx", "--calib-data", "random:2", "--top", "0"], 2, "top"),
        (["narrow.onnx", "--calib-data", "random:2"], 3, "no layer"),
        (["quantised.onnx", "--calib-data", "random:2"], 3, "came quantised"),
        (["quantised.onnx"], 2, "--calib-data"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(folder: Path, arguments: list[str], code: int, words: str) -> None:
    """With what to do, and nothing on stdout."""
    onnx.save(pooled(), folder / "m.onnx")
    narrow = model_of([node("MatMul", "m", ["x", "w"], "y")], {"x": [1, 4]}, {"y": [1, 4]}, {"w": weights(4, 4)})
    onnx.save(narrow, folder / "narrow.onnx")
    made = run("quantize", "m.onnx", "-o", "quantised.onnx", "--calib-data", "random:2", *TARGET)
    assert made.exit_code == 0, made.output
    result = run("sensitivity", *arguments, *TARGET)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert not result.stdout


def test_the_sample_model_loses_little(folder: Path) -> None:
    """The digits: no layer below 25 dB."""
    found = told(str(DIGITS / "model.onnx"), "--calib-data", str(DIGITS / "calibration.npz"))
    assert min(layer["output"]["sqnr_db"] for layer in found["layers"]) > 25
    assert sum(layer["macs_share"] or 0 for layer in found["layers"]) == pytest.approx(1.0, abs=0.01)


@needs_collection
@pytest.mark.models
@pytest.mark.parametrize("name", ["squeezenet_fp32", "mlperf_kws_fp32", "gesture_keypoint_mlp", "dtln_1"])
def test_real_models_have_a_report(name: str, folder: Path) -> None:
    """Every layer has a figure and a sentence; with float outputs, the whole is no better than its worst layer."""
    data = data_folder(name, 4, folder / "data")
    found = told(str(model_file(name)), "--calib-data", str(data))
    assert found["layers"]
    assert all(layer["reason"] for layer in found["layers"])
    assert all(layer["own"]["kind"] in ("noise", "none") for layer in found["layers"])
    measured = [layer["output"]["sqnr_db"] for layer in found["layers"] if layer["output"]["kind"] == "noise"]
    whole = [output["sqnr_db"] for output in found["outputs"] if output["kind"] == "noise"]
    assert bool(measured) == bool(found["outputs"])
    assert not measured or min(whole) < min(measured) + 6
