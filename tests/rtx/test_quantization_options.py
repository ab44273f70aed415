"""`--quantization` and its companions as users meet them: what is written, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from onnx import TensorProto
from ort.quantised_models import DYNAMIC_MODELS, TFLITE_MODELS, integer_samples

from trt_opt.samples import DIGITS

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

MODEL = str(DIGITS / "model.onnx")
CALIBRATION = ("--calib-data", str(DIGITS / "calibration.npz"))
EVALUATION = ("--eval-data", str(DIGITS / "test.npz"))


def built(model: str, *options: str) -> dict[str, Any]:
    """The manifest of a build into the folder `store`."""
    done = run("build", model, *options, "--no-baselines", "-o", "store", "--json")
    assert done.exit_code == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)["manifest"]
    return manifest


def precisions(manifest: dict[str, Any]) -> set[str]:
    """What the convolutions and products run in."""
    layers = manifest["precision"]["layers"]
    return {layer["precision"] for layer in layers if layer["op_type"] in ("Conv", "Gemm", "MatMul")}


@pytest.mark.parametrize(
    ("options", "target", "name", "found"),
    [
        (("--quantization", "static", *CALIBRATION), "rtx:8.6", "INT8 + FP16", {"int8", "fp16"}),
        (("--quantization", "weights-only"), "rtx:8.6", "INT8 weights + FP16", {"int8-weights", "fp16"}),
        (
            ("--quantization", "weights-only", "--weights", "int4", "--block-size", "32"),
            "rtx:8.6",
            "INT4 weights + FP16",
            {"int4-weights", "int8-weights", "fp16"},
        ),
        (("--quantization", "fp8", *CALIBRATION), "rtx:8.9", "FP8 + FP16", {"fp8", "fp16"}),
        (
            ("--quantization", "full-integer", *CALIBRATION),
            "rtx:8.6",
            "INT8 with integer ends + FP16",
            {"int8", "fp16"},
        ),
    ],
    ids=["static", "int8-weights", "int4-weights", "fp8", "full-integer"],
)
def test_every_method_builds_an_engine_as_accurate_as_it_says(
    options: tuple[str, ...], target: str, name: str, found: set[str], folder: Path
) -> None:
    """The sample keeps its top-1 within half a point, and the manifest names what was done."""
    manifest = built(MODEL, *options, *EVALUATION, "--target", target)
    variant = manifest["variants"][-1]
    assert variant["name"] == name
    assert precisions(manifest) == found  # the last product has 10 columns, too few to gain anything
    accuracy = variant["accuracy"]
    assert accuracy["candidate_task"]["top1"] > accuracy["reference_task"]["top1"] - 0.005


def test_implicit_quantisation_writes_a_float_model_and_a_cache(folder: Path) -> None:
    """The cache has every float tensor's scale, in the version that the target names."""
    done = run(
        "quantize", MODEL, "-o", "float.onnx", "--quantization", "implicit", *CALIBRATION, "--target", "tensorrt:8.6.1"
    )
    assert done.exit_code == 0, done.stderr
    assert "float.cache" in done.stdout
    assert "--calib=float.cache" in done.stdout.replace("\n", " ")
    model = onnx.load("float.onnx")
    assert not [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast")]
    lines = Path("float.cache").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "TRT-8601-EntropyCalibration2"
    named = {line.rpartition(":")[0] for line in lines[1:]}
    assert named == {"image", *(name for node in model.graph.node for name in node.output)}


def test_full_integer_writes_the_preprocessing_beside_the_model(folder: Path) -> None:
    """A note with the scales, and a graph that takes and gives INT8."""
    done = run("quantize", MODEL, "-o", "int8.onnx", "--quantization", "full-integer", *CALIBRATION)
    assert done.exit_code == 0, done.stderr
    assert "np.clip(steps, -128, 127).astype(np.int8)" in Path("int8.preprocessing.txt").read_text(encoding="utf-8")
    graph = onnx.load("int8.onnx").graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {TensorProto.INT8}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--quantization", "fp8", *CALIBRATION, "--target", "rtx:8.6"), 3, "compute capability 8.9 or later"),
        (("--quantization", "implicit", *CALIBRATION, "--target", "rtx:8.6"), 2, "only TensorRT up to 10 reads"),
        (("--quantization", "statik", *CALIBRATION), 2, "did you mean 'static'"),
        (("--quantization", "fp8", "--target", "rtx:8.9"), 2, "FP8 needs calibration data"),
        (("--quantization", "weights-only", "--weights", "int2"), 2, "there is no --weights int2"),
        (("--quantization", "weights-only", "--weights", "int4", "--block-size", "3"), 2, "block"),
        (("--int8", *CALIBRATION, "--zero-points", "keep"), 2, "there is no --zero-points keep"),
        (("--int8", *CALIBRATION, "--image-input"), 2, "--quantization full-integer"),
        (("--int8", *CALIBRATION, "--weights", "int4"), 2, "is about weights-only quantisation"),
        (("--int8", *CALIBRATION, "--block-size", "64"), 2, "is about weights-only quantisation"),
        (("--quantization", "full-integer", *CALIBRATION, "--io-fp16"), 2, "integers or FP16, not both"),
        (("--quantization", "full-integer", *CALIBRATION, "--image-input"), 2, "needs its preprocessing"),
    ],
)
def test_wrong_requests_are_answered_before_anything_is_written(
    arguments: tuple[str, ...], code: int, message: str, folder: Path
) -> None:
    """Exit code, message, and an empty folder."""
    done = run("build", MODEL, *arguments, "-o", "store")
    assert done.exit_code == code, done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert not Path("store").exists() or not any(Path("store").rglob("*.engine"))


@pytest.mark.parametrize("options", [("--quantization", "fp8"), ("--quantization", "full-integer", *CALIBRATION)])
def test_a_model_that_came_quantised_has_no_use_for_another_method(options: tuple[str, ...], folder: Path) -> None:
    """It keeps its quantisation, and the user is told."""
    assert run("quantize", MODEL, "-o", "once.onnx", *CALIBRATION).exit_code == 0
    done = run("quantize", "once.onnx", "-o", "twice.onnx", "--target", "rtx:8.9", *options)
    assert done.exit_code == 2
    assert "came quantised and keeps its quantisation" in done.stderr
    assert not Path("twice.onnx").exists()


@pytest.mark.parametrize("verb", ["quantize", "rewrite", "lint"])
def test_the_model_itself_is_never_overwritten(verb: str, folder: Path) -> None:
    """Not with --force either: the float model would be lost."""
    before = Path(MODEL).read_bytes()
    Path("model.onnx").write_bytes(before)
    options = {"quantize": CALIBRATION, "rewrite": (), "lint": ("--fix",)}[verb]
    done = run(verb, "model.onnx", "-o", "./model.onnx", "--force", *options)
    assert done.exit_code == 2
    assert "the output is the model itself" in done.stderr
    assert Path("model.onnx").read_bytes() == before


def test_a_cache_for_no_version_of_tensorrt_is_refused_before_the_data_are_run(folder: Path) -> None:
    """Exit code 2, and no table."""
    done = run("calibrate", MODEL, "-o", "table.json", *CALIBRATION, "--cache", "newest")
    assert done.exit_code == 2
    assert "looks like 8.6.1" in done.stderr
    assert not list(folder.iterdir())


def test_a_table_for_integer_ends_can_be_made_and_used(folder: Path) -> None:
    """`calibrate --quantization full-integer` covers the ends too; the model that comes of it is the same."""
    options = ("--quantization", "full-integer")
    assert run("calibrate", MODEL, "-o", "table.json", *options, *CALIBRATION).exit_code == 0
    assert run("quantize", MODEL, "-o", "one.onnx", *options, *CALIBRATION).exit_code == 0
    done = run("quantize", MODEL, "-o", "two.onnx", *options, "--table", "table.json")
    assert done.exit_code == 0, done.stderr
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()


def test_a_model_that_came_quantised_is_not_calibrated_again(folder: Path) -> None:
    """Its scales are the same to the last bit, with other data and another calibrator."""
    assert run("quantize", MODEL, "-o", "once.onnx", "--no-fp16", *CALIBRATION).exit_code == 0
    other = ("--calib-data", str(DIGITS / "test.npz"), "--calibrator", "minmax")
    done = run("quantize", "once.onnx", "-o", "twice.onnx", "--no-fp16", "--int8", *other)
    assert done.exit_code == 0, done.stderr
    assert "keeps its scales" in done.stdout.replace("\n", " ")
    scales = [
        sorted(
            float(onnx.numpy_helper.to_array(tensor))
            for tensor in onnx.load(name).graph.initializer
            if tensor.name.endswith("_scale") and not tensor.dims
        )
        for name in ("once.onnx", "twice.onnx")
    ]
    assert scales[0]
    assert scales[0] == scales[1]


def test_a_dynamically_quantised_model_says_what_it_became(folder: Path) -> None:
    """Weights-only INT8 without calibration data, INT8 with."""
    name = next(iter(DYNAMIC_MODELS))
    onnx.save(DYNAMIC_MODELS[name](), "dynamic.onnx")
    without = built("dynamic.onnx", "--int8", *EVALUATION, "--target", "rtx:8.6")
    assert "int8" not in precisions(without)
    assert "int8-weights" in precisions(without)
    assert any("its weights stay INT8" in note for note in without["warnings"])
    with_data = built("dynamic.onnx", "--int8", *CALIBRATION, "--target", "rtx:8.6")
    assert "int8" in precisions(with_data)
    assert any("got fixed ranges" in note for note in with_data["warnings"])


def test_integer_ends_that_came_with_a_model_are_told(folder: Path) -> None:
    """Scale and zero-point of inputs and outputs are in the manifest and in the note beside the engine."""
    name, make = next(iter(TFLITE_MODELS.items()))
    model = make()
    onnx.save(model, "tflite.onnx")
    feeds = integer_samples(model)
    np.savez("data.npz", **{key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]})
    manifest = built("tflite.onnx", "--eval-data", "data.npz", "--target", "rtx:8.6")
    ends = manifest["ends"]
    assert all(end["scale"] > 0 for end in (*ends["inputs"], *ends["outputs"])), name
    assert any(end["zero_point"] for end in (*ends["inputs"], *ends["outputs"]))
    assert len(list(Path("store").rglob("preprocessing.txt"))) == 1
    assert manifest["variants"][-1]["accuracy"]["outputs"][0]["sqnr_db"] is not None
