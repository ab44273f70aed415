"""Models that are valid and unusual, through the runner with the passes of every rewrite, and through a node pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from passes_models import FLOAT32_TOLERANCE, applied, floats, model_of, operators, random_samples

from trt_opt.graph.query import all_nodes, graph_inputs, graph_outputs
from trt_opt.passes.mathematics.unroll_cumulative_product import UnrollCumulativeProduct
from trt_opt.passes.runner import rewrite
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import Sample

AXIS = np.int64(1)

LARGE_MODEL_BYTES = (1 << 31) + (1 << 24)
LARGE_MODEL_WEIGHTS = 8
MOST_RESIDENT_BYTES = 6_000_000_000


def awkward(text: str, **weights: np.ndarray) -> ModelProto:
    """A model of the opset that has CumProd."""
    return model_of(text, opset=26, ir_version=11, **weights)


def rewritten(model: ModelProto, samples: list[Sample] | None = None) -> tuple[ModelProto, RewriteReport]:
    """Runs the passes of every rewrite, and asserts that nothing is undone, signature and numbers stay, and it ends."""
    before = model.SerializeToString(deterministic=True)
    samples = samples or random_samples(model)
    after, report = rewrite(model, samples=samples)
    assert model.SerializeToString(deterministic=True) == before
    assert [entry.rolled_back for entry in report.passes if entry.rolled_back] == []
    assert graph_inputs(after) == graph_inputs(model)
    assert graph_outputs(after) == graph_outputs(model)
    assert report.max_relative_error is not None
    assert report.max_relative_error <= FLOAT32_TOLERANCE
    assert rewrite(after, samples=samples)[0] is after
    return after, report


def normalised(source: str, name: str) -> str:
    """A Conv without bias and a BatchNormalization behind it."""
    return f"c_{name} = Conv(x, {source}) {name} = BatchNormalization(c_{name}, s, b, m, v)"


def normalisation() -> dict[str, np.ndarray]:
    """Constants of a BatchNormalization over two channels."""
    return {"s": floats(2, seed=1), "b": floats(2, seed=2), "m": floats(2, seed=3), "v": np.abs(floats(2, seed=4)) + 1}


def test_weights_shared_by_two_convolutions_are_folded_apart() -> None:
    """Only the Conv before the BatchNormalization takes the scale; the other reads the weights as they were."""
    text = (
        f"""g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) {{ {normalised("w", "y")} z = Conv(x, w) }}"""
    )
    after, _ = rewritten(model_of(text, w=floats(2, 2, 1, 1), **normalisation()))
    assert operators(after) == {"Conv": 2}
    assert len({node.input[1] for node in after.graph.node}) == 2


def test_constants_shared_by_replaced_nodes_and_others_stay() -> None:
    """An axis that two CumProd and a Gather read is still there for the Gather."""
    text = """g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2] w) {
        y = CumProd(x, a) z = CumProd<reverse = 1>(x, a) w = Gather<axis = 1>(x, a) }"""
    after, report = applied(UnrollCumulativeProduct(), awkward(text, a=AXIS))
    assert len(report.changed) == 2
    assert "a" in {tensor.name for tensor in after.graph.initializer}


NESTED = """g (int64 n, bool flag, float[2,3] x) => (float[2,3] y) {
    go = Constant<value = bool {1}>()
    p = CumProd(x, a)
    y = Loop(n, go, p) <body = l (int64 i, bool keep, float[2,3] carried) => (bool kept, float[2,3] next) {
        kept = Identity(keep)
        same = Identity(carried)
        next = If(flag) <
            then_branch = t () => (float[2,3] r) { h = CumProd(same, a) r = Add(h, x) },
            else_branch = e () => (float[2,3] r) { h = CumProd<reverse = 1>(x, a) q = Identity(h) r = Mul(q, same) }>
    }> }"""


@pytest.mark.parametrize("flag", [True, False])
def test_branches_in_loops_are_rewritten(flag: bool) -> None:
    """Nodes of the main graph, and of both branches of an If in a Loop's body, are replaced where they stand.

    The branches use the same tensor names, and read tensors of the body, of the main graph, and constants.
    """
    model = awkward(NESTED, a=AXIS)
    samples = [Sample("nested", {"n": np.asarray(3), "flag": np.asarray(flag), "x": floats(2, 3)})]
    after, report = applied(UnrollCumulativeProduct(), model, samples)
    assert len(report.changed) == 3
    assert operators(after)["ReduceProd"] == 3
    assert len(operators_of_main(after, "ReduceProd")) == 1
    cleaned, _ = rewritten(after, samples)
    assert operators(cleaned)["ReduceProd"] == 3


def operators_of_main(model: ModelProto, op: str) -> list[onnx.NodeProto]:
    """The nodes of an operator outside all nested graphs."""
    return [node for node in model.graph.node if node.op_type == op]


def test_types_are_those_of_the_branch_a_name_belongs_to() -> None:
    """A name that is a matrix in one branch and a cube in the other is unrolled over the right axis in both."""
    text = """g (bool flag, float[2,3] x) => (float[6] y) {
        y = If(flag) <
            then_branch = t () => (float[6] r) { h = Neg(x) k = CumProd(h, a) r = Reshape(k, flat) },
            else_branch = e () => (float[6] r) {
                axes = Constant<value_ints = [0]>()
                h = Unsqueeze(x, axes) k = CumProd(h, a) r = Reshape(k, flat) }> }"""
    model = awkward(text, a=np.int64(-1), flat=np.int64([-1]))
    samples = [Sample(str(flag), {"flag": np.asarray(flag), "x": floats(2, 3)}) for flag in (True, False)]
    after, report = applied(UnrollCumulativeProduct(), model, samples)
    assert len(report.changed) == 2
    rewritten(after, samples)


def test_inner_tensors_that_are_graph_outputs_keep_name_and_value() -> None:
    """A Conv whose result is returned is not folded into; an Identity that only names an output stays."""
    text = f"""g (float[1,2,4,4] x) => (float[1,2,4,4] c_y, float[1,2,4,4] y, float[1,2,4,4] same, float[1,2,4,4] n) {{
        {normalised("w", "y")} same = Identity(x) d = Identity(y) n = Neg(d) }}"""
    after, _ = rewritten(model_of(text, w=floats(2, 2, 1, 1), **normalisation()))
    assert operators(after)["Conv"] == 1
    assert operators(after)["Identity"] == 1


def test_replaced_outputs_that_are_returned_and_read_keep_their_name() -> None:
    """One product is returned twice over: itself, and through its readers."""
    text = """g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] w) {
        y = CumProd(x, a) z = Neg(y) w = CumProd(y, a) }"""
    after, report = applied(UnrollCumulativeProduct(), awkward(text, a=AXIS))
    assert len(report.changed) == 2
    rewritten(after)


def test_initialisers_that_are_graph_outputs_stay() -> None:
    """A constant may be returned as it is, and be read by a replaced node as well."""
    model = awkward("g (float[2,3] x) => (float[2,3] y, int64 a) { y = CumProd(x, a) }", a=AXIS)
    after, _ = applied(UnrollCumulativeProduct(), model)
    cleaned, _ = rewritten(after)
    assert "a" in {tensor.name for tensor in cleaned.graph.initializer}


def test_node_names_used_twice_are_told_apart() -> None:
    """Two nodes of one name, one of them in a branch, are both replaced, by nodes with names of their own."""
    text = """g (bool flag, float[2,3] x) => (float[2,3] y, float[2,3] z) {
        y = CumProd(x, a)
        z = If(flag) <then_branch = t () => (float[2,3] r) { r = CumProd(x, a) },
                      else_branch = e () => (float[2,3] r) { r = Neg(x) }> }"""
    model = awkward(text, a=AXIS)
    for node in all_nodes(model):
        node.name = "twin"
    after, report = UnrollCumulativeProduct().run(model)
    assert len({change.node for change in report.changed}) == 2
    names = [node.name for node in all_nodes(after)]
    assert len(set(names)) == len(names)
    rewritten(model)


def test_new_names_avoid_those_in_use() -> None:
    """Tensors and nodes that already have the names a replacement would take, also in branches, are not disturbed."""
    text = """g (bool flag, float[2,3] x) => (float[2,3] y, float[2,3] z) {
        y = CumProd(x, a)
        z = If(flag) <then_branch = t () => (float[2,3] r) { taken = Neg(x) r = Abs(taken) },
                      else_branch = e () => (float[2,3] r) { r = Neg(x) }> }"""
    model = awkward(text, a=AXIS)
    fresh = {node.name for node in UnrollCumulativeProduct().run(model)[0].graph.node}
    fresh |= {name for node in UnrollCumulativeProduct().run(model)[0].graph.node for name in node.output}
    assert len(fresh) > 3
    for name in sorted(fresh - {"y", "z", ""}):
        clash = ModelProto()
        clash.CopyFrom(model)
        for node in all_nodes(clash):
            if "taken" in (*node.input, *node.output):
                node.input[:] = [name if read == "taken" else read for read in node.input]
                node.output[:] = [name if made == "taken" else made for made in node.output]
                node.name = name
        applied(UnrollCumulativeProduct(), clash, [Sample("x", {"flag": np.asarray(True), "x": floats(2, 3)})])


def test_absent_optional_inputs_and_outputs_stay_absent() -> None:
    """Inputs left out in the middle, and outputs that nobody asked for, survive both."""
    text = """g (float[2,1,3] x) => (float[2,1,3] y, float[1,1,2] last) {
        p = CumProd(x, a) q = Identity(p) y = Clip(q, , high) , last = LSTM<hidden_size = 2>(q, w, r, , , start) }"""
    weights = {"w": floats(1, 8, 3), "r": floats(1, 8, 2), "start": floats(1, 1, 2), "high": np.float32(0.5)}
    model = awkward(text, a=AXIS, **weights)
    for make in (lambda: applied(UnrollCumulativeProduct(), model)[0], lambda: rewritten(model)[0]):
        nodes = {node.op_type: node for node in make().graph.node}
        assert nodes["Clip"].input[1] == ""
        assert list(nodes["LSTM"].input[3:5]) == ["", ""]
        assert nodes["LSTM"].output[0] == ""


def large_model(folder: Path) -> Path:
    """A file whose weights, all zero, take more than 2 GB beside it and hardly any room on the disk.

    Only its CumProd is to be rewritten: every change of the graph copies the weights.
    """
    rows = LARGE_MODEL_BYTES // LARGE_MODEL_WEIGHTS // 16
    model = awkward("g (int64[1] i, float[2,4] x) => (float[2,4] y) { k = CumProd(x, a) }")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(AXIS), "a"))
    model.graph.node[0].name = last = "k"
    for number in range(LARGE_MODEL_WEIGHTS):
        weight = model.graph.initializer.add(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[rows, 4])
        weight.data_location = TensorProto.EXTERNAL
        for key, entry in (("location", "weights"), ("offset", number * rows * 16), ("length", rows * 16)):
            weight.external_data.add(key=key, value=str(entry))
        total = "y" if number == LARGE_MODEL_WEIGHTS - 1 else f"t{number}"
        gathered = f"g{number}"
        model.graph.node.append(helper.make_node("Gather", [weight.name, "i"], [gathered], name=gathered))
        model.graph.node.append(helper.make_node("Add", [last, gathered], [total], name=total))
        last = total
    with (folder / "weights").open("wb") as file:
        file.truncate(LARGE_MODEL_WEIGHTS * rows * 16)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


IN_A_PROCESS_OF_ITS_OWN = """
import resource, sys
from trt_opt.graph.load import load_model
from trt_opt.graph.query import count_operators
from trt_opt.graph.tensors import weight_bytes
from trt_opt.passes import PASSES
from trt_opt.passes.runner import rewrite
from trt_opt.passes.mathematics.unroll_cumulative_product import UnrollCumulativeProduct

cumulative = UnrollCumulativeProduct()
after, report = rewrite(load_model(sys.argv[1]), passes={**PASSES, cumulative.name: cumulative})
assert not [entry for entry in report.passes if entry.rolled_back], report
assert count_operators(after) == {"Gather": 8, "Add": 8, "Unsqueeze": 1, "Where": 1, "ReduceProd": 1}, after.graph.node
print(weight_bytes(after), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only, and files may not be sparse")
def test_model_over_two_gigabytes_is_rewritten_in_bounded_memory(tmp_path: Path) -> None:
    """Weights beyond what one protobuf message holds pass through all passes and a node pass, in at most 6 GB."""
    path = large_model(tmp_path)
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    weights, resident = map(int, done.stdout.split())
    assert weights > 1 << 31
    assert resident < MOST_RESIDENT_BYTES
