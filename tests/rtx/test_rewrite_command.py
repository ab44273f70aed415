"""`trt-opt rewrite` and `inspect` against the real parser and builder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from graphs import conv, model_of, node, weights
from onnx import TensorProto, helper
from ort_session import outputs_of

from trt_opt.acceptance import judge_for
from trt_opt.buildable import PassChoice, made_buildable
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.values.progress import Silent
from trt_opt.values.target import target_from_text

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.rtx

TARGET = ("--target", "rtx:8.6")
DILATED = {"kernel_shape": [2, 2], "dilations": [2, 2]}


def two_kinds_of_pooling() -> onnx.ModelProto:
    """Dilated poolings, which the parser refuses, in a convolutional network with a plain one, which it takes."""
    nodes = [
        conv("conv", "x", "a", "w"),
        node("MaxPool", "first", ["a"], "b", **DILATED),
        node("MaxPool", "plain", ["b"], "c", kernel_shape=[2, 2]),
        node("MaxPool", "second", ["c"], "y", **DILATED),
    ]
    return model_of(nodes, {"x": ["n", 3, 12, 12]}, {"y": ["n", 4, 7, 7]}, {"w": weights(4, 3, 3, 3)})


def test_what_the_parser_refuses_is_rewritten_and_nothing_else(folder: Path) -> None:
    """Both dilated poolings are replaced in one round, the plain one stays; ends and numbers stay."""
    model = two_kinds_of_pooling()
    onnx.save(model, "model.onnx")
    done = run("rewrite", "model.onnx", "-o", "out.onnx", *TARGET, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    after = onnx.load("out.onnx")
    assert [entry.name for entry in after.graph.node if entry.op_type == "MaxPool"] == ["plain"]
    assert (graph_inputs(after), graph_outputs(after)) == (graph_inputs(model), graph_outputs(model))
    assert {entry["node"] for entry in report["before"]["refused"]} == {"first", "second"}
    assert not report["after"]["refused"]
    assert report["after"]["built"]
    assert report["generated_samples"]
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)}
    np.testing.assert_allclose(outputs_of(after, feed)["y"], outputs_of(model, feed)["y"])


def test_a_model_that_is_taken_is_only_cleaned_up(folder: Path) -> None:
    """No pass for refused nodes changes anything."""
    plain = [conv("conv", "x", "a", "w"), node("MaxPool", "pool", ["a"], "y", kernel_shape=[2, 2])]
    onnx.save(model_of(plain, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 7, 7]}, {"w": weights(4, 3, 3, 3)}), "model.onnx")
    report = json.loads(run("rewrite", "model.onnx", "-o", "out.onnx", *TARGET, "--json").stdout)
    assert not report["before"]["refused"]
    assert not [entry["name"] for entry in report["passes"] if entry["changed"]]


def test_what_cannot_be_built_ends_with_the_node_the_reason_and_what_would_work(folder: Path) -> None:
    """Exit code 3; the file is written as far as it could be brought."""
    nodes = [node("MaxPool", "pool", ["x"], "a", **DILATED), node("Unique", "unique", ["a"], "y")]
    onnx.save(model_of(nodes, {"x": [1, 1, 6, 6]}, {"y": ["n"]}, {}), "model.onnx")
    done = run("rewrite", "model.onnx", "-o", "out.onnx", *TARGET)
    assert done.exit_code == 3
    assert "'unique' (Unique)" in done.stderr
    assert "try: " in done.stderr
    assert "depends on data" in done.stdout
    assert "MaxPool" in {entry.op_type for entry in onnx.load("out.onnx").graph.node} or "Max" in done.stdout
    built = run("build", "model.onnx", "--fp16", *TARGET, "-o", "store")
    assert built.exit_code == 3
    assert "'unique' (Unique)" in built.stderr
    assert not (folder / "store").exists() or not any((folder / "store").iterdir())


def test_a_skipped_pass_is_left_out_and_a_named_one_runs_alone(folder: Path) -> None:
    """--skip leaves the model refused; --only runs one pass on every node it knows, refused or not."""
    onnx.save(two_kinds_of_pooling(), "model.onnx")
    skipped = run("rewrite", "model.onnx", "-o", "a.onnx", *TARGET, "--skip", "unroll_max_pooling")
    assert skipped.exit_code == 3
    only = json.loads(
        run("rewrite", "model.onnx", "-o", "b.onnx", *TARGET, "--only", "unroll_max_pooling", "--json").stdout
    )
    assert [entry["name"] for entry in only["passes"]] == ["unroll_max_pooling"]
    assert run("rewrite", "model.onnx", "-o", "c.onnx", "--only", "unroll_max_poling").exit_code == 2
    assert not (folder / "c.onnx").exists()


def test_inputs_are_frozen_where_asked(folder: Path) -> None:
    """Axes that are an input are refused by default with the option in the message, and constant with it."""
    model = model_of(
        [node("ReduceSum", "sum", ["x", "axes"], "y", keepdims=0)], {"x": [2, 2, 2]}, {"y": ["a", "b"]}, {}
    )
    model.graph.input.append(helper.make_tensor_value_info("axes", TensorProto.INT64, [1]))
    onnx.save(model, "model.onnx")
    refused = run("rewrite", "model.onnx", "-o", "a.onnx", *TARGET)
    assert refused.exit_code == 3
    assert "--freeze-input axes" in refused.stderr
    done = run("rewrite", "model.onnx", "-o", "b.onnx", *TARGET, "--freeze-input", "axes=[1]")
    assert done.exit_code == 0, done.stderr
    assert [spec.name for spec in graph_inputs(onnx.load("b.onnx"))] == ["x"]
    wrong = run("rewrite", "model.onnx", "-o", "c.onnx", *TARGET, "--freeze-input", "axis=[1]")
    assert wrong.exit_code == 2
    assert "axes" in wrong.stderr
    assert not (folder / "c.onnx").exists()


def test_narrow_integers_at_the_ends_are_widened_where_asked(folder: Path) -> None:
    """uint16 is refused by default with the option in the message; with it the numbers stay."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node("Add", "add", ["x", "x"], "y")],
        "g",
        [value("x", TensorProto.UINT16, [3])],
        [value("y", TensorProto.UINT16, [3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), "model.onnx")
    refused = run("rewrite", "model.onnx", "-o", "a.onnx", *TARGET)
    assert refused.exit_code == 3
    assert "--widen-io" in refused.stderr
    done = run("rewrite", "model.onnx", "-o", "b.onnx", *TARGET, "--widen-io")
    assert done.exit_code == 0, done.stderr
    after = onnx.load("b.onnx")
    assert [spec.dtype for spec in graph_outputs(after)] == ["int32"]
    feed = {"x": np.array([1, 40000, 65535], np.int32)}
    assert outputs_of(after, feed)["y"].tolist() == [2, (80000) % 65536, (131070) % 65536]


def detector() -> onnx.ModelProto:
    """A convolution whose output is taken apart into boxes and scores, NonMaxSuppression, and a Gather behind it."""
    nodes = [
        conv("conv", "x", "a", "w"),
        node("Reshape", "flat", ["a", "shape"], "b"),
        node("Transpose", "rows", ["b"], "c", perm=[0, 2, 1]),
        node("Split", "split", ["c", "sizes"], "boxes", axis=2),
        node("Transpose", "by_class", ["scores_by_box"], "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", "nms", ["boxes", "scores", "most"], "picked"),
        node("Cast", "as_float", ["picked"], "y", to=TensorProto.FLOAT),
    ]
    nodes[3].output.append("scores_by_box")
    constants = {
        "w": weights(6, 3, 3, 3),
        "shape": np.array([1, 6, -1]),
        "sizes": np.array([4, 2]),
        "most": np.array([3]),
    }
    return model_of(nodes, {"x": [1, 3, 4, 4]}, {"y": ["picked", 3]}, constants)


def test_a_detector_is_split_where_asked(folder: Path) -> None:
    """NonMaxSuppression is refused with the option in the message; split, both parts give what the whole did."""
    model = detector()
    onnx.save(model, "model.onnx")
    refused = run("rewrite", "model.onnx", "-o", "a.onnx", *TARGET)
    assert refused.exit_code == 3
    assert "--nms split" in refused.stderr
    done = run("rewrite", "model.onnx", "-o", "b.onnx", *TARGET, "--nms", "split")
    assert done.exit_code == 0, done.stderr
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)}
    first = outputs_of(onnx.load("b.onnx"), feed)
    tail = onnx.load("b.tail.onnx")
    rest = outputs_of(tail, {spec.name: {**feed, **first}[spec.name] for spec in graph_inputs(tail)})
    np.testing.assert_array_equal(rest["y"], outputs_of(model, feed)["y"])
    built = run("build", "model.onnx", "--fp16", *TARGET, "-o", "store", "--nms", "split", "--json")
    assert built.exit_code == 0, built.stderr
    assert len(list((folder / "store").rglob("tail.onnx"))) == 1
    assert run("rewrite", "model.onnx", "-o", "c.onnx", *TARGET, "--nms", "sideways").exit_code == 2


def test_an_engine_is_built_for_the_values_of_inputs_that_decide_shapes(folder: Path) -> None:
    """A Reshape whose target is an input builds with data, for the values these had."""
    model = model_of([node("Reshape", "reshape", ["x", "shape"], "y")], {"x": [4, 6]}, {"y": ["a", "b"]}, {})
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    onnx.save(model, "model.onnx")
    (folder / "data").mkdir()
    for number, shape in enumerate(([3, 8], [2, 12])):
        np.savez(folder / "data" / f"{number}.npz", x=np.ones((4, 6), np.float32), shape=np.array(shape))
    built = run("build", "model.onnx", "--fp16", *TARGET, "--eval-data", "data", "-o", "store", "--json")
    assert built.exit_code == 0, built.stderr
    values = json.loads(built.stdout)["manifest"]["options"]["values"]["shape"]
    assert (values["min"], values["max"]) == ([2, 8], [3, 12])


def test_a_parser_that_crashes_is_asked_again() -> None:
    """A shape of 12 sizes kills the parser; the answer says so, and the next model is answered as ever."""
    sizes = {"shape": np.ones(12, np.int64)}
    crashing = model_of([node("Expand", "expand", ["x", "shape"], "y")], {"x": [1]}, {"y": [1] * 12}, sizes)
    plain = model_of([node("Relu", "relu", ["x"], "y")], {"x": [1]}, {"y": [1]}, {})
    with judge_for(target_from_text("rtx:8.6"), thorough=True) as judge:
        assert judge.acceptance(crashing, ()).refused
        assert not judge.acceptance(plain, ()).refused


def test_inspect_shows_what_each_target_refuses_and_what_a_rewrite_would_do(folder: Path) -> None:
    """Two targets, the refused nodes, the passes that would change them, dynamic axes."""
    onnx.save(two_kinds_of_pooling(), "model.onnx")
    survey = json.loads(run("inspect", "model.onnx", *TARGET, "--target", "tensorrt", "--json").stdout)
    rtx, table = survey["rewrites"]
    assert {entry["node"] for entry in rtx["before"]["refused"]} == {"first", "second"}
    assert not rtx["after"]["refused"]
    assert "unroll_max_pooling" in {entry["name"] for entry in rtx["passes"] if entry["changed"]}
    assert not table["before"]["by_the_library"]
    assert survey["summary"]["dynamic_axes"] == ["x[0] n"]
    told = run("inspect", "model.onnx", *TARGET).stdout
    assert "refuses 2 nodes" in told
    assert "unroll_max_pooling" in told


def test_given_samples_are_compared(folder: Path) -> None:
    """--data is what before and after are compared on, and the report counts the samples."""
    onnx.save(two_kinds_of_pooling(), "model.onnx")
    np.savez("data.npz", x=np.ones((5, 3, 12, 12), np.float32))
    report = json.loads(run("rewrite", "model.onnx", "-o", "o.onnx", *TARGET, "--data", "data.npz", "--json").stdout)
    assert report["compared_samples"] == 2
    assert not report["generated_samples"]


def test_a_round_of_repairs_counts_what_it_did() -> None:
    """In the library as on the command line: the report names the pass, before and after."""
    with judge_for(target_from_text("rtx:8.6"), thorough=False) as judge:
        _, report = made_buildable(two_kinds_of_pooling(), judge, (), Silent(), choice=PassChoice())
    changed = {entry.name: len(entry.changed) for entry in report.passes if entry.changed}
    assert changed == {"unroll_max_pooling": 2}
