"""`trt-opt compare` over ONNX files: several candidates, limits per output, speeds, and inputs of every kind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of as graph_of
from graphs import node, weights
from onnx import TensorProto, helper, numpy_helper

from trt_opt.values.codec import value_from_json
from trt_opt.values.json_schema import json_schema_of
from trt_opt.values.model_comparison import ModelComparison

ROWS = 40

CLASSES, FEATURES = 8, 12

W = weights(FEATURES, CLASSES, seed=1, scale=1.0)


def scores(name: str, weight: np.ndarray, *, extra: bool = False) -> str:
    """Writes a model of scores, and of their halves if `extra`; returns the file's name."""
    nodes = [node("MatMul", "product", ["x", "w"], "scores")]
    outputs = {"scores": ["N", CLASSES]}
    constants = {"w": weight}
    if extra:
        nodes.append(node("Mul", "halved", ["scores", "half"], "head:0"))
        outputs["head:0"] = ["N", CLASSES]
        constants["half"] = np.float32(0.5)
    onnx.save(graph_of(nodes, {"x": ["N", FEATURES]}, outputs, constants), name)
    return name


@pytest.fixture
def data(folder: Path) -> str:
    """Labelled with what the exact model answers."""
    del folder
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    np.savez("data.npz", x=x, labels=(x @ W).argmax(1))
    return "data.npz"


def compared(*arguments: str, timed: bool = False) -> ModelComparison:
    """What the verb says as JSON."""
    done = run("compare", *arguments, *([] if timed else ["--no-timing"]), "--json")
    assert done.exit_code in (0, 1), done.stderr
    return value_from_json(ModelComparison, done.stdout, where="stdout")


def test_several_candidates_are_judged_each(data: str) -> None:
    """The verdict is the worst, the reason says whose, and each has its sentence."""
    files = (scores("exact.onnx", W), scores("same.onnx", W), scores("coarse.onnx", np.round(W)))
    found = compared(*files, "--data", data, "--min-sqnr", "40")
    assert [one.verdict for one in found.comparisons] == ["PASS", "FAIL"]
    assert found.verdict == "FAIL"
    assert found.reason.startswith("coarse.onnx: the SQNR of scores")
    assert [side.name for side in found.sides] == list(files)
    assert found.findings[0] == "same.onnx is identical to exact.onnx in every element"
    assert "points of top1 below exact.onnx" in found.findings[1]
    assert (found.timings, found.environment, found.layerwise) == ((), None, ())
    assert found.data.samples == ROWS
    assert run("compare", *files, "--data", data, "--min-sqnr", "40", "--no-timing").exit_code == 1
    assert run("compare", *files[:2], "--data", data, "--min-sqnr", "40", "--no-timing").exit_code == 0


def test_without_limits_nothing_passes_and_nothing_fails(data: str) -> None:
    """Figures alone: INCONCLUSIVE, and exit code 0, for nothing was asked."""
    file = scores("exact.onnx", W)
    done = run("compare", file, file, "--data", data, "--no-timing")
    assert (done.exit_code, "INCONCLUSIVE" in done.stdout) == (0, True)


def test_a_limit_may_be_for_one_output(data: str) -> None:
    """Split at the last colon; one that there is not is refused before anything runs."""
    files = scores("exact.onnx", W, extra=True), scores("coarse.onnx", np.round(W), extra=True)
    arguments = (*files, "--data", data, "--no-timing")
    assert run("compare", *arguments, "--min-sqnr", "head:0:5").exit_code == 0
    assert run("compare", *arguments, "--min-sqnr", "head:0:50").exit_code == 1
    assert run("compare", *arguments, "--min-sqnr", "50", "--min-sqnr", "head:0:5").exit_code == 1
    assert run("compare", *arguments, "--atol", "scores:9", "--atol", "head:0:9").exit_code == 0
    refused = run("compare", *arguments, "--atol", "head:9")
    assert refused.exit_code == 2
    assert "the outputs are scores, head:0" in refused.stderr


def test_sides_are_timed_in_the_same_run(data: str, folder: Path) -> None:
    """In turns, equally often; the sentence has the figures that were measured, or the reason why there are none."""
    files = scores("exact.onnx", W), scores("same.onnx", W)
    found = compared(*files, "--data", data, "--rounds", "5", "-o", "result.json", timed=True)
    assert [timing.name for timing in found.timings] == list(files)
    assert [len(timing.rounds) for timing in found.timings] == [5, 5]
    assert all(timing.throughput_per_s > 0 for timing in found.timings)
    assert found.environment is not None
    problems = [*found.environment.problems, *(problem for one in found.timings for problem in one.problems)]
    told = [finding for finding in found.findings if "(95 %: " in finding and "on this processor" in finding]
    assert bool(told) != bool(problems)
    assert any("told" in finding for finding in found.findings) == bool(problems)
    kept = value_from_json(ModelComparison, (folder / "result.json").read_text(), where="result.json")
    assert kept.sides == found.sides
    assert run("compare", *files, "--data", data, "--no-timing", "-o", "result.json").exit_code == 2


def test_doubled_work_is_told_as_slower(data: str) -> None:
    """Sixty-four times the layers: no noise hides that."""
    nodes = [node("MatMul", f"m{number}", [f"t{number}", "k"], f"t{number + 1}") for number in range(64)]
    nodes = [node("Identity", "in", ["x"], "t0"), *nodes, node("MatMul", "out", ["t64", "w"], "scores")]
    constants = {"k": np.eye(FEATURES, dtype=np.float32), "w": W}
    onnx.save(graph_of(nodes, {"x": ["N", FEATURES]}, {"scores": ["N", CLASSES]}, constants), "deep.onnx")
    found = compared(scores("exact.onnx", W), "deep.onnx", "--data", data, "--rounds", "5", timed=True)
    fast, slow = found.timings
    assert slow.latency.median_ms > fast.latency.median_ms
    if not any("told" in finding for finding in found.findings):
        assert found.findings[0].startswith("deep.onnx is slower than exact.onnx here, 0.")
        assert "speeds on this processor are of ONNX Runtime's CPU kernels" in " ".join(found.findings)


def test_one_feed_serves_every_input_type(folder: Path) -> None:
    """Float32 data for FP16 inputs, int64 indices where the other side has int32, and none for a frozen input."""
    np.savez(
        "data.npz", x=np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32), i=np.ones((ROWS, 1), np.int64)
    )

    def model(floats: int, integers: int, *, frozen: bool = False) -> str:
        inputs = [helper.make_tensor_value_info("x", floats, ["N", 4])]
        constants = []
        if frozen:
            constants.append(numpy_helper.from_array(np.ones(1, np.int64), "i"))
        else:
            inputs.append(helper.make_tensor_value_info("i", integers, [1]))
        nodes = [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Gather", ["f", "i"], ["y"], axis=1),
        ]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "g", inputs, [output], constants)
        name = f"m{floats}_{integers}_{frozen}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), name)
        return name

    wide = model(TensorProto.FLOAT, TensorProto.INT64)
    narrow = model(TensorProto.FLOAT16, TensorProto.INT32)
    frozen = model(TensorProto.FLOAT, TensorProto.INT64, frozen=True)
    found = compared(wide, narrow, frozen, "--data", "data.npz", "--min-sqnr", "50")
    assert [one.verdict for one in found.comparisons] == ["PASS", "PASS"]
    assert found.comparisons[1].outputs[0].identical


def test_integer_ends_are_compared_as_the_numbers_they_stand_for(folder: Path) -> None:
    """A model from INT8 to INT8 on float data, as candidate and as reference, against the float one."""
    np.savez("data.npz", x=np.random.default_rng(0).uniform(-1, 1, size=(ROWS, 4)).astype(np.float32))
    onnx.save(graph_of([node("Neg", "n", ["x"], "y")], {"x": ["N", 4]}, {"y": ["N", 4]}, {}), "float.onnx")
    constants = [numpy_helper.from_array(np.float32(1 / 64), "s"), numpy_helper.from_array(np.int8(0), "z")]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
        helper.make_node("Neg", ["f"], ["g"]),
        helper.make_node("QuantizeLinear", ["g", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.INT8, ["N", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "integer.onnx")
    for files in (("float.onnx", "integer.onnx"), ("integer.onnx", "float.onnx")):
        found = compared(*files, "--data", "data.npz", "--min-sqnr", "35")
        assert found.verdict == "PASS", found.reason
        assert found.comparisons[0].outputs[0].max_abs_error < 1 / 64
    both = compared("integer.onnx", "integer.onnx", "--data", "random:5")
    assert both.comparisons[0].outputs[0].identical


def test_layerwise_is_told_for_every_candidate(data: str) -> None:
    """In text and JSON; the threshold is the least SQNR that was asked for, unless another is named."""
    files = scores("exact.onnx", W), scores("coarse.onnx", np.round(W))
    found = compared(*files, "--data", data, "--layerwise", "--min-sqnr", "50")
    (entry,) = found.layerwise
    assert (entry.threshold_db, entry.first) == (50.0, "scores")
    assert f"coarse.onnx layer by layer: {entry.finding}" in found.findings
    other = compared(*files, "--data", data, "--layerwise", "--min-sqnr", "50", "--layerwise-sqnr", "5")
    assert (other.layerwise[0].threshold_db, other.layerwise[0].first) == (5.0, None)
    shown = run("compare", *files, "--data", data, "--layerwise", "--no-timing")
    assert "they part at MatMul 'product'" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["exact.onnx"], 2, "Missing argument"),
        (["exact.onnx", "absent.onnx"], 2, "absent.onnx"),
        (["exact.onnx", "data.npz"], 2, "data.npz"),
        (["exact.onnx", "same.onnx", "--min-sqnr", "many"], 2, "--min-sqnr 'many' is no number"),
        (["exact.onnx", "same.onnx", "--rounds", "0"], 2, "rounds must be 1 or more"),
        (["exact.onnx", "same.onnx", "-o", "data.npz"], 2, "--force"),
    ],
)
def test_a_bad_request_is_refused(data: str, arguments: list[str], code: int, words: str) -> None:
    """With the reason, and no file written."""
    scores("exact.onnx", W)
    scores("same.onnx", W)
    before = sorted(Path().iterdir())
    done = run("compare", *arguments, "--data", data)
    assert (done.exit_code, words in done.stderr) == (code, True), done.stderr
    assert sorted(Path().iterdir()) == before


def test_an_interruption_ends_every_child(folder: Path) -> None:
    """Ctrl-C in the middle of the data: exit code 130, and no process is left."""
    scores("exact.onnx", W)
    Path("slowly.py").write_text(
        "import time, numpy as np\n"
        "def feeds():\n"
        "    for number in range(200):\n"
        "        time.sleep(0.02)\n"
        "        yield {'x': np.zeros((1, 12), np.float32)}\n"
    )
    command = [sys.executable, "-m", "trt_opt", "compare", "exact.onnx", "exact.onnx", "--data", "slowly:feeds"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        children: set[int] = set()
        while len(children) < 2 and process.poll() is None:
            children |= children_of(process.pid)
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, len(children)) == (130, 2), said
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def children_of(process: int) -> set[int]:
    """The processes that one has started, by the parent's number in what Linux says of each."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == process:
                found.add(int(entry.name))
    return found


def test_the_json_says_what_it_is(data: str) -> None:
    """Kind and version of the schema on top, and what the schema says below, with timings and layers."""
    file = scores("exact.onnx", W)
    asked = ("--data", data, "--layerwise", "--rounds", "2")
    plain = json.loads(run("compare", file, file, *asked, "--json").stdout)
    jsonschema.validate(plain, json_schema_of(ModelComparison))
    assert plain["timings"]
    assert plain["layerwise"][0]["tensors"]
    assert (plain["kind"], plain["schema_version"]) == ("ModelComparison", 1)
    assert [side["kind"] for side in plain["sides"]] == ["onnxruntime", "onnxruntime"]
    assert [side["name"] for side in plain["sides"]] == ["exact.onnx (1)", "exact.onnx (2)"]
