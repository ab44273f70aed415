"""Quantisation options together with models and files that they do not go with: said, not passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from ort.quantised_models import DIGITS_MODELS, DYNAMIC_MODELS

from trt_opt.samples import DIGITS

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

MODEL = str(DIGITS / "model.onnx")
CALIBRATION = ("--calib-data", str(DIGITS / "calibration.npz"))


@pytest.fixture
def dynamic(folder: Path) -> str:
    """The digits' network with weights in INT8 and activations quantised as they come."""
    onnx.save(next(iter(DYNAMIC_MODELS.values()))(), "dynamic.onnx")
    return "dynamic.onnx"


@pytest.mark.parametrize("method", ["fp8", "full-integer"])
def test_a_dynamically_quantised_model_brings_no_ranges(method: str, dynamic: str) -> None:
    """A method that needs them is refused without data, not left out."""
    done = run("quantize", dynamic, "-o", "out.onnx", "--quantization", method, "--target", "rtx:8.9")
    assert done.exit_code == 2, done.output
    assert f"--quantization {method} needs ranges" in done.stderr.replace("\n", " ")
    assert not Path("out.onnx").exists()


def test_weights_alone_get_no_ranges(dynamic: str) -> None:
    """Nobody is told of calibration data that were not there."""
    done = run("quantize", dynamic, "-o", "out.onnx", "--quantization", "weights-only", "--target", "rtx:8.6")
    assert done.exit_code == 0, done.stderr
    told = done.stdout.replace("\n", " ")
    assert "its activations are float" in told
    assert "fixed ranges" not in told


@pytest.mark.parametrize(("zero_points", "is_told"), [("fold", True), ("regrid", False)])
def test_calibration_data_choose_new_grids_if_asked(zero_points: str, is_told: bool, folder: Path) -> None:
    """That the model keeps its scales is said of the grids that are kept alone, whichever option asked for INT8."""
    name = next(name for name in DIGITS_MODELS if "u8_s8" in name)
    onnx.save(DIGITS_MODELS[name](), "quantised.onnx")
    options = ("--quantization", "static", "--zero-points", zero_points, "--target", "rtx:8.6")
    done = run("quantize", "quantised.onnx", "-o", "out.onnx", *options, *CALIBRATION)
    assert done.exit_code == 0, done.stderr
    assert ("keeps its scales" in done.stdout.replace("\n", " ")) == is_told


@pytest.mark.parametrize(
    "options", [("--quantization", "fp8", *CALIBRATION), ("--quantization", "weights-only", "--weights", "int4")]
)
def test_tensorrt_before_10_has_no_narrow_types(options: tuple[str, ...], folder: Path) -> None:
    """FP8 and INT4 tensors are refused for it before any work; INT8 weights are not."""
    done = run("quantize", MODEL, "-o", "out.onnx", *options, "--target", "tensorrt:8.6")
    assert done.exit_code == 2, done.output
    assert "from 10" in done.stderr
    assert not Path("out.onnx").exists()
    newer = run("quantize", MODEL, "-o", "out.onnx", *options, "--target", "tensorrt:10.3")
    assert newer.exit_code == 0, newer.stderr


def test_a_cache_overwrites_nothing(folder: Path) -> None:
    """Neither a file that is there nor the table that it lies beside."""
    Path("table.cache").write_text("mine", encoding="utf-8")
    arguments = ("calibrate", MODEL, *CALIBRATION, "--cache", "8.6.1", "-o")
    for name in ("table.json", "table.cache"):
        done = run(*arguments, name, *(["--force"] if name == "table.cache" else []))
        assert done.exit_code == 2, done.output
    assert Path("table.cache").read_text(encoding="utf-8") == "mine"
    assert not Path("table.json").exists()


def test_quantised_files_are_compared_as_what_they_mean(folder: Path) -> None:
    """ONNX Runtime's kernels for UINT8 x INT8 saturate on CPUs without VNNI: they are not asked."""
    name = next(name for name in DIGITS_MODELS if "operators_u8_s8_per_channel" in name)
    onnx.save(DIGITS_MODELS[name](), "source.onnx")
    done = run("quantize", "source.onnx", "-o", "imported.onnx", "--no-fp16", "--target", "rtx:8.6")
    assert done.exit_code == 0, done.stderr
    data = np.load(DIGITS / "test.npz")
    np.savez("test.npz", **{key: data[key][:40] for key in data.files})
    done = run("compare", "source.onnx", "imported.onnx", "--data", "test.npz", "--no-timing", "--min-sqnr", "40")
    assert done.exit_code == 0, done.output
