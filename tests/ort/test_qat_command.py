"""`trt-opt qat`: what it leaves in its folder, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of, node, residual_block

from trt_opt.samples import DIGITS
from trt_opt.values.codec import value_from_json
from trt_opt.values.qat import QatConfiguration

MODEL, CALIBRATION = DIGITS / "model.onnx", DIGITS / "calibration.npz"
FILES = {"qat.json", "qat_insert.py", "HOW_TO.md"}


def quantized_inputs(path: Path) -> set[tuple[str, int]]:
    """The (node, input) pairs that read a DequantizeLinear."""
    model = onnx.load(path)
    makers = {output: item.op_type for item in model.graph.node for output in item.output}
    return {
        (item.name, index)
        for item in model.graph.node
        for index, name in enumerate(item.input)
        if makers.get(name) == "DequantizeLinear" and item.op_type != "QuantizeLinear"
    }


def error_of(*arguments: str | Path) -> dict[str, Any]:
    """The error a command ends with, as JSON."""
    result = run(*map(str, arguments), "--json")
    assert result.exit_code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder written for the digits sample."""
    output = tmp_path_factory.mktemp("digits") / "qat"
    result = run("qat", str(MODEL), "--calib-data", str(CALIBRATION), "-o", str(output), "--target", "rtx:8.6")
    assert result.exit_code == 0, result.output
    return output


@pytest.fixture
def configuration(folder: Path) -> QatConfiguration:
    """Its configuration."""
    return value_from_json(QatConfiguration, (folder / "qat.json").read_text(encoding="utf-8"), where="qat.json")


def test_three_files_are_written_and_nothing_else(folder: Path) -> None:
    """The script is the packaged one, byte for byte; nothing else is left beside the folder."""
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "qat_insert.py").read_bytes() == files("trt_opt.qat").joinpath("qat_insert.py").read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == ["qat"]


def test_the_same_inputs_are_quantized_as_by_static_quantisation(
    configuration: QatConfiguration, tmp_path: Path
) -> None:
    """The readers in qat.json and the layers with scales are what `trt-opt quantize` puts pairs in front of."""
    static = tmp_path / "static.onnx"
    options = ("--calib-data", str(CALIBRATION), "--no-fp16", "--target", "rtx:8.6", "-o", str(static))
    assert run("quantize", str(MODEL), *options).exit_code == 0
    ours = {(reader.node, reader.index) for quantizer in configuration.activations for reader in quantizer.readers}
    ours |= {(layer.node, 1) for layer in configuration.layers if layer.scales}
    assert ours == quantized_inputs(static)


def test_weights_are_named_as_in_the_file(configuration: QatConfiguration) -> None:
    """BatchNormalization is folded here, and the names are those of before."""
    assert [layer.weight for layer in configuration.layers] == [
        f"{layer.node}/weight" for layer in configuration.layers
    ]
    assert [layer.node for layer in configuration.layers if not layer.scales] == ["head/logits"]


def test_hashes_and_names_are_recorded(configuration: QatConfiguration) -> None:
    """Model, data and the graph's ends are told."""
    assert configuration.model_sha256 == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert configuration.data.samples == 128
    assert [(entry.name, entry.shape) for entry in configuration.inputs] == [("image", ("batch", 1, 8, 8))]
    assert configuration.outputs == ("logits",)


def test_instructions_name_the_numbers(folder: Path, configuration: QatConfiguration) -> None:
    """HOW_TO.md says how many fake-quantisers there are, in ten points."""
    text = (folder / "HOW_TO.md").read_text(encoding="utf-8")
    assert f"puts {len(configuration.activations)} fake-quantisers" in text
    assert "and 8 on weights" in text
    assert [line[:3] for line in text.splitlines() if line[:1].isdigit()] == [f"{n}. "[:3] for n in range(1, 11)]


def test_an_existing_folder_is_left_alone(folder: Path) -> None:
    """Without --force nothing in it changes."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    error = error_of("qat", MODEL, "--calib-data", CALIBRATION, "-o", folder, "--exclude", "head/hidden")
    assert (error["exit_code"], error["what"]) == (2, "the output folder exists already")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_force_replaces_the_three_files(tmp_path: Path) -> None:
    """Other files in the folder stay."""
    output = tmp_path / "qat"
    output.mkdir()
    for name in ("qat.json", "notes.txt"):
        (output / name).write_text("old", encoding="utf-8")
    result = run("qat", str(MODEL), "--calib-data", str(CALIBRATION), "-o", str(output), "--force", "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in output.iterdir()} == {*FILES, "notes.txt"}
    assert (output / "notes.txt").read_text(encoding="utf-8") == "old"
    assert json.loads((output / "qat.json").read_text(encoding="utf-8"))["kind"] == "QatConfiguration"


def test_an_excluded_layer_has_no_quantizer(tmp_path: Path) -> None:
    """--exclude reaches the configuration."""
    options = ("--calib-data", str(CALIBRATION), "-o", str(tmp_path / "qat"), "--exclude", "stem/conv", "--json")
    result = run("qat", str(MODEL), *options)
    written = json.loads(result.stdout)["configuration"]
    assert [layer["scales"] for layer in written["layers"] if layer["node"] == "stem/conv"] == [[]]
    assert "image" not in written["activation_scales"]


def test_a_model_without_int8_layers_is_refused(tmp_path: Path) -> None:
    """Exit code 3, and no folder."""
    model = model_of([node("Relu", "relu", ["x"], "y")], {"x": [1, 4]}, {"y": [1, 4]}, {})
    onnx.save(model, tmp_path / "relu.onnx")
    error = error_of("qat", tmp_path / "relu.onnx", "--calib-data", "random:2", "-o", tmp_path / "qat")
    assert (error["exit_code"], error["error"]) == (3, "UnsupportedModelError")
    assert not (tmp_path / "qat").exists()


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    """Training starts from the float model."""
    onnx.save(residual_block(), tmp_path / "float.onnx")
    static = tmp_path / "static.onnx"
    made = run("quantize", str(tmp_path / "float.onnx"), "--calib-data", "random:2", "-o", str(static))
    assert made.exit_code == 0, made.output
    error = error_of("qat", static, "--calib-data", "random:2", "-o", tmp_path / "qat")
    assert (error["exit_code"], error["what"][:31]) == (3, "this model is quantised already")
    assert not (tmp_path / "qat").exists()


def test_data_are_needed(tmp_path: Path) -> None:
    """Without samples there is no scale to begin with."""
    error = error_of("qat", MODEL, "-o", tmp_path / "qat")
    assert (error["exit_code"], error["hint"]) == (2, "--calib-data DATA")


@pytest.mark.parametrize(("where", "what"), [("file", "this is a file"), ("missing/qat", "the folder to write into")])
def test_a_place_that_cannot_be_written_is_refused_first(tmp_path: Path, where: str, what: str) -> None:
    """A file in the way, or a parent that is not there, is told before anything is computed."""
    (tmp_path / "file").write_bytes(b"")
    error = error_of("qat", "no-such-model.onnx", "--calib-data", "random:2", "-o", tmp_path / where, "--force")
    assert (error["exit_code"], error["what"][: len(what)]) == (2, what)


def test_pytorch_is_not_imported(tmp_path: Path) -> None:
    """The command writes a script for PyTorch without having any."""
    onnx.save(residual_block(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((2, 1, 16, 8, 8), np.float32)[:, 0])
    program = (
        "import sys; sys.modules['torch'] = None; from trt_opt.cli.app import app; "
        "app(sys.argv[1:], standalone_mode=False); print('written')"
    )
    arguments = ["qat", "model.onnx", "--calib-data", "data.npz", "-o", "qat"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "qat").iterdir()} == FILES
