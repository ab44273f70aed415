"""Removing what does nothing, and raising the opset."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from passes_models import applied, floats, model_of, operators, random_samples

from trt_opt.graph.query import graph_inputs, opset
from trt_opt.passes.clean_up.initialisers_not_inputs import InitialisersNotInputs
from trt_opt.passes.clean_up.raise_opset import RaiseOpset
from trt_opt.passes.clean_up.remove_dead_nodes import RemoveDeadNodes
from trt_opt.passes.clean_up.remove_identities import RemoveIdentities
from trt_opt.passes.verification import difference, run_model

IDENTITIES = RemoveIdentities()
DEAD = RemoveDeadNodes()


def test_initialisers_leave_the_inputs() -> None:
    """A file of IR version 3 keeps one input, the data, and gets the IR version that allows it."""
    text = "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }"
    model = model_of(text, ir_version=3, opset=7, w=floats(2))
    after, report = applied(InitialisersNotInputs(), model)
    assert [value.name for value in after.graph.input] == ["x"]
    assert after.ir_version == 4
    assert [(change.node, change.what) for change in report.changed] == [("w", "no longer a graph input")]


def test_newer_ir_version_is_kept() -> None:
    """Only the entries go where the IR version allows free initialisers already."""
    model = model_of("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", w=floats(2))
    after, _ = applied(InitialisersNotInputs(), model)
    assert after.ir_version == model.ir_version


def test_dead_nodes_and_initialisers_go() -> None:
    """What no output depends on is removed, chains of it too; inputs stay."""
    model = model_of(
        "g (float[2] x, float[2] unread) => (float[2] y) { a = Neg(x) b = Abs(a) c = Add(b, w) y = Relu(x) }",
        w=floats(2),
        v=floats(2),
    )
    after, report = applied(DEAD, model)
    assert operators(after) == {"Relu": 1}
    assert not after.graph.initializer
    assert {change.node for change in report.changed} == {"a", "b", "c", "w", "v"}
    assert [spec.name for spec in graph_inputs(after)] == ["x", "unread"]


def test_what_only_a_branch_reads_is_alive() -> None:
    """A branch's dead node goes, and then what only it read; what the branch still reads from outside stays."""
    model = model_of(
        """g (bool flag, float[2] x) => (float[2] y) {
             alive = Neg(x) dead = Abs(x)
             y = If (flag) <then_branch = t () => (float[2] a) { unused = Add(dead, dead) a = Identity(alive) },
                            else_branch = e () => (float[2] b) { b = Relu(x) }> }"""
    )
    after, report = applied(DEAD, model)
    assert operators(after) == {"If": 1, "Neg": 1, "Identity": 1, "Relu": 1}
    assert [change.node for change in report.changed] == ["unused", "dead"]


def test_unused_second_output_does_not_matter() -> None:
    """A node of which one output is read stays whole."""
    model = model_of("g (float[4] x) => (float[2] y) { y, z = Split(x, s) }", s=np.array([2, 2]))
    after, _ = applied(DEAD, model)
    assert after is model


def test_identity_and_dropout_go() -> None:
    """Chains of nodes that hand on their input disappear, and the readers of all of them are connected."""
    model = model_of(
        """g (float[2] x) => (float[2] y, float[2] z) {
             a = Relu(x) b = Identity(a) c = Dropout(b) d = Identity(c) y = Neg(d) z = Abs(b) }"""
    )
    after, report = applied(IDENTITIES, model)
    assert operators(after) == {"Relu": 1, "Neg": 1, "Abs": 1}
    assert len(report.changed) == 3


def test_graph_output_keeps_its_name() -> None:
    """The node before takes over the output's name, and other readers follow."""
    model = model_of("g (float[2] x) => (float[2] y, float[2] z) { a = Relu(x) y = Identity(a) z = Neg(a) }")
    after, _ = applied(IDENTITIES, model)
    assert [list(node.output) for node in after.graph.node] == [["y"], ["z"]]
    assert after.graph.node[1].input[0] == "y"


@pytest.mark.parametrize(
    "body",
    [
        "y = Identity(x) z = Neg(x)",
        "a = Relu(x) y = Identity(a) z = Identity(a)",
        "z = Relu(x) y = Identity(z)",
        "y = Identity(w) z = Neg(x)",
    ],
    ids=["input_to_output", "two_outputs_of_one_tensor", "output_to_output", "constant_to_output"],
)
def test_identity_that_names_an_output_stays(body: str) -> None:
    """Where only the Identity gives an output its name, it stays, with the reason."""
    after, report = applied(
        IDENTITIES, model_of(f"g (float[2] x) => (float[2] y, float[2] z) {{ {body} }}", w=floats(2))
    )
    assert operators(after)["Identity"] == 1
    assert {decline.why for decline in report.declined} == {"it gives a graph output its name"}


def test_identity_of_an_outer_tensor_in_a_branch_stays() -> None:
    """A branch has to make its own output."""
    model = model_of(
        """g (bool flag, float[2] x) => (float[2] y) {
             d = Neg(x)
             y = If (flag) <then_branch = t () => (float[2] a) { a = Identity(d) },
                            else_branch = e () => (float[2] b) { i = Identity(d) b = Relu(i) }> }"""
    )
    after, report = applied(IDENTITIES, model)
    assert operators(after) == {"Neg": 1, "If": 1, "Identity": 1, "Relu": 1}
    assert [decline.node for decline in report.declined] == ["a"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y, z = Dropout(x)", "mask"),
        ("y, _ = Dropout(x, r, on) z = Not(off)", "in training mode"),
        ("y, _ = Dropout(x, r, flag) z = Not(off)", "only known at run time"),
    ],
)
def test_dropout_that_does_something_stays(text: str, reason: str) -> None:
    """Training mode, known or not, and a mask that is read."""
    model = model_of(
        f"g (float[2] x, bool flag) => (float[2] y, bool[] z) {{ {text} }}",
        r=np.float32(0.5),
        on=np.array(True),
        off=np.array([False, True]),
    )
    after, report = IDENTITIES.run(model)
    assert after is model
    assert reason in report.declined[0].why


def test_cast_to_the_same_type_goes() -> None:
    """A Cast of the float input to float does nothing; one to another type stays."""
    model = model_of(
        "g (float[2] x) => (float[2] y) { a = Cast<to = 1>(x) b = Cast<to = 11>(a) c = Cast<to = 1>(b) y = Relu(c) }"
    )
    after, report = applied(IDENTITIES, model)
    assert operators(after) == {"Cast": 2, "Relu": 1}
    assert [change.node for change in report.changed] == ["a"]


def test_opset_is_raised() -> None:
    """The wanted opset is reached, and the numbers stay."""
    model = model_of("g (float[2,3] x) => (float[2] y) { y = ReduceSum<axes = [1], keepdims = 0>(x) }", opset=11)
    after, report = applied(RaiseOpset(to=19), model)
    assert opset(after) == 19
    assert [change.what for change in report.changed] == ["opset 11 raised to 19"]


def test_opset_as_high_as_possible_is_taken() -> None:
    """Onnx has no rule for Upsample beyond opset 9: what cannot be converted is left alone, with onnx's reason."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Add(x, w) }", opset=11, w=floats(2))
    model.graph.node[0].domain = "ours"
    model.opset_import.add(domain="ours", version=1)
    after, report = RaiseOpset(to=15).run(model)
    assert after is model
    assert [decline.why.split(":")[0] for decline in report.declined] == ["opset 15", "opset 14", "opset 13"]
    assert "ours::Add" in report.declined[0].why


def test_higher_opset_is_not_lowered() -> None:
    """Raising to 13 what is at 17 does nothing."""
    model = model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    after, report = RaiseOpset(to=13).run(model)
    assert after is model
    assert not report.declined


def test_opset_6_prelu_keeps_its_numbers() -> None:
    """A slope per channel still lies along the channels after the conversion."""
    model = model_of(
        "g (float[1,3,4,3] x) => (float[1,3,4,3] y) { y = PRelu(x, s) }",
        ir_version=4,
        opset=6,
        s=np.array([0.1, 0.2, 0.3], np.float32),
    )
    after, _ = RaiseOpset(to=13).run(model)
    samples = random_samples(model)
    [y] = [outputs["y"] for outputs in run_model(after, samples[:1])]
    x = samples[0].feed["x"]
    expected = np.where(x < 0, x * np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 3, 1, 1), x)
    assert not difference(({"y": expected},), ({"y": y},))[1]
    onnx.checker.check_model(after, full_check=True)
