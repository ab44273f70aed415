"""`trt-opt advise` as users meet it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of, node, weights

from trt_opt.samples import DIGITS

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

MODEL = str(DIGITS / "model.onnx")

SAMPLES = 60
"""Enough to tell, few enough to wait for."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The options for the first samples of the digits' data, with labels."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("calibration", "test"):
        whole = np.load(DIGITS / f"{name}.npz")
        np.savez(folder / f"{name}.npz", **{key: whole[key][:SAMPLES] for key in whole.files})
    return ("--calib-data", str(folder / "calibration.npz"), "--eval-data", str(folder / "test.npz"))


def told(*arguments: str) -> dict[str, Any]:
    """What --json prints."""
    result = run("advise", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_with_data_and_labels_everything_is_measured(data: tuple[str, ...]) -> None:
    """Size and accuracy of every row, and static INT8 for an Orin."""
    found = told(MODEL, *data, "--device", "orin")
    facts, advice = found["facts"], found["recommendation"]
    rows = {(row["method"], row["weights"]): row for row in facts["figures"]}
    assert {("fp32", ""), ("fp16", ""), ("static", "")} <= set(rows)
    assert all(row["accuracy"]["top1"] > 0.97 for row in rows.values() if row["accuracy"])
    assert rows["static", ""]["accuracy"]["sqnr_db"] > 30
    assert rows["static", ""]["weight_bytes"] < 0.3 * facts["fp32_bytes"]
    assert facts["compute"]["int8_macs"] > 0.99 * facts["compute"]["macs"]
    assert advice["method"] == "static"
    assert advice["command"].startswith("trt-opt bundle ")
    assert advice["then"] == "trt-opt build model.static.bundle"


def test_a_nano_gets_fp16(data: tuple[str, ...]) -> None:
    """It has no INT8: the same model and data, another device."""
    advice = told(MODEL, *data, "--device", "nano")["recommendation"]
    assert advice["method"] == "fp16"
    assert "Jetson Nano has no INT8" in advice["reasons"][0]


def test_without_data_it_says_what_it_can_and_what_data_would_tell() -> None:
    """Sizes, shares and hardware; no accuracy, and notes that name the options."""
    found = told(MODEL, "--device", "rtx-3060")
    facts = found["facts"]
    assert all(row["weight_bytes"] for row in facts["figures"])
    assert not any(row["accuracy"] for row in facts["figures"])
    assert facts["compute"]["macs"] > 1_000_000
    assert any("--calib-data" in note for note in facts["notes"])
    assert any("--eval-data" in note for note in facts["notes"])


def test_the_command_it_prints_runs(data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a card, `trt-opt build` with everything; what it builds is INT8."""
    monkeypatch.chdir(tmp_path)
    advice = told(MODEL, *data, "--target", "rtx:8.6")["recommendation"]
    words = shlex.split(advice["command"])
    assert words[:2] == ["trt-opt", "build"]
    result = run(*words[1:], "--no-baselines", "--json")
    assert result.exit_code == 0, result.output
    layers = json.loads(result.stdout)["manifest"]["precision"]["layers"]
    assert sum(layer["precision"] == "int8" for layer in layers) > 5


@pytest.mark.parametrize("device", ["orin", "nano"])
def test_the_command_for_a_board_runs(
    device: str, data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command writes what the second, on the board, takes: a bundle, or for TensorRT before 8.5 a graph."""
    monkeypatch.chdir(tmp_path)
    advice = told(MODEL, *data, "--device", device)["recommendation"]
    result = run(*shlex.split(advice["command"])[1:])
    assert result.exit_code == 0, result.output
    taken = next(word for word in shlex.split(advice["then"]) if word.endswith((".bundle", ".onnx")))
    file = tmp_path / taken.removeprefix("--onnx=")
    if device == "nano":
        onnx.checker.check_model(onnx.load(file))
    else:
        assert run("bundle", "--check", str(file)).exit_code == 0


def test_people_see_the_table_the_reasons_and_the_command(data: tuple[str, ...]) -> None:
    """Every part of the result has its place."""
    result = run("advise", MODEL, *data, "--device", "orin")
    assert result.exit_code == 0
    for text in ("static INT8", "100.00 %", "simulated", "Jetson AGX Orin", "because", "next ", "there ", "million"):
        assert text in result.stdout
    assert "simulated" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "orin-nanoo"], "orin-nano"),
        (["--device", "h100", "--target", "rtx:8.6"], "9.0"),
        (["--target", "rtx:9.9"], "9.9"),
        (["--target-drop", "-1"], "points"),
        (["--preprocess", "scale=1/255"], "--calib-data"),
        (["--calib-data", "absent.npz"], "absent.npz"),
    ],
)
def test_bad_requests_end_with_2(arguments: list[str], message: str) -> None:
    """What, where, and what to try."""
    result = run("advise", MODEL, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_model_without_any_layer_to_quantise_still_gets_advice(tmp_path: Path) -> None:
    """A MatMul of ten columns: FP16, and the reason."""
    product = [node("MatMul", "matmul", ["x", "w"], "y")]
    onnx.save(model_of(product, {"x": [4, 16]}, {"y": [4, 10]}, {"w": weights(16, 10)}), tmp_path / "m.onnx")
    advice = told(str(tmp_path / "m.onnx"), "--calib-data", "random:2")["recommendation"]
    assert advice["method"] == "fp16"
    assert "16x10 weights" in advice["reasons"][0]
