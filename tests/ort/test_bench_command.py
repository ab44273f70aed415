"""`trt-opt bench` with ONNX Runtime, each model in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import psutil
import pytest
from command_line import run
from graphs import model_of, weights
from onnx import helper

from trt_opt.backends.onnxruntime_process import OnnxRuntimeProcess
from trt_opt.errors import WorkerError
from trt_opt.samples import DIGITS
from trt_opt.values.codec import value_from_json
from trt_opt.values.json_schema import json_schema_of
from trt_opt.values.timing import Benchmark, TimingSettings

MODEL = str(DIGITS / "model.onnx")

QUICK = ("--rounds", "2", "--round-s", "0.02", "--warm-up-s", "0.5", "--allow-invalid")


def benched(*arguments: str) -> Benchmark:
    """The result of a run, read back from its JSON, which its schema admits."""
    done = run("bench", *arguments, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    jsonschema.validate(json.loads(done.stdout), json_schema_of(Benchmark))
    return value_from_json(Benchmark, done.stdout, where="stdout")


def products(count: int, size: int = 256) -> onnx.ModelProto:
    """So many matrix products in a row."""
    nodes = [helper.make_node("MatMul", [f"x{n}", "w"], [f"x{n + 1}"]) for n in range(count)]
    ends = ({"x0": [size, size]}, {f"x{count}": [size, size]})
    return model_of(nodes, *ends, {"w": weights(size, size, scale=0.05)})


def test_every_batch_of_every_model_is_timed(folder: Path) -> None:
    """In the order of batches, then of files; the inputs have so many rows."""
    onnx.save(onnx.load(MODEL), "other.onnx")
    found = benched(MODEL, "other.onnx", "--batch", "1,4", "--data", str(DIGITS / "test.npz"))
    assert [(timing.name, timing.batch) for timing in found.timings] == [
        ("model.onnx", 1),
        ("other.onnx", 1),
        ("model.onnx", 4),
        ("other.onnx", 4),
    ]
    assert found.timings[2].shapes == {"image": (4, 1, 8, 8)}
    assert not found.random_data
    assert found.timings[0].kind == "onnxruntime"
    assert found.timings[0].memory.peak_resident_bytes is not None


def test_ten_times_the_work_takes_longer(folder: Path) -> None:
    """Whatever else the machine does."""
    onnx.save(products(2), "two.onnx")
    onnx.save(products(20), "twenty.onnx")
    two, twenty = benched("two.onnx", "twenty.onnx").timings
    assert twenty.latency.median_ms > 3 * two.latency.median_ms
    assert twenty.throughput_per_s < two.throughput_per_s


def test_two_streams_are_two_threads_of_requests(folder: Path) -> None:
    """Both count."""
    found = benched(MODEL, "--streams", "2", "--threads", "1").timings[0]
    assert all(one.requests % 2 == 0 for one in found.rounds)
    assert found.settings.streams == 2
    assert found.settings.threads == 1


def test_a_file_with_the_result_is_written_whole(folder: Path) -> None:
    """The same as --json prints; an older file is not overwritten unasked."""
    done = run("bench", MODEL, *QUICK, "-o", "result.json", "--json")
    assert Path("result.json").read_text() == done.stdout
    assert run("bench", MODEL, *QUICK, "-o", "result.json").exit_code == 2
    assert run("bench", MODEL, *QUICK, "-o", "result.json", "--force").exit_code == 0


def test_the_machine_is_told(folder: Path) -> None:
    """Before, during and after, with the processor's name."""
    environment = benched(MODEL).environment
    assert [state.moment for state in environment.states] == ["before", "during", "during", "after"]
    assert environment.machine.cpu
    assert environment.machine.cores >= 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--batch", "0"), "rows"),
        (("--batch", "1,x"), "cannot read"),
        (("--batch", "2,2"), "twice"),
        (("--shape", "nope:1x2"), "no input 'nope'"),
        (("--cuda-graph",), "CUDA graphs"),
        (("--rounds", "0"), "rounds must be"),
        (("--round-s", "nan"), "round_s must be"),
        (("--via", "trtexec"), "for engines"),
        (("--via", "perf"), "not timed by"),
        (("--data", "none.npz"), "no such file"),
    ],
)
def test_a_wrong_request_is_told(arguments: tuple[str, ...], what: str, folder: Path) -> None:
    """With exit code 2, and nothing is written."""
    done = run("bench", MODEL, *arguments, "-o", "result.json")
    assert done.exit_code == 2
    assert what in done.stderr
    assert not Path("result.json").exists()


def test_a_fixed_batch_is_not_swept(folder: Path) -> None:
    """The model's own batch is named."""
    onnx.save(products(1), "fixed.onnx")
    done = run("bench", "fixed.onnx", "--batch", "1,8", *QUICK)
    assert done.exit_code == 2
    assert "fixed batch of 256" in done.stderr


def test_a_file_that_is_no_model_is_named(folder: Path) -> None:
    """Beside good ones."""
    Path("broken.onnx").write_bytes(b"no model")
    done = run("bench", MODEL, "broken.onnx", *QUICK)
    assert done.exit_code == 2
    assert "broken.onnx" in done.stderr


def test_an_engine_without_its_manifest_is_refused(folder: Path) -> None:
    """Nothing says what it is."""
    Path("model.engine").write_bytes(b"engine")
    done = run("bench", "model.engine", *QUICK)
    assert done.exit_code == 2
    assert "no manifest" in done.stderr


def test_inputs_of_every_kind_are_fed(folder: Path) -> None:
    """A scalar, a flag and class numbers, made up."""
    kinds = {"s": (onnx.TensorProto.FLOAT, []), "b": (onnx.TensorProto.BOOL, [3]), "n": (onnx.TensorProto.INT64, [3])}
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in kinds.items()]
    nodes = [
        helper.make_node("Cast", ["n"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Where", ["b", "f", "s"], ["y"]),
    ]
    out = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])]
    graph = helper.make_graph(nodes, "g", ends, out)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "kinds.onnx")
    assert benched("kinds.onnx").timings[0].shapes == {"s": (), "b": (3,), "n": (3,)}


def test_an_interruption_leaves_no_process(tmp_path: Path) -> None:
    """Ctrl-C ends the children; the exit code is 130."""
    command = [sys.executable, "-m", "trt_opt", "bench", MODEL, "--rounds", "1000", "--round-s", "1"]
    environment = {**os.environ, "TRT_OPT_LOG": str(tmp_path / "log.txt")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        children: list[psutil.Process] = []
        deadline = time.monotonic() + 60
        while not children and time.monotonic() < deadline:
            time.sleep(0.1)
            children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert children
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_made_up_numbers_are_told(folder: Path) -> None:
    """In JSON and in the table."""
    assert benched(MODEL).random_data
    assert "random numbers" in run("bench", MODEL, *QUICK).stdout


def test_an_input_without_elements_is_refused(folder: Path) -> None:
    """A rate of no rows is no figure."""
    onnx.save(model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [0, 3]}, {"y": [0, 3]}, {}), "empty.onnx")
    done = run("bench", "empty.onnx", *QUICK)
    assert done.exit_code == 2
    assert "no elements (0x3)" in done.stderr


def test_a_model_that_fails_beside_others_is_named(folder: Path) -> None:
    """By its file, and not by where it was copied to."""
    onnx.save(model_of([helper.make_node("Nope", ["x"], ["y"], domain="no")], {"x": [1]}, {"y": [1]}, {}), "odd.onnx")
    done = run("bench", MODEL, "odd.onnx", *QUICK)
    assert done.exit_code != 0
    assert "odd.onnx" in done.stderr
    assert "/trt-opt-" not in done.stderr


def test_a_child_that_dies_is_named() -> None:
    """Killed from outside between two rounds."""
    runner = OnnxRuntimeProcess(products(1), optimised=True, name="products.onnx")
    with runner:
        runner.prepare({"x0": np.zeros((256, 256), np.float32)}, TimingSettings())
        (child,) = psutil.Process().children()
        child.send_signal(signal.SIGSEGV)
        with pytest.raises(WorkerError, match=r"products\.onnx: the worker crashed \(SIGSEGV\)"):
            runner.run_round(1)


def test_each_layer_is_timed_when_asked(folder: Path) -> None:
    """By name and operator; 4096 times the work takes more than twenty times as long. Unasked there are none."""
    sizes = {"small": 64, "large": 1024}
    nodes = [
        helper.make_node("MatMul", ["x", "w_small"], ["a"], "small"),
        helper.make_node("MatMul", ["z", "w_large"], ["b"], "large"),
    ]
    constants = {f"w_{name}": weights(size, size, scale=0.05) for name, size in sizes.items()}
    ends = ({"x": [64, 64], "z": [1024, 1024]}, {"a": [64, 64], "b": [1024, 1024]})
    onnx.save(model_of(nodes, *ends, constants), "products.onnx")
    found = {layer.name: layer for layer in benched("products.onnx", "--layers").timings[0].layers}
    assert {name: layer.kind for name, layer in found.items()} == {"small": "MatMul", "large": "MatMul"}
    assert found["large"].median_ms > 20 * found["small"].median_ms > 0
    assert benched("products.onnx").timings[0].layers == ()


def test_a_reader_who_has_gone_is_no_failure_of_ours(tmp_path: Path) -> None:
    """`trt-opt bench … | head -0` ends as shells expect of a broken pipe, tables too."""
    command = [sys.executable, "-m", "trt_opt", "bench", MODEL, *QUICK]
    environment = {**os.environ, "TRT_OPT_LOG": str(tmp_path / "log.txt")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=120) == 141
