"""`--from-cache` as users meet it: what is written, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from collection import data_folder, model_file, needs_collection
from command_line import run
from graphs import weights
from ort.quantised_models import TFLITE_MODELS
from unit.graph_models import model_of

from calibrators import CalibrationCache, cache_from_text, text_from_cache
from trt_opt.files import sha256_of_file
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.load import load_model
from trt_opt.samples import DIGITS
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import value_from_json
from trt_opt.values.native_calibration import CacheRecord

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

MODEL = str(DIGITS / "model.onnx")
CALIBRATION = ("--calib-data", str(DIGITS / "calibration.npz"))
EVALUATION = ("--eval-data", str(DIGITS / "test.npz"))
TARGET = ("--target", "rtx:8.6")


@pytest.fixture
def cache(folder: Path) -> Path:
    """The cache of a calibration of the sample model."""
    done = run("calibrate", MODEL, *CALIBRATION, *TARGET, "--no-fp16", "--cache", "8.6.1", "-o", "table.json")
    assert done.exit_code == 0, done.stderr
    return folder / "table.cache"


def quantized(*options: str) -> dict[str, Any]:
    """The report of `quantize`."""
    done = run("quantize", MODEL, *TARGET, *options, "--json")
    assert done.exit_code == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def without(cache: Path, *names: str) -> str:
    """A copy of the cache without some entries."""
    kept = [line for line in cache.read_text().splitlines() if line.rpartition(":")[0] not in names]
    copy = cache.with_name("part.cache")
    copy.write_text("\n".join(kept) + "\n")
    return str(copy)


def test_a_cache_gives_the_graph_that_its_table_gives(cache: Path) -> None:
    """Bit by bit, whatever the version, the line ends and the mark of the editor that saved it."""
    quantized("--table", "table.json", "--no-fp16", "-o", "from_table.onnx")
    cache.write_bytes(b"\xef\xbb\xbf" + cache.read_bytes().replace(b"TRT-8601", b"TRT-100300").replace(b"\n", b"\r\n"))
    report = quantized("--from-cache", str(cache), "--no-fp16", *EVALUATION, "-o", "from_cache.onnx")
    assert Path("from_cache.onnx").read_bytes() == Path("from_table.onnx").read_bytes()
    assert len(report["cache"]["exact"]) == 7
    assert (report["cache"]["version"], report["cache"]["algorithm"]) == ("10.3.0", "EntropyCalibration2")
    assert report["cache"]["missing"] == {}
    assert report["data"]["cache"] == str(cache)
    assert report["accuracy"]["outputs"][0]["sqnr_db"] > 30
    assert "says nothing of the model or data" in report["warnings"][0]


def test_what_is_missing_stays_in_float_or_comes_from_data(cache: Path) -> None:
    """People are told which layers and why; --calib-data gives these ranges, and leaves those of the cache alone."""
    part = without(cache, "pool_output")
    done = run("quantize", MODEL, *TARGET, "--from-cache", part, "-o", "float.onnx", "--explain")
    assert done.exit_code == 0, done.stderr
    assert "no range for pool_output: block2/depthwise/conv in float" in done.stdout
    assert "the calibration cache has no range for 'pool_output'" in " ".join(done.stdout.split())
    assert "FP16 was chosen without data" in done.stdout
    report = quantized("--from-cache", part, *CALIBRATION, "--no-fp16", "-o", "filled.onnx")
    assert report["cache"]["from_data"] == ["pool_output"]
    assert report["cache"]["layers"] == report["cache"]["layers_possible"]
    assert report["data"]["samples"] == 128
    quantized("--table", "table.json", "--no-fp16", "-o", "from_table.onnx")
    assert Path("filled.onnx").read_bytes() == Path("from_table.onnx").read_bytes()


def test_data_that_reach_elsewhere_are_told(cache: Path) -> None:
    """Thresholds of another preprocessing show, and are used all the same: no search replaces them."""
    old = cache_from_text(cache.read_bytes())
    scales = {name: scale * (255 if name == "image" else 1) for name, scale in old.scales.items()}
    cache.write_text(text_from_cache(CalibrationCache("8.6.1", "EntropyCalibration2", scales)))
    report = quantized("--from-cache", str(cache), *CALIBRATION, "-o", "far.onnx")
    assert list(report["cache"]["far_from_data"]) == ["image"]
    assert report["search"] is None
    assert any("'image': 255 times" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1"),
        (b"TRT-8601-EntropyCalibration2\n", "names no tensor"),
        (b"TRT-8601-EntropyCalibration2\nimage: 3c01", "line 2: the file ends in the middle of a scale"),
        (b"TRT-8601-EntropyCalibration2\nimage: 3c010204\nstem/re", "line 3"),
        (
            b"TRT-8601-EntropyCalibration2\nimage: 3c010204\nimage: 3c010205\n",
            "line 3: the tensor 'image' occurs twice",
        ),
        (b"\x80\x02}q", "line 1: not UTF-8"),
        (b"TRT-8601-EntropyCalibration2\n123: 3c010204\n456: 3c010204\n", "0 of the 7 tensors"),
    ],
)
def test_wrong_files_are_refused_and_leave_nothing(content: bytes, said: str, folder: Path) -> None:
    """Exit code 2, the place, and no output."""
    (folder / "old.cache").write_bytes(content)
    done = run("quantize", MODEL, *TARGET, "--from-cache", "old.cache", "-o", "out.onnx")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "old.cache" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["old.cache"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--max-drop", "1", *CALIBRATION, *EVALUATION), 2, "search for a budget"),
        (("--quantization", "fp8"), 2, "not for fp8"),
        (("--table", "table.json"), 2, "one of both"),
        (("--from-cache", "nothing.cache"), 2, "cannot be read"),
        (("--calib-data", "nothing.npz"), 2, "nothing.npz"),
    ],
)
def test_what_does_not_go_with_a_cache_is_refused(
    options: tuple[str, ...], code: int, said: str, cache: Path, folder: Path
) -> None:
    """Before any work is done."""
    done = run("quantize", MODEL, *TARGET, "--from-cache", str(cache), *options, "-o", "out.onnx")
    assert done.exit_code == code
    assert said in done.stderr
    assert not (folder / "out.onnx").exists()


def test_a_model_that_came_quantised_takes_no_cache(folder: Path) -> None:
    """It keeps its own scales."""
    onnx.save(next(iter(TFLITE_MODELS.values()))(), folder / "quantised.onnx")
    (folder / "old.cache").write_text("TRT-8601-X\nx: 3c010204\n")
    done = run("quantize", "quantised.onnx", *TARGET, "--from-cache", "old.cache", "-o", "out.onnx")
    assert done.exit_code == 2
    assert "the model came quantised" in done.stderr


def test_the_names_of_the_model_as_it_came_are_understood(folder: Path) -> None:
    """Batch normalisations folded, a Dropout taken out, the opset raised: the cache knows nothing of that."""
    channels = {
        name: np.full(16, value, np.float32) for name, value in {"s": 2.0, "o": 0.0, "m": 0.0, "v": 1.0}.items()
    }
    model = model_of(
        """g (float[1,3,8,8] x) => (float[1,16,6,6] y) {
             a = Conv<pads=[1,1,1,1]>(x, w1)  b = BatchNormalization(a, s, o, m, v)  c = Relu(b)  d = Dropout(c)
             y = Conv(d, w2)
           }""",
        opset=9,
        w1=weights(16, 3, 3, 3),
        w2=weights(16, 16, 3, 3),
        **channels,
    )
    onnx.save(model, folder / "model.onnx")
    scales = {"x": 0.25, "a": 0.5, "b": 1.0, "d": 2.0, "y": 4.0, "(Unnamed Layer* 1) [Scale]_output": 0.0}
    (folder / "old.cache").write_text(text_from_cache(CalibrationCache("8.6.1", "LegacyCalibration", scales)))
    done = run("quantize", "model.onnx", *TARGET, "--from-cache", "old.cache", "--no-fp16", "-o", "out.onnx", "--json")
    assert done.exit_code == 0, done.stderr
    coverage = json.loads(done.stdout)["cache"]
    assert (coverage["exact"], coverage["through"], coverage["missing"]) == (["x"], {"c": ["d"]}, {})
    assert (coverage["not_needed"], coverage["unknown"]) == (["a", "b", "y"], [])
    written = onnx.load(folder / "out.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in written.initializer}
    pairs = {node.input[0]: constants[node.input[1]] for node in written.node if node.op_type == "QuantizeLinear"}
    assert pairs == {"x": 0.25, "c": 2.0}


def test_a_cache_becomes_a_table_and_a_cache_of_another_version(cache: Path, folder: Path) -> None:
    """With a threshold for everything, or not at all; the table is taken like any other, and is not searched with."""
    done = run(
        "calibrate", MODEL, *TARGET, "--no-fp16", "--from-cache", str(cache), "--cache", "10.3.0", "-o", "new.json"
    )
    assert done.exit_code == 0, done.stderr
    assert "which says nothing of the model or data" in " ".join(done.stdout.split())
    assert (folder / "new.cache").read_text() == cache.read_text().replace("TRT-8601", "TRT-100300")
    table = value_from_json(CalibrationTable, (folder / "new.json").read_text(), where="new.json")
    assert table.calibrator == "cache(EntropyCalibration2, TensorRT 8.6.1)"
    quantized("--table", "new.json", "--no-fp16", "-o", "from_table.onnx")
    quantized("--from-cache", str(cache), "--no-fp16", "-o", "from_cache.onnx")
    assert Path("from_table.onnx").read_bytes() == Path("from_cache.onnx").read_bytes()
    done = run("calibrate", MODEL, *TARGET, "--from-cache", without(cache, "image"), "-o", "part.json")
    assert done.exit_code == 2
    assert "no range for 1 tensors that this table needs, 'image'" in done.stderr
    assert not (folder / "part.json").exists()


def test_a_cache_is_written_anew_for_implicit_quantisation(cache: Path, folder: Path) -> None:
    """For another TensorRT, with the algorithm it had."""
    cache.write_text(cache.read_text().replace("EntropyCalibration2", "MinMaxCalibration"))
    options = ("--quantization", "implicit", "--target", "tensorrt:10.3", "--from-cache", str(cache), "--reuse-table")
    done = run("quantize", MODEL, *options, "-o", "out.onnx", "--json")
    assert done.exit_code == 0, done.stderr
    found = cache_from_text((folder / "out.cache").read_text())
    assert (found.version, found.algorithm) == ("10.3.0", "MinMaxCalibration")
    assert cache_from_text(cache.read_text()).scales.items() <= found.scales.items()


def test_a_record_lies_beside_every_cache_that_is_written(cache: Path, folder: Path) -> None:
    """It is told among what was written, kept from being overwritten, and is of the file beside it."""
    options = ("--quantization", "implicit", *CALIBRATION, "--no-fp16", "-o", "out.onnx", "--json")
    done = run("quantize", MODEL, *options, "--target", "tensorrt:8.6")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["beside"] == ["out.cache", "out.cache.json"]
    assert not any("--fp16" in warning for warning in report["warnings"])
    for file, version in ((folder / "out.cache", "8.6"), (cache, "8.6.1")):
        record = value_from_json(CacheRecord, file.with_name(f"{file.name}.json").read_text(), where="record")
        assert (record.sha256, record.tensorrt) == (sha256_of_file(file), version)
        assert record.source_sha256 == fingerprint(load_model(Path(MODEL)))
    (folder / "out.onnx").unlink()
    (folder / "out.cache").unlink()
    refused = run("quantize", MODEL, *options, "--target", "tensorrt:8.6")
    assert refused.exit_code == 2
    assert "out.cache.json" in refused.stderr


def test_no_cache_is_written_for_a_tensorrt_without_calibrators(folder: Path) -> None:
    """Before any data are run, and nothing is left."""
    done = run("calibrate", MODEL, *CALIBRATION, "--cache", "11.4", "-o", "new.json")
    assert done.exit_code == 2
    assert "it has no INT8 calibrators" in done.stderr
    assert not (folder / "new.json").exists()


def test_a_build_takes_a_cache(cache: Path) -> None:
    """INT8 without another option; the manifest names the cache, and what another cache holds is another engine."""

    def built(file: str) -> dict[str, Any]:
        options = ("--no-fp16", "--no-baselines", "--opt-shapes", "image:1x1x8x8", "-o", "store")
        done = run("build", MODEL, *TARGET, "--from-cache", file, *options, "--json")
        assert done.exit_code == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome

    first, part = built(str(cache)), built(without(cache, "pool_output"))
    manifest = first["manifest"]
    assert manifest["calibration"]["cache"] == str(cache)
    assert len(manifest["cache_coverage"]["exact"]) == 7
    assert any("made for this model on" in warning for warning in manifest["warnings"])
    assert any("says nothing of the model or data" in warning for warning in part["manifest"]["warnings"])
    assert part["manifest"]["cache_coverage"]["missing"] == {"pool_output": ["block2/depthwise/conv"]}
    assert part["engine"] != first["engine"]
    copied = cache.with_name("copy.cache")
    copied.write_bytes(cache.read_bytes())
    assert built(str(copied))["reused"]
    cache.write_text(cache.read_text().replace("3c010204", "3d010204"))
    assert not built(str(cache))["reused"]


@needs_collection
@pytest.mark.models
@pytest.mark.parametrize("name", ["squeezenet_fp32", "mlperf_ic01_fp32", "mp_face_detection_short"])
def test_caches_of_real_models_cover_everything(name: str, folder: Path) -> None:
    """All that INT8 needs, and what comes out is what the data gave; scales to float32's precision."""
    data = ("--calib-data", str(data_folder(name, 4, folder / "data")))
    model = str(model_file(name))
    done = run("quantize", model, *data, "--quantization", "implicit", "--target", "tensorrt:8.6", "-o", "float.onnx")
    assert done.exit_code == 0, done.stderr
    for options in (("--from-cache", "float.cache", "-o", "cache.onnx"), (*data, "--int8-all", "-o", "data.onnx")):
        done = run("quantize", model, *TARGET, "--no-fp16", *options)
        assert done.exit_code == 0, done.stderr
    assert (folder / "cache.onnx").read_bytes() == (folder / "data.onnx").read_bytes()
