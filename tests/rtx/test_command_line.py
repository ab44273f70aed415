"""The command line as users and scripts meet it: exit codes, messages, JSON, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from command_line import run
from graphs import model_of, node, residual_block, weights

from trt_opt.samples import DIGITS

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

MODEL = str(DIGITS / "model.onnx")
CALIBRATION = ("--calib-data", str(DIGITS / "calibration.npz"))
INT8 = ("--int8", *CALIBRATION)


def files_in(folder: Path) -> set[str]:
    """Every file and folder below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def prepare(folder: Path) -> None:
    """Everything the bad requests below name."""
    whole = Path(MODEL).read_bytes()
    images = np.load(DIGITS / "calibration.npz")["image"]
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "text.onnx").write_text("hello\n")
    (folder / "empty.onnx").touch()
    onnx.save(
        onnx.load(MODEL), folder / "external.onnx", save_as_external_data=True, location="weights", size_threshold=9
    )
    (folder / "weights").unlink()
    escaping = onnx.load(folder / "external.onnx", load_external_data=False)
    for tensor in escaping.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../weights" if entry.key == "location" else entry.value
    (folder / "escaping.onnx").write_bytes(escaping.SerializeToString())
    product = [node("MatMul", "matmul", ["x", "w"], "y")]
    onnx.save(model_of(product, {"x": [4, 16]}, {"y": [4, 10]}, {"w": weights(16, 10)}), folder / "no_int8.onnx")
    unique = [node("Relu", "relu", ["x"], "a"), node("Unique", "unique", ["a"], "y")]
    onnx.save(model_of(unique, {"x": [4]}, {"y": ["n"]}, {}), folder / "unique.onnx")
    poisoned = images.copy()
    poisoned[7, 0, 3, 3] = np.nan
    np.savez(folder / "nan.npz", image=poisoned)
    np.savez(folder / "name.npz", img=images)
    np.savez(folder / "shape.npz", image=images[:, :, :7])
    np.savez(folder / "dtype.npz", image=images.astype(np.uint8))
    np.savez(folder / "pickled.npz", image=np.array([{}], dtype=object))
    (folder / "nothing").mkdir()
    (folder / "images").mkdir()
    (folder / "images" / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "typed.toml").write_text('int8 = "yes"\n')
    (folder / "unknown.toml").write_text('modle = "x"\n')
    (folder / "broken.toml").write_text("a = = 1\n")
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "broken.json").write_text("not json")


BAD_REQUESTS = {
    "no such model": (2, "no such file", ["build", "absent.onnx", *INT8]),
    "a folder": (2, "folder", ["build", "nothing", *INT8]),
    "an empty file": (2, "empty", ["build", "empty.onnx", *INT8]),
    "not ONNX": (2, "not an ONNX model", ["build", "text.onnx", *INT8]),
    "truncated": (2, "cut short", ["build", "truncated.onnx", *INT8]),
    "external data missing": (2, "weights' is missing", ["build", "external.onnx", *INT8]),
    "external data elsewhere": (2, "outside the model's folder", ["build", "escaping.onnx", *INT8]),
    "no layer for INT8": (3, "16x10 weights", ["build", "no_int8.onnx", "--int8", "--calib-data", "random:2"]),
    "an operator TensorRT lacks": (3, "'unique' (Unique)", ["build", "unique.onnx", "--fp16"]),
    "INT8 without data": (2, "--calib-data", ["build", MODEL, "--int8"]),
    "NaN in the data": (2, "nan.npz[7]", ["build", MODEL, "--int8", "--calib-data", "nan.npz"]),
    "a wrong name": (2, "did you mean 'image'", ["build", MODEL, "--int8", "--calib-data", "name.npz"]),
    "a wrong shape": (2, "dimension 2 is 7", ["build", MODEL, "--int8", "--calib-data", "shape.npz"]),
    "a wrong type": (2, "uint8", ["build", MODEL, "--int8", "--calib-data", "dtype.npz"]),
    "pickles": (2, "pickle", ["build", MODEL, "--int8", "--calib-data", "pickled.npz"]),
    "an empty folder": (2, "empty", ["build", MODEL, "--int8", "--calib-data", "nothing"]),
    "images without preprocessing": (2, "--preprocess", ["build", MODEL, "--int8", "--calib-data", "images"]),
    "a corrupt image": (
        2,
        "a.jpg",
        ["build", MODEL, "--int8", "--calib-data", "images", "--preprocess", "resize=8x8,color=L"],
    ),
    "an unknown target": (2, "targets are", ["build", MODEL, *INT8, "--target", "gtx"]),
    "an unknown GPU": (2, "8.7", ["build", MODEL, *INT8, "--target", "rtx:8.7"]),
    "TensorRT without a GPU": (5, "--target rtx", ["build", MODEL, *INT8, "--target", "tensorrt"]),
    "an unknown calibrator": (2, "Did you mean entropy", ["build", MODEL, *INT8, "--calibrator", "entropie"]),
    "an unknown node": (2, "'nope'", ["build", MODEL, *INT8, "--exclude", "nope"]),
    "shapes of another input": (2, "its inputs are image", ["build", MODEL, *INT8, "--min-shapes", "foo:1x2"]),
    "FP16 ends without FP16": (2, "--io-fp16", ["build", MODEL, *INT8, "--io-fp16", "--no-fp16"]),
    "a table that is not there": (2, "no such calibration table", ["build", MODEL, *INT8, "--table", "absent.json"]),
    "a level too high": (2, "0 to 5", ["build", MODEL, *INT8, "--optimization-level", "9"]),
    "an ill-typed recipe": (2, "int8 must be bool", ["build", MODEL, "--recipe", "typed.toml"]),
    "an unknown option in a recipe": (2, "did you mean 'model'", ["build", MODEL, "--recipe", "unknown.toml"]),
    "a recipe that is not TOML": (2, "cannot be read", ["build", MODEL, "--recipe", "broken.toml"]),
    "another file as manifest": (2, "schema version", ["build", "--from", "other.json"]),
    "a manifest that is not JSON": (2, "JSON", ["build", "--from", "broken.json"]),
    "no manifest": (2, "absent.json", ["build", "--from", "absent.json"]),
    "no model": (2, "no model was given", ["build"]),
    "no such engine": (2, "store is empty", ["engines", "verify", "foo"]),
    "no such pass": (2, "nopass", ["explain", "nopass"]),
    "an output that exists": (2, "--force", ["rewrite", MODEL, "-o", "text.onnx"]),
    "an output without a folder": (2, "folder", ["rewrite", MODEL, "-o", "absent/x.onnx"]),
    "models with other inputs": (2, "fed", ["compare", MODEL, "no_int8.onnx", "--data", str(DIGITS / "test.npz")]),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_has_its_exit_code_a_reason_and_leaves_nothing(case: str, folder: Path) -> None:
    """Code, words, and the very same files as before; as JSON too."""
    code, words, arguments = BAD_REQUESTS[case]
    prepare(folder)
    before = files_in(folder)
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert files_in(folder) == before
    told = json.loads(run(*arguments, "--json").stdout)
    assert told["kind"] == "Error"
    assert told["exit_code"] == code


def test_build_makes_an_engine_a_manifest_and_a_table(folder: Path) -> None:
    """The README's command: every file is there, and the table shows all three precisions."""
    result = run("build", MODEL, *INT8, "--eval-data", str(DIGITS / "test.npz"))
    assert result.exit_code == 0, result.output
    assert {Path(name).name for name in files_in(folder) if "." in name} == {
        "model.engine",
        "model.onnx",
        "table.json",
        "manifest.json",
    }
    for words in ("FP32", "FP16", "INT8 + FP16", "99.", "simulated on ONNX Runtime", "head/logits", "took"):
        assert words in result.stdout


def test_json_is_one_object_on_stdout_with_the_measured_figures(folder: Path) -> None:
    """Accuracy of all variants, precisions, hashes; progress stays on stderr."""
    result = run("build", MODEL, *INT8, "--eval-data", str(DIGITS / "test.npz"), "--json")
    manifest = json.loads(result.stdout)["manifest"]
    top1 = [variant["accuracy"]["candidate_task"]["top1"] for variant in manifest["variants"]]
    assert len(top1) == 3
    assert min(top1) > 0.97
    assert max(top1) - min(top1) < 0.01
    assert manifest["calibration"]["samples"] == 128
    assert manifest["engine"]["bytes"] == (folder / json.loads(result.stdout)["engine"]).stat().st_size


def test_the_same_request_finds_its_engine_and_the_manifest_repeats_it(folder: Path) -> None:
    """A second build and one from the manifest reuse the first; --rebuild does not."""
    first = json.loads(run("build", MODEL, *INT8, "--no-baselines", "--json").stdout)
    again = json.loads(run("build", MODEL, *INT8, "--no-baselines", "--json").stdout)
    repeated = json.loads(run("build", "--from", first["manifest_path"], "--json").stdout)
    rebuilt = json.loads(run("build", MODEL, *INT8, "--no-baselines", "--rebuild", "--json").stdout)
    assert [entry["reused"] for entry in (first, again, repeated, rebuilt)] == [False, True, True, False]
    assert len({entry["engine"] for entry in (first, again, rebuilt)}) == 1
    assert Path(repeated["engine"]).samefile(first["engine"])


def test_a_recipe_says_what_options_say_and_options_win(folder: Path) -> None:
    """A TOML file builds the same engine as the options it spells; a typed option changes it."""
    (folder / "recipe.toml").write_text(f'int8 = true\ncalib-data = "{CALIBRATION[1]}"\nbaselines = false\n')
    typed = json.loads(run("build", MODEL, *INT8, "--no-baselines", "--json").stdout)
    spelled = json.loads(run("build", MODEL, "--recipe", "recipe.toml", "--json").stdout)
    changed = json.loads(run("build", MODEL, "--recipe", "recipe.toml", "--calibrator", "minmax", "--json").stdout)
    assert spelled["reused"]
    assert spelled["engine"] == typed["engine"] != changed["engine"]


def test_random_data_are_named_everywhere(folder: Path) -> None:
    """Ranges from random numbers are said to be that in the text and in the manifest."""
    arguments = ("build", MODEL, "--int8", "--calib-data", "random:4", "--no-baselines")
    assert "RANDOM" in run(*arguments).stdout
    assert json.loads(run(*arguments, "--json").stdout)["manifest"]["calibration"]["random"]


def test_engines_are_listed_verified_and_removed(folder: Path) -> None:
    """A flipped byte is found with exit code 1; removing leaves an empty store."""
    built = json.loads(run("build", MODEL, *INT8, "--no-baselines", "--json").stdout)
    assert "model" in run("engines", "list").stdout
    assert run("engines", "verify").exit_code == 0
    engine = Path(built["engine"])
    content = bytearray(engine.read_bytes())
    content[1000] ^= 1
    engine.write_bytes(content)
    found = run("engines", "verify")
    assert found.exit_code == 1
    assert "model.engine" in found.stdout
    assert run("engines", "remove", "model").exit_code == 0
    assert not list(folder.rglob("*.engine"))


def test_calibrate_then_quantize_then_compare(folder: Path) -> None:
    """The stages one by one: the table is taken for its own model and refused for another calibrator."""
    assert run("calibrate", MODEL, "-o", "table.json", *CALIBRATION, "--cache", "8.6.1").exit_code == 0
    assert (folder / "table.cache").read_text().startswith("TRT-8601-EntropyCalibration2")
    assert run("quantize", MODEL, "-o", "q.onnx", "--table", "table.json", "--explain").exit_code == 0
    refused = run("quantize", MODEL, "-o", "r.onnx", "--table", "table.json", "--calibrator", "minmax")
    assert refused.exit_code == 2
    assert "--reuse-table" in refused.stderr
    data = ("--data", str(DIGITS / "test.npz"))
    assert run("compare", MODEL, "q.onnx", *data, "--no-timing", "--max-drop", "1").exit_code == 0
    assert run("compare", MODEL, "q.onnx", *data, "--no-timing", "--min-sqnr", "90").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [["inspect", MODEL], ["doctor"], ["explain"], ["explain", "fold_batch_normalization"], ["engines", "list"]],
    ids=lambda arguments: " ".join(arguments[:1]),
)
def test_verbs_that_only_tell(arguments: list[str], folder: Path) -> None:
    """Text for people and JSON for scripts, and no file."""
    assert run(*arguments).exit_code == 0
    assert "kind" in json.loads(run(*arguments, "--json").stdout)
    assert not files_in(folder)


def test_inspect_names_what_is_refused_and_what_int8_could_do(folder: Path) -> None:
    """A refused node with its operator; the compute layers with their verdicts."""
    prepare(folder)
    refused = json.loads(run("inspect", "unique.onnx", "--json").stdout)["rewrites"][0]["after"]["refused"]
    assert [(entry["node"], entry["op_type"]) for entry in refused] == [("unique", "Unique")]
    layers = {
        layer["node"]: layer["precision"] for layer in json.loads(run("inspect", MODEL, "--json").stdout)["layers"]
    }
    assert layers["stem/conv"] == "int8"
    assert layers["head/logits"] == "fp32"


def program(*arguments: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    environment = {**os.environ, "TRT_OPT_LOG": str(folder.parent / "log.txt")}
    command = [sys.executable, "-m", "trt_opt", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_and_nobody(how: signal.Signals, folder: Path) -> None:
    """Interrupted once the builder runs: exit 130, no file, no child process."""
    onnx.save(residual_block(), folder / "model.onnx")
    (folder / "slow.py").write_text(
        "import time, numpy as np\n"
        "def feeds():\n"
        "    for _ in range(1000):\n"
        "        time.sleep(0.05)\n"
        "        yield {'x': np.ones((1, 16, 8, 8), np.float32)}\n"
    )
    process = program("build", "model.onnx", "--int8", "--calib-data", "slow:feeds", folder=folder)
    watched = psutil.Process(process.pid)
    deadline = time.monotonic() + 30
    while not watched.children() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = watched.children(recursive=True)
    time.sleep(0.5)
    process.send_signal(how)
    _, told = process.communicate(timeout=20)
    assert children
    assert process.returncode == 130
    assert "interrupted" in told
    assert not any(child.is_running() for child in children)
    assert {name.split("/")[0] for name in files_in(folder)} <= {"model.onnx", "slow.py", "__pycache__"}


def test_library_chatter_goes_to_the_log(folder: Path) -> None:
    """TensorRT's own lines are in the log and neither on stdout nor on stderr."""
    process = program("build", MODEL, *INT8, "--no-baselines", folder=folder)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "[INFO]" not in out + told
    assert "[INFO]" in (folder.parent / "log.txt").read_text()


def test_the_command_line_starts_without_heavy_imports() -> None:
    """`trt-opt --help` loads neither NumPy nor any model library."""
    heavy = ["numpy", "onnx", "onnxruntime", "polygraphy", "PIL", "rich.progress", "tensorrt_rtx"]
    check = f"import sys, trt_opt.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
