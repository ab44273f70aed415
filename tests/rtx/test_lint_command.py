"""`trt-opt lint`, and what the builder makes of what it mends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from collection import model_file, needs_collection
from command_line import run
from lint_models import CASES, early, feed, float_weights, matmul, network, normalized, orphan, two

from trt_opt.acceptance import judge_for
from trt_opt.quantize.lint import RULES
from trt_opt.values.target import target_from_text

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx


def saved(model: onnx.ModelProto, name: str = "model.onnx") -> str:
    """The file's name."""
    onnx.save(model, name)
    return name


def test_a_good_model_has_nothing_found(folder: Path) -> None:
    """Exit code 0, and one line."""
    done = run("lint", saved(two()))
    assert (done.exit_code, done.stdout) == (0, "model.onnx: nothing found\n")


@pytest.mark.parametrize(
    ("model", "worst"), [(lambda: network(z=np.uint8(0)), "error"), (orphan, "warning"), (lambda: matmul(8), "note")]
)
def test_the_gate_decides_the_exit_code(model: object, worst: str, folder: Path) -> None:
    """1 from the asked severity on, 0 below it; only errors count unless told otherwise."""
    name = saved(model())  # type: ignore[operator]
    ranks = ("note", "warning", "error", "never")
    for gate in ranks:
        expected = int(gate != "never" and ranks.index(gate) <= ranks.index(worst))
        assert run("lint", name, "--fail-on", gate).exit_code == expected
    assert run("lint", name).exit_code == int(worst == "error")


def test_people_read_what_is_wrong_and_what_to_do(folder: Path) -> None:
    """Severity, rule, node, what is wrong, the remedy, and whether --fix has it."""
    done = run("lint", saved(network(z=np.uint8(0))))
    assert done.exit_code == 1
    for part in ("errors (1)", "uint8-read-as-int8", "x_q: its integers are UINT8", "do: ", "--fix"):
        assert part in done.stdout
    assert done.stdout.splitlines()[-1] == "model.onnx: 1 error, 0 warnings, 0 notes; --fix can try 1 of them"


def test_json_has_every_node(folder: Path) -> None:
    """The report as a value."""
    done = run("lint", saved(network(z=np.uint8(0))), "--json")
    report = json.loads(done.stdout)
    assert report["kind"] == "LintReport"
    (finding,) = report["findings"]
    assert finding["nodes"] == ["x_q", "x_dq"]
    assert finding["is_fixable"]


def test_severity_and_rules_narrow_what_is_shown(folder: Path) -> None:
    """What is below --severity is counted in a note; --rule and --ignore leave rules out altogether."""
    name = saved(matmul(8))
    assert "matmul-too-small" in run("lint", name).stdout
    hidden = run("lint", name, "--severity", "warning")
    assert "matmul-too-small" not in hidden.stdout
    assert "1 finding below warning not shown" in hidden.stdout
    assert run("lint", name, "--ignore", "matmul-too-small").stdout == "model.onnx: nothing found\n"
    assert run("lint", name, "--rule", "orphan-pair").stdout == "model.onnx: nothing found\n"


def test_the_rules_are_listed_without_a_model(folder: Path) -> None:
    """Each with its severity, its reason and its remedy; as JSON too."""
    listed = run("lint", "--rules")
    assert listed.exit_code == 0
    assert all(f"{name} (" in listed.stdout for name in RULES)
    rules = json.loads(run("lint", "--rules", "--json").stdout)["rules"]
    assert [rule["name"] for rule in rules] == list(RULES)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("missing.onnx",),
        ("model.onnx", "--fix"),
        ("model.onnx", "-o", "out.onnx"),
        ("model.onnx", "--severity", "bad"),
        ("model.onnx", "--fail-on", "bad"),
        ("model.onnx", "--rule", "bad"),
        ("model.onnx", "--fix", "-o", "there.onnx"),
        ("model.onnx", "--fix", "-o", "no/such/folder.onnx"),
        ("model.onnx", "--preprocess", "scale=1/255"),
        ("model.onnx", "--table", "missing.json"),
        ("text.onnx",),
    ],
)
def test_wrong_requests_leave_nothing_behind(arguments: tuple[str, ...], folder: Path) -> None:
    """Exit code 2, a hint, and no file."""
    saved(two())
    Path("there.onnx").write_text("mine")
    Path("text.onnx").write_text("not a model")
    before = sorted(folder.iterdir())
    done = run("lint", *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert sorted(folder.iterdir()) == before
    assert Path("there.onnx").read_text() == "mine"


def test_sarif_is_written_beside_the_result(folder: Path) -> None:
    """The same findings, and the exit code stays the gate's."""
    done = run("lint", saved(network(z=np.uint8(0))), "--sarif", "lint.sarif")
    assert done.exit_code == 1
    (result,) = json.loads(Path("lint.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "uint8-read-as-int8"


@pytest.mark.parametrize("make", [early, orphan, float_weights, normalized])
def test_the_builder_takes_what_was_mended(make: object, folder: Path) -> None:
    """A real engine comes of it."""
    done = run("lint", saved(make()), "--fix", "-o", "fixed.onnx")  # type: ignore[operator]
    assert done.exit_code == 0, done.stderr
    with judge_for(target_from_text("rtx:8.6"), thorough=True) as judge:
        found = judge.acceptance(onnx.load("fixed.onnx"), ())
    assert not found.refused
    assert found.built


@pytest.mark.parametrize("rule", ["scale-not-positive", "scale-not-finite", "zero-point-not-zero", "int32-bias"])
def test_what_is_said_to_be_refused_is(rule: str, folder: Path) -> None:
    """The parser says no to the model that breaks the rule, and yes to the one that does not."""
    with judge_for(target_from_text("rtx:8.6"), thorough=True) as judge:
        assert judge.acceptance(CASES[rule].bad(), ()).refused
        assert not judge.acceptance(CASES[rule].good(), ()).refused


@pytest.mark.parametrize("rule", ["uint8-read-as-int8", "zero-point-missing", "weights-axis-wrong"])
def test_what_is_said_to_be_taken_without_a_word_is(rule: str, folder: Path) -> None:
    """The builder is no help there: the lint is needed."""
    with judge_for(target_from_text("rtx:8.6"), thorough=True) as judge:
        assert not judge.acceptance(CASES[rule].bad(), ()).refused


def test_samples_tell_what_fp16_would_overflow(folder: Path) -> None:
    """Ranges come from a data pass, or from a table."""
    name = saved(CASES["fp16-overflow-risk"].good())
    np.savez("data.npz", x=np.concatenate([feed(seed)["x"] * 3 for seed in range(4)]))
    assert "fp16-overflow-risk" not in run("lint", name).stdout
    done = run("lint", name, "--calib-data", "data.npz")
    assert done.exit_code == 0, done.stderr
    assert "fp16-overflow-risk" in done.stdout
    assert run("calibrate", name, "-o", "table.json", "--calib-data", "data.npz", "--target", "rtx:8.6").exit_code == 0
    assert "fp16-overflow-risk" in run("lint", name, "--table", "table.json").stdout


@pytest.mark.models
@needs_collection
@pytest.mark.parametrize("name", ["mlperf_ic01_int8", "mlperf_kws_int8", "mlperf_sww_int8", "squeezenet_qop_int8"])
def test_real_quantised_models_lose_their_errors(name: str, folder: Path) -> None:
    """They break rules as they come; after --fix no error is left."""
    file = str(model_file(name))
    assert run("lint", file).exit_code == 1
    done = run("lint", file, "--fix", "-o", "fixed.onnx", "--json")
    assert done.exit_code == 0, done.stderr
    assert not [entry for entry in json.loads(done.stdout)["findings"] if entry["severity"] == "error"]
    assert run("lint", "fixed.onnx").exit_code == 0


@pytest.mark.models
@needs_collection
@pytest.mark.parametrize("name", ["squeezenet_fp32", "mnist_cntk", "ultraface_rfb_320", "silero_vad_ifless_op18"])
def test_real_float_models_have_nothing_found(name: str, folder: Path) -> None:
    """No false alarm."""
    done = run("lint", str(model_file(name)), "--fail-on", "warning")
    assert done.exit_code == 0, done.stdout
