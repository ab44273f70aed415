"""What hostile models and wrong requests do to `trt-opt rewrite`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import model_of, node
from onnx import helper
from typer.testing import Result

from trt_opt.acceptance import LibraryJudge
from trt_opt.backends import backend_for
from trt_opt.blame import foreign_nodes
from trt_opt.datasets.random_feeds import RandomDataset
from trt_opt.errors import DataError, RequestError, UnsupportedModelError
from trt_opt.graph.inference import inferred
from trt_opt.graph.query import graph_inputs
from trt_opt.made_up_samples import made_up_samples
from trt_opt.passes.ends.frozen_values import frozen_values_from_text
from trt_opt.passes.integers.widen_integers import WidenIntegers
from trt_opt.values.engine import BuildFiles
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import target_from_text
from trt_opt.values.tensors import TensorSpec

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

TARGET = ("--target", "rtx:8.6")
DILATED = {"kernel_shape": [2, 2], "dilations": [2, 2]}


def rewritten(model: onnx.ModelProto, *options: str) -> Result:
    """The command line on a model, in this process."""
    onnx.save(model, "model.onnx")
    return run("rewrite", "model.onnx", "-o", "out.onnx", "--force", *TARGET, *options)


def dilated_pooling() -> onnx.ModelProto:
    """One node that the parser refuses."""
    return model_of([node("MaxPool", "pool", ["x"], "y", **DILATED)], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 6, 6]}, {})


@pytest.mark.parametrize("broken", ["an output without a shape", "a graph without a name"])
def test_no_pass_is_undone_for_a_rule_that_the_model_broke_before(folder: Path, broken: str) -> None:
    """A model that onnx's checker refuses as it is, and ONNX Runtime runs, is rewritten and compared like any other."""
    model = dilated_pooling()
    if broken == "an output without a shape":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    else:
        model.graph.name = ""
    done = rewritten(model, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["compared_samples"] == 1
    assert not report["after"]["refused"]


def test_a_pass_that_can_be_neither_checked_nor_compared_is_undone_and_the_model_is_blamed(folder: Path) -> None:
    """An input of unknown rank breaks a rule and nothing can be made up for it: the message says both."""
    model = dilated_pooling()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    done = rewritten(model)
    assert done.exit_code == 3
    assert "the model breaks a rule of ONNX as it is, and nothing could be compared" in done.stderr


def test_an_operator_of_another_domain_is_not_taken_for_onnxs_namesake(folder: Path) -> None:
    """The parser builds acme::Relu as Relu, which would be another network: it counts as refused."""
    nodes = [node("Relu", "mine", ["x"], "y", domain="acme", alpha=0.5)]
    model = model_of(nodes, {"x": [2]}, {"y": [2]}, {})
    model.opset_import.add(domain="acme", version=1)
    done = rewritten(model)
    assert done.exit_code == 3
    assert "node 'mine' (Relu)" in done.stderr
    assert "acme::Relu would be taken for ONNX's Relu" in done.stderr


def test_a_function_of_the_model_may_be_called_like_an_operator_of_onnx() -> None:
    """A local function acme::Relu is written out, so it is no namesake."""
    model = model_of([node("Relu", "mine", ["x"], "y", domain="acme")], {"x": [2]}, {"y": [2]}, {})
    model.opset_import.add(domain="acme", version=1)
    body = [node("Abs", "inside", ["a"], "b")]
    model.functions.append(helper.make_function("acme", "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 19)]))
    assert not foreign_nodes(model)


def test_quantised_operators_that_cannot_be_imported_are_answered_with_the_format_to_export(folder: Path) -> None:
    """A scale known at run time alone: the hint names QDQ, and no pass that never knew the operator speaks for it."""
    constants = {"zero": np.asarray(np.uint8(3))}
    nodes = [
        node("QuantizeLinear", "q", ["x", "scale", "zero"], "a"),
        node("QLinearSigmoid", "sigmoid", ["a", "scale", "zero", "scale", "zero"], "b", domain="com.microsoft"),
        node("DequantizeLinear", "dq", ["b", "scale", "zero"], "y"),
    ]
    model = model_of(nodes, {"x": [2, 2], "scale": []}, {"y": [2, 2]}, constants, opset=13)
    model.opset_import.add(domain="com.microsoft", version=1)
    done = rewritten(model)
    assert done.exit_code == 3
    assert "quant_format=QDQ" in done.stderr
    _, report = WidenIntegers(frozenset({"sigmoid"})).run(model)
    assert "sigmoid" not in {entry.node for entry in report.declined}


def _single_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(1))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"garbage", _single_array()])
def test_a_file_of_values_to_freeze_that_is_damaged_is_a_wrong_request(folder: Path, content: bytes) -> None:
    """An empty file, half an archive, garbage and an .npy end with a message, not as a defect."""
    Path("values.npz").write_bytes(content)
    with pytest.raises(RequestError, match="cannot read the values to freeze"):
        frozen_values_from_text(["values.npz"], graph_inputs(dilated_pooling()))


def test_a_result_too_large_for_memory_is_no_reason_to_stop() -> None:
    """A Tile to 256 GiB cannot be run, so nothing is compared; types are inferred without listing its elements."""
    constants = {"ones": np.ones(64, np.float32), "times": np.array([1 << 30])}
    nodes = [node("Tile", "tile", ["ones", "times"], "t"), node("Add", "add", ["t", "x"], "y")]
    model = model_of(nodes, {"x": [1]}, {"y": ["n"]}, constants)
    assert inferred(model).graph.value_info[0].type.tensor_type.shape.dim[0].dim_value == 1 << 36
    samples, reason = made_up_samples(model)
    assert not samples
    assert reason.startswith("made-up inputs do not run")


def test_random_data_of_unknown_sizes_are_answered_with_what_every_verb_takes() -> None:
    """`rewrite` has no --opt-shapes: the hint names a file too."""
    with pytest.raises(DataError) as caught:
        RandomDataset("random:2", (TensorSpec("x", "float32", ("n", "c")),))
    assert "data.npz" in (caught.value.hint or "")


def test_a_node_that_the_builder_does_not_name_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bisection finds the node once; the next question about the same reason costs no builds but its own."""
    nodes = [node("Relu", f"relu{i}", [f"t{i}"], f"t{i + 1}") for i in range(8)]
    model = model_of(nodes, {"t0": [2]}, {"t8": [2]}, {})
    attempts: list[int] = []

    def build(files: BuildFiles, *_: object) -> None:
        names = {entry.name for entry in onnx.load(files.model).graph.node}
        attempts.append(len(names))
        if "relu5" in names:
            raise UnsupportedModelError("the builder dislikes it")

    with backend_for(target_from_text("rtx:8.6")) as backend:
        monkeypatch.setattr(backend, "build", build)
        judge = LibraryJudge(backend, thorough=True)
        for builds in (4, 1):
            attempts.clear()
            (found,) = judge.acceptance(model, ()).refused
            assert (found.node, found.op_type, found.reason) == ("relu5", "Relu", "the builder dislikes it")
            assert len(attempts) == builds
        assert not LibraryJudge(backend, thorough=False).acceptance(model, ()).refused


def test_a_refusal_without_a_node_is_shown_as_the_models() -> None:
    """No empty quotes where a name would be."""
    assert RefusedNode("", "", "why").title == "the model"
    assert RefusedNode("", "LSTM", "why").title == "LSTM"
    assert RefusedNode("a b", "LSTM", "why").title == "LSTM 'a b'"


@pytest.mark.parametrize("name", ["a b [bold]", "größe/池化:0", "x" * 300, 'it\'s\n"quoted"', "[/red]"])
def test_nodes_may_be_called_anything(folder: Path, name: str) -> None:
    """The node is found by its name and told by it, whatever that holds."""
    nodes = [node("MaxPool", f"{name}1", ["x"], "t", **DILATED), node("Unique", name, ["t"], "y")]
    done = rewritten(model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": ["n"]}, {}), "--json")
    assert done.exit_code == 3
    report = json.loads(done.stdout)
    assert [entry["node"] for entry in report["after"]["refused"]] == [name]
    assert f"{name!r} (Unique)" in done.stderr


@pytest.mark.parametrize(
    ("output", "options", "told"),
    [
        (".", ("--force",), "folder"),
        ("x" * 300 + ".onnx", (), "no file can be called so"),
        ("o.onnx", ("--preprocess", "resize=8"), "--data"),
    ],
    ids=["folder", "name-too-long", "preprocess-without-data"],
)
def test_an_output_or_option_that_cannot_be_is_refused_at_once(
    folder: Path, output: str, options: tuple[str, ...], told: str
) -> None:
    """Exit code 2 before any work, and no file."""
    onnx.save(model_of([node("Relu", "relu", ["x"], "y")], {"x": [2]}, {"y": [2]}, {}), "model.onnx")
    done = run("rewrite", "model.onnx", "-o", output, *options)
    assert done.exit_code == 2, done.stderr
    assert told in done.stderr
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_a_reader_that_goes_away_is_no_defect(folder: Path) -> None:
    """A pipe whose reader has gone ends the program as SIGPIPE would, without a word about defects."""
    onnx.save(model_of([node("Relu", "relu", ["x"], "y")], {"x": [2]}, {"y": [2]}, {}), "model.onnx")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "trt_opt", "inspect", "model.onnx", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert "defect" not in done.stderr
