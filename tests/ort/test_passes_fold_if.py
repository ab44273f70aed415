"""If whose condition is known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from passes_models import applied, model_of, operators, random_samples, refused_by

from trt_opt.passes.clean_up.fold_constants import FoldConstants
from trt_opt.passes.clean_up.fold_if import FoldIf
from trt_opt.passes.verification import run_model

IF = """y = If(c) <then_branch = t () => (float[2] a) { a = Relu(x) },
                  else_branch = e () => (float[2] b) { s = Neg(x) b = Exp(s) }>"""


def conditional(text: str = IF, *, condition: bool | list[bool] = True, result: str = "float[2] y") -> ModelProto:
    """A graph with an If on a constant condition."""
    return model_of(f"g (float[2] x) => ({result}) {{ {text} }}", c=np.array(condition))


@pytest.mark.parametrize(("condition", "expected"), [(True, {"Relu": 1}), ([False], {"Neg": 1, "Exp": 1})])
def test_taken_branch_takes_the_place(condition: bool | list[bool], expected: dict[str, int]) -> None:
    """Either branch may be the taken one; the result keeps its name as a graph output."""
    after, report = applied(FoldIf(), conditional(condition=condition))
    assert operators(after) == expected
    assert len(report.changed) == 1


def test_condition_of_a_constant_node_is_known() -> None:
    """The condition need not be an initialiser."""
    after, _ = applied(FoldIf(), conditional(f"k = Constant<value_int = 1>() c2 = Cast<to = 9>(k) {IF}"))
    assert operators(after) == {"Constant": 1, "Cast": 1, "Relu": 1}


def test_result_read_twice_and_inside_the_branch() -> None:
    """The result goes on to be read inside the branch and twice outside."""
    text = """w, v = If(c) <then_branch = t () => (float[2] a, float[2] d) { a = Relu(x) d = Add(a, x) },
                         else_branch = e () => (float[2] b, float[2] f) { b = Neg(x) f = Exp(b) }>
              y = Add(w, w) z = Mul(v, w)"""
    after, _ = applied(FoldIf(), conditional(text, result="float[2] y, float[2] z"))
    assert operators(after) == {"Relu": 1, "Add": 2, "Mul": 1}


def test_outer_tensor_and_constant_are_handed_on() -> None:
    """A branch may be no node at all: what comes from outside, or from its own initialisers, passes an Identity."""
    text = """y, z, v = If(c) <
      then_branch = t () => (float[2] x1, float[2] k, float[2] k2)
        <float[2] k0 = {1.0, 2.0}> { x1 = Identity(x) k = Identity(k0) k2 = Identity(k0) },
      else_branch = e () => (float[2] p, float[2] q, float[2] r) { p = Neg(x) q = Neg(x) r = Neg(x) }>"""
    after, _ = applied(FoldIf(), conditional(text, result="float[2] y, float[2] z, float[2] v"))
    assert operators(after) == {"Identity": 3}


def test_branch_without_nodes() -> None:
    """The branch's output is the outer tensor itself."""
    model = conditional()
    then = model.graph.node[0].attribute[0].g
    del then.node[:]
    then.output[0].name = "x"
    after, _ = FoldIf().run(model)
    assert operators(after) == {"Identity": 1}
    onnx.checker.check_model(after, full_check=True)
    sample = random_samples(after)[0]
    np.testing.assert_array_equal(run_model(after, [sample])[0]["y"], sample.feed["x"])


def test_one_result_for_two_outputs() -> None:
    """The branch gives the same tensor twice."""
    model = conditional(
        """y, z = If(c) <then_branch = t () => (float[2] a, float[2] d) { a = Relu(x) d = Neg(x) },
                        else_branch = e () => (float[2] b, float[2] f) { b = Neg(x) f = Exp(b) }>""",
        result="float[2] y, float[2] z",
    )
    then = model.graph.node[0].attribute[0].g
    then.output[1].CopyFrom(then.output[0])
    after, _ = FoldIf().run(model)
    onnx.checker.check_model(after, full_check=True)
    [outputs] = run_model(after, random_samples(after, 1))
    np.testing.assert_array_equal(outputs["y"], outputs["z"])


def test_names_of_the_branch_do_not_clash() -> None:
    """Two Ifs whose branches use the same names, and the names of the other branch."""
    inner = """If(c) <then_branch = t () => (float[2] a) { s = Relu(x) h = Exp(s) a = Add(h, k) },
                      else_branch = e () => (float[2] a) { s = Neg(x) a = Exp(s) }>"""
    first, second = inner.replace("k)", "x)"), inner.replace("k)", "u)")
    model = conditional(f"u = {first} w = {second} s = Neg(w) y = Add(u, s)")
    after, report = applied(FoldIf(), model)
    assert operators(after) == {"Relu": 2, "Exp": 2, "Add": 3, "Neg": 1}
    assert len(report.changed) == 2


def test_nested_ifs_fold_in_one_run() -> None:
    """An If inside a taken branch."""
    inner = """If(c) <then_branch = t2 () => (float[2] a2) { m = Relu(h) a2 = Neg(m) },
                      else_branch = e2 () => (float[2] b2) { b2 = Exp(h) }>"""
    outer = f"""If(c) <then_branch = t () => (float[2] a) {{ h = Neg(x) a = {inner} }},
                       else_branch = e () => (float[2] b) {{ b = Exp(x) }}>"""
    model = conditional(f"u = {outer} y = Add(u, x)")
    after, report = applied(FoldIf(), model)
    assert operators(after) == {"Neg": 2, "Relu": 1, "Add": 1}
    assert len(report.changed) == 2


def test_if_inside_a_branch_that_stays() -> None:
    """A condition known from outside decides inside a branch that is chosen at run time."""
    text = """z = ReduceSum<keepdims = 0>(x) o = Less(z, zero)
      y = If(o) <then_branch = t () => (float[2] a) { a = If(c) <
                   then_branch = t2 () => (float[2] a2) { a2 = Relu(x) },
                   else_branch = e2 () => (float[2] b2) { b2 = Exp(x) }> },
                 else_branch = e () => (float[2] b) { b = Exp(x) }>"""
    model = model_of(f"g (float[2] x) => (float[2] y) {{ {text} }}", c=np.array(True), zero=np.float32(0))
    after, _ = applied(FoldIf(), model)
    assert operators(after)["If"] == 1


def test_loop_body_keeps_reading_its_own_tensors() -> None:
    """An If in a Loop's body reads what the Loop carries."""
    text = """y = Loop(n, c, x) <body = l (int64 i, bool k, float[2] v) => (bool k2, float[2] w) {
        k2 = Identity(k)
        w = If(c) <then_branch = t () => (float[2] a) { a = Add(v, x) },
                   else_branch = e () => (float[2] b) { b = Neg(v) }> }>"""
    model = model_of(f"g (float[2] x) => (float[2] y) {{ {text} }}", c=np.array(True), n=np.int64(3))
    after, _ = applied(FoldIf(), model)
    assert operators(after) == {"Loop": 1, "Identity": 1, "Add": 1}


def test_runtime_condition_is_not_touched() -> None:
    """What is decided at run time stays, and is no news."""
    model = model_of(f"g (float[2] x, bool c) => (float[2] y) {{ {IF} }}")
    after, report = FoldIf().run(model)
    assert after is model
    assert not report.declined


def test_guard_on_a_shape_falls_with_constant_folding() -> None:
    """The usual guard of exporters: the rank or a size decides."""
    text = f"s = Shape(x) z = Size(s) c = Equal(z, one) {IF}"
    model = model_of(f"g (float[2] x) => (float[2] y) {{ {text} }}", one=np.array(1))
    folded, _ = FoldConstants().run(model)
    after, _ = applied(FoldIf(), folded)
    assert operators(after) == {"Relu": 1}


@pytest.mark.rtx
def test_operator_in_a_dead_branch_no_longer_refuses_the_model() -> None:
    """TensorRT-RTX refuses an operator in a branch never taken, unless the condition itself is an initialiser."""
    text = "k = Cast<to = 9>(one) " + IF.replace("s = Neg(x)", "s = CumProd(x, zero)").replace("If(c)", "If(k)")
    constants = {"one": np.array(1), "zero": np.int64(0)}
    model = model_of(f"g (float[2] x) => (float[2] y) {{ {text} }}", opset=26, ir_version=11, **constants)
    assert refused_by(model)
    folded, _ = FoldConstants().run(model)
    assert not refused_by(FoldIf().run(folded)[0])
