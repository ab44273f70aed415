"""`trt-opt compare` over engines of the stand-in: against ONNX files, one another, and another version of TensorRT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from vendor_bindings import Bindings, bindings_or_skip

from trt_opt.build.store import EngineStore
from trt_opt.values.codec import value_from_json
from trt_opt.values.model_comparison import ModelComparison

pytestmark = pytest.mark.contract

DIGITS = Path(__file__).parents[2] / "trt_opt" / "samples" / "digits"
MODEL = str(DIGITS / "model.onnx")
SHAPES = ("--min-shapes", "image:1x1x8x8", "--opt-shapes", "image:1x1x8x8", "--max-shapes", "image:2x1x8x8")
INT8 = ("--int8", "--calib-data", str(DIGITS / "calibration.npz"))

ONE_VERSION = pytest.mark.parametrize("bindings", ["10.3.0"], indirect=True)


@pytest.fixture
def data(folder: Path) -> str:
    """The first 30 test digits, with labels."""
    with np.load(DIGITS / "test.npz") as arrays:
        np.savez(folder / "few.npz", **{name: arrays[name][:30] for name in arrays.files})
    return "few.npz"


def built(python: Path, *options: str) -> str:
    """The folder of a new engine."""
    store = EngineStore(Path("engines"))
    before = {entry.key for entry in store.entries()}
    done = run(
        *("build", MODEL, "--target", "tensorrt", "--tensorrt-python", str(python), "--no-baselines", *SHAPES), *options
    )
    assert done.exit_code == 0, done.stderr
    (made,) = [entry for entry in store.entries() if entry.key not in before]
    return made.folder


def compared(*arguments: str) -> ModelComparison:
    done = run("compare", *arguments, "--json")
    assert done.exit_code in (0, 1), done.stderr
    return value_from_json(ModelComparison, done.stdout, where="stdout")


def test_an_engine_meets_the_onnx_file_and_another_precision(
    data: str, tensorrt_python: Path, bindings: Bindings
) -> None:
    """Accuracy against the file, layers by the engine's own word, and all sides timed in the same run."""
    half, int8 = built(tensorrt_python, "--fp16"), built(tensorrt_python, *INT8)
    python = ("--tensorrt-python", str(tensorrt_python))
    found = compared(MODEL, half, int8, "--data", data, *python, "--min-sqnr", "25", "--rounds", "5")
    assert [side.name for side in found.sides] == ["FP32", "FP16", "INT8 + FP16"]
    assert [one.verdict for one in found.comparisons] == ["PASS", "PASS"], found.reason
    assert [one.samples for one in found.comparisons] == [30, 30]
    engine = found.sides[2]
    assert engine.library == f"tensorrt {bindings.version}"
    assert engine.layers_from == "engine"
    assert engine.int8_layers
    assert engine.float_layers
    assert engine.engine_bytes == (Path(int8) / "model.engine").stat().st_size
    assert [timing.kind for timing in found.timings] == ["onnxruntime", "tensorrt", "tensorrt"]
    assert found.timings[0].compute is None
    assert all(timing.compute is not None for timing in found.timings[1:])
    told = " ".join(found.findings)
    assert "FP32 ran on ONNX Runtime, whose speed is not held against an engine's" in told
    assert "simulated" not in told


def test_two_versions_of_tensorrt_meet(data: str, tmp_path: Path) -> None:
    """Each engine goes to the interpreter that has its version, in whatever order these are named."""
    pythons = [
        bindings_or_skip(version).write_python(tmp_path / f"python-{version}") for version in ("8.6.1", "10.3.0")
    ]
    old, new = (built(python, *INT8) for python in pythons)
    for order in (pythons, pythons[::-1]):
        asked = [part for python in order for part in ("--tensorrt-python", str(python))]
        found = compared(old, new, "--data", data, *asked, "--no-timing", "--min-sqnr", "25")
        assert found.verdict == "PASS", found.reason
        assert [side.name for side in found.sides] == [
            "INT8 + FP16 on tensorrt 8.6.1",
            "INT8 + FP16 on tensorrt 10.3.0",
        ]
    lacking = run("compare", old, new, "--data", data, "--tensorrt-python", str(pythons[0]))
    assert lacking.exit_code == 2
    assert "10.3.0" in lacking.stderr


@ONE_VERSION
def test_graphs_of_engines_are_compared_layer_by_layer(data: str, tensorrt_python: Path) -> None:
    """By what lies beside them; refused where that is gone."""
    engine = built(tensorrt_python, *INT8)
    python = ("--tensorrt-python", str(tensorrt_python), "--no-timing")
    found = compared(MODEL, engine, "--data", data, *python, "--layerwise", "--layerwise-sqnr", "35")
    (entry,) = found.layerwise
    assert entry.first is not None
    assert len(entry.tensors) > 20
    assert "the graph that it was built from" in " ".join(found.findings)
    (Path(engine) / "model.onnx").unlink()
    refused = run("compare", MODEL, engine, "--data", data, *python, "--layerwise")
    assert refused.exit_code == 2
    assert "--layerwise compares ONNX graphs" in refused.stderr


@ONE_VERSION
def test_an_engine_that_changed_is_refused(data: str, tensorrt_python: Path) -> None:
    """Before anything runs it."""
    engine = Path(built(tensorrt_python, "--fp16"))
    content = bytearray((engine / "model.engine").read_bytes())
    content[-1] ^= 1
    (engine / "model.engine").write_bytes(content)
    refused = run("compare", MODEL, str(engine), "--data", data, "--tensorrt-python", str(tensorrt_python))
    assert refused.exit_code == 2
    assert "model.engine has other content" in refused.stderr


@ONE_VERSION
def test_an_engine_without_a_manifest_is_refused(data: str, tensorrt_python: Path, folder: Path) -> None:
    """Nobody could say what it is."""
    shutil.copy(Path(built(tensorrt_python, "--fp16")) / "model.engine", folder / "alone.engine")
    refused = run("compare", MODEL, "alone.engine", "--data", data, "--tensorrt-python", str(tensorrt_python), "--json")
    assert refused.exit_code == 2
    assert "no manifest" in json.loads(refused.stdout)["what"]


@ONE_VERSION
def test_limits_name_the_outputs_of_an_engine(data: str, tensorrt_python: Path) -> None:
    """An engine as the reference: its outputs are in its manifest."""
    half = built(tensorrt_python, "--fp16")
    python = ("--tensorrt-python", str(tensorrt_python), "--no-timing")
    assert run("compare", half, MODEL, "--data", data, *python, "--min-sqnr", "logits:30").exit_code == 0
    refused = run("compare", half, MODEL, "--data", data, *python, "--min-sqnr", "logit:30")
    assert (refused.exit_code, "the outputs are logits" in refused.stderr) == (2, True)
