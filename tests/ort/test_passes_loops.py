"""Loops that run a known number of times."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from passes_models import applied, model_of, operators, random_samples, refused_by

from trt_opt.passes.clean_up.remove_dead_nodes import RemoveDeadNodes
from trt_opt.passes.clean_up.remove_identities import RemoveIdentities
from trt_opt.passes.control_flow import unroll_loops
from trt_opt.passes.control_flow.give_loops_a_condition import GiveLoopsACondition
from trt_opt.passes.control_flow.tensors_instead_of_sequences import TensorsInsteadOfSequences
from trt_opt.passes.control_flow.unroll_loops import UnrollLoops
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample

PASS = UnrollLoops()

BODY = """l (int64 i, bool k, float[2] v) => (bool k2, float[2] w, float[2] r) {
          k2 = Identity(k) f = Cast<to = 1>(i) w = Add(v, f) r = Mul(w, x) }"""


def loop_model(
    head: str = "y, z = Loop(n, c, x)",
    body: str = BODY,
    result: str = "float[2] y, float[m,2] z",
    source: str = "float[2] x",
    **constants: object,
) -> ModelProto:
    """A Loop with one carried value and one output that gains a row per turn."""
    text = f"g ({source}) => ({result}) {{ {head} <body = {body}> }}"
    return model_of(text, **{name: np.asarray(value) for name, value in constants.items()})


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("condition", ["c", ""])
def test_known_trip_count_is_written_out(count: int, condition: str) -> None:
    """Turn numbers, carried values, rows and tensors from outside come out as the Loop has them."""
    weights = {"n": np.int64(count), **({"c": True} if condition else {})}
    after, report = applied(PASS, loop_model(f"y, z = Loop(n, {condition}, x)", **weights))
    assert operators(after)["Add"] == count
    assert "Loop" not in operators(after)
    assert len(report.changed) == 1


def test_loop_that_never_starts_hands_on() -> None:
    """No turn at all: the carried value is the result."""
    body = "l (int64 i, bool k, float[2] v) => (bool k2, float[2] w) { k2 = Identity(k) w = Neg(v) }"
    for weights in ({"n": np.int64(0), "c": True}, {"n": np.int64(3), "c": False}):
        after, _ = applied(PASS, loop_model("y = Loop(n, c, x)", body, "float[2] y", **weights))
        assert operators(after) == {"Identity": 1}


def test_values_may_be_swapped_and_handed_on() -> None:
    """A body may give back its inputs, in another order, and what comes from outside."""
    body = """l (int64 i, bool k, float[2] v, float[2] u) => (bool k2, float[2] u2, float[2] v2, float[2] r) {
              k2 = Constant<value_int = 1>() u2 = Identity(u) v2 = Neg(v) r = Identity(x) }"""
    body = body.replace("k2 = Constant<value_int = 1>()", "k1 = Constant<value_int = 1>() k2 = Cast<to = 9>(k1)")
    model = loop_model(
        "y, w, z = Loop(n, c, x, x)", body, "float[2] y, float[2] w, float[m,2] z", n=np.int64(3), c=True
    )
    inner = model.graph.node[0].attribute[0].g
    inner.output[1].name = "u"
    del inner.node[2:3]
    assert not any(output == "u2" for node in inner.node for output in node.output)
    after, report = PASS.run(model)
    assert report.changed
    onnx.checker.check_model(after, full_check=True)
    [expected], [found] = (_run(entry) for entry in (model, after))
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name])


def _run(model: ModelProto) -> list[dict[str, np.ndarray]]:
    return [dict(outputs) for outputs in run_model(model, random_samples(model, 1))]


def test_nested_graphs_are_copied() -> None:
    """An If in the body reads the turn's own values in every copy."""
    body = """l (int64 i, bool k, float[2] v) => (bool k2, float[2] w) {
        k2 = Identity(k) h = Neg(v) s = ReduceSum<keepdims = 0>(v) o = Less(s, zero)
        w = If(o) <then_branch = t () => (float[2] a) { e = Add(h, x) a = Add(e, v) },
                   else_branch = e () => (float[2] b) { b = Add(h, x) }> }"""
    model = loop_model("y = Loop(n, c, x)", body, "float[2] y", n=np.int64(3), c=True, zero=np.float32(0))
    after, _ = applied(PASS, model)
    assert operators(after)["If"] == 3


def test_loop_in_a_loop_takes_two_runs() -> None:
    """The inner Loop is copied with the outer's body, and written out where it stands."""
    body = """l (int64 i, bool k, float[2] v) => (bool k2, float[2] w) { k2 = Identity(k)
        w = Loop(n, c, v) <body = j (int64 i2, bool h, float[2] p) => (bool h2, float[2] q)
                           { h2 = Identity(h) q = Add(p, v) }> }"""
    model = loop_model("y = Loop(n, c, x)", body, "float[2] y", n=np.int64(2), c=True)
    after, _ = PASS.run(model)
    after, _ = PASS.run(after)
    onnx.checker.check_model(after, full_check=True)
    assert operators(RemoveDeadNodes().run(after)[0]) == {"Add": 4}
    [expected], [found] = (_run(entry) for entry in (model, after))
    np.testing.assert_allclose(expected["y"], found["y"], rtol=1e-6)


def test_declared_length_tells_the_trip_count() -> None:
    """A trip count known at run time only is the promised number of rows."""
    model = loop_model("y, z = Loop(n, c, x)", result="float[2] y, float[3,2] z", source="float[2] x, int64 n", c=True)
    [plain] = random_samples(model, 1)
    after, _ = applied(PASS, model, [Sample("3", {**plain.feed, "n": np.int64(3)})])
    assert operators(after)["Add"] == 3


def test_promised_rows_tell_that_it_starts() -> None:
    """A Loop of which rows are promised was started, whatever its condition is computed from."""
    source = "float[2] x, int64 n, bool c"
    model = loop_model("y, z = Loop(n, c, x)", result="float[2] y, float[2,2] z", source=source)
    [plain] = random_samples(model, 1)
    after, _ = applied(PASS, model, [Sample("2", {**plain.feed, "n": np.int64(2), "c": np.array(True)})])
    assert operators(after)["Add"] == 2


def test_carried_sequence_becomes_tensors() -> None:
    """A list filled turn by turn, as exporters write it, is a Concat in the end, whatever is refused otherwise."""
    text = """s = SequenceEmpty() t = Loop(n, c, s) <body =
          l (int64 i, bool k, seq(float[2]) v) => (bool k2, seq(float[2]) w) {
          k2 = Identity(k) f = Cast<to = 1>(i) r = Mul(x, f) w = SequenceInsert(v, r) }>
        y = ConcatFromSequence<axis = 0>(t)"""
    model = model_of(f"g (float[2] x) => (float[6] y) {{ {text} }}", n=np.int64(3), c=np.array(True))
    unrolled, report = applied(UnrollLoops(frozenset()), model)
    assert report.changed
    after, _ = applied(TensorsInsteadOfSequences(), unrolled)
    clean, _ = RemoveDeadNodes().run(after)
    assert operators(clean) == {"Cast": 3, "Mul": 3, "Concat": 1}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (loop_model(source="float[2] x, int64 n", c=True), "--freeze-input fixes what n "),
        (loop_model(source="float[2] x, bool c", n=np.int64(2)), "--freeze-input fixes what c "),
        (loop_model(n=np.int64(65), c=True), "runs 65 times"),
        (loop_model(n=np.int64(0), c=True), "'z' would have no row"),
        (loop_model("y, z = Loop(, c, x)", c=True), "never ends"),
        (
            loop_model(body=BODY.replace("k2 = Identity(k)", "k2 = Less(i, n)"), n=np.int64(2), c=True),
            "decides at run time",
        ),
        (
            loop_model(
                "t = Loop(n, c, o)",
                """l (int64 i, bool k, optional(seq(float[2])) v) => (bool k2, optional(seq(float[2])) w)
                   { k2 = Identity(k) s = SequenceConstruct(x) w = Optional(s) }""",
                "optional(seq(float[2])) t",
                "float[2] x, optional(seq(float[2])) o",
                n=np.int64(2),
                c=True,
            ),
            "carries an optional",
        ),
    ],
    ids=["trip-count", "condition", "long", "no-rows", "endless", "body-decides", "optional"],
)
def test_unknown_turns_are_declined(model: ModelProto, why: str) -> None:
    """What cannot be counted beforehand stays a Loop."""
    after, report = PASS.run(model)
    assert after is model
    assert why in report.declined[0].why


def test_large_bodies_are_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes that would come of it are limited."""
    monkeypatch.setattr(unroll_loops, "MOST_NODES", 11)
    after, report = PASS.run(model := loop_model(n=np.int64(3), c=True))
    assert after is model
    assert "3 times over 4 nodes" in report.declined[0].why


def test_missing_condition_is_written() -> None:
    """Left out means true; Loops with a condition are left alone."""
    model = loop_model("y, z = Loop(n, , x)", n=np.int64(3))
    after, _ = applied(GiveLoopsACondition(), model)
    assert all(after.graph.node[0].input)
    model = loop_model(n=np.int64(3), c=True)
    assert GiveLoopsACondition().run(model)[0] is model


@pytest.mark.rtx
def test_loop_without_condition_becomes_buildable() -> None:
    """TensorRT-RTX refuses a Loop without a condition, and takes it with one, and written out."""
    model = loop_model("y, z = Loop(n, , x)", n=np.int64(3))
    assert refused_by(model)
    assert not refused_by(GiveLoopsACondition().run(model)[0])
    assert not refused_by(RemoveIdentities().run(PASS.run(model)[0])[0])
