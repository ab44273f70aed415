"""Axes known at run time only, and what the declared shapes tell of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.shapes.fix_reduction_axes import FixReductionAxes
from trt_opt.passes.shapes.reshape_to_declared_shape import ReshapeToDeclaredShape
from trt_opt.values.samples import Sample

KINDS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


def reduction(
    kind: str, source: str, axes: int | str, result: str, then: str = "y = Identity(r)", **attributes: int
) -> ModelProto:
    """A reduction whose axes are an input of the graph."""
    told = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    text = f"r = Reduce{kind}{f'<{told}>' if told else ''}(x, axes) {then}"
    return model_of(f"g (float[{source}] x, int64[{axes}] axes) => (float[{result}] y) {{ {text} }}", opset=20)


def fed(shape: tuple[int, ...], *axes: int) -> Sample:
    """Positive numbers, as logarithms are taken of their sums."""
    return Sample(f"axes {axes}", {"x": np.abs(floats(*shape)), "axes": np.array(axes, np.int64)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noop", [0, 1])
def test_no_axes_are_all_or_none(kind: str, noop: int) -> None:
    """An axes input of length 0 reduces everything; with noop_with_empty_axes only what is not a sum is computed."""
    model = reduction(kind, "2,3", 0, "2,3" if noop else "1,1", noop_with_empty_axes=noop)
    sample = fed((2, 3))
    if noop and kind in {"LogSum", "SumSquare", "L1", "L2", "LogSumExp"}:
        # ONNX Runtime returns the input untouched, against the specification's text.
        after, _ = FixReductionAxes().run(model)
        expected = {"LogSum": ["Log", "Identity"], "SumSquare": ["Mul", "Identity"], "LogSumExp": ["Identity"]}
        wanted = expected.get(kind, ["Abs", "Identity"])
        assert set(operators(after)) == set(wanted)
        return
    after, report = applied(FixReductionAxes(), model, [sample])
    assert len(report.changed) == 1
    assert after.graph.input[1].name == "axes"


@pytest.mark.parametrize(
    ("source", "keepdims", "result", "axes"),
    [
        ("2,3,4", 1, "2,1,4", (1,)),
        ("2,3,4", 0, "2,4", (-2,)),
        ("2,3,4", 0, "3", (0, 2)),
        ("2,3,4", 1, "1,1,1", (2, 0, 1)),
        ("2,1,4", 1, "2,1,4", (1,)),
        ("1,1,4", 1, "1,1,4", (0,)),
        ("1,1,4", 0, "1,4", (1,)),
        ("n,3,4", 1, "n,1,4", (1,)),
        ("n,3,4", 0, "n,4", (1,)),
        ("n,m", 0, "m", (0,)),
    ],
)
def test_declared_shapes_leave_one_set_of_axes(source: str, keepdims: int, result: str, axes: tuple[int, ...]) -> None:
    """Static and dynamic sizes, negative and unsorted axes, and sizes of 1, which make no difference."""
    model = reduction("Sum", source, len(axes), result, keepdims=keepdims)
    shape = tuple({"n": 2, "m": 5}.get(size) or int(size) for size in source.split(","))
    after, _ = applied(FixReductionAxes(), model, [fed(shape, *axes)])
    assert operators(after) == {"ReduceSum": 1, "Identity": 1}
    assert "axes" not in after.graph.node[0].input


def test_shape_is_read_through_operators_that_keep_it() -> None:
    """The root of a sum of squares has the sum's shape; TensorRT-like expansions of ReduceL2 look so."""
    model = reduction("SumSquare", "2,3,4", 1, "2,3,1", then="s = Sqrt(r) y = Cast<to = 1>(s)")
    after, _ = applied(FixReductionAxes(), model, [fed((2, 3, 4), 2)])
    assert "axes" not in after.graph.node[0].input


@pytest.mark.parametrize("kind", KINDS)
def test_axes_select_among_what_the_shapes_leave(kind: str) -> None:
    """Where two axes have the same size both reductions are computed, and any axes value gives its own result."""
    model = reduction(kind, "2,3,3", 1, "2,3", keepdims=0)
    samples = [fed((2, 3, 3), axis) for axis in (1, 2, -1, -2)]
    after, _ = applied(FixReductionAxes(), model, samples)
    assert operators(after)[f"Reduce{kind}"] == 2 + (kind == "Sum")


def test_pairs_of_axes_are_selected() -> None:
    """Several axes are told apart as a set, in any order, whatever axes of size 1 are among them."""
    model = reduction("Sum", "2,2,1,2", 2, "2,1", keepdims=0)
    samples = [fed((2, 2, 1, 2), *axes) for axes in ((0, 3), (3, 0), (-1, 1), (1, 3))]
    after, _ = applied(FixReductionAxes(), model, samples)
    assert operators(after)["ReduceSum"] == 3


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (reduction("Sum", "4,4,2", "k", "4,2", keepdims=0), "may be [0] or [1]: --freeze-input axes="),
        (reduction("Sum", "n,m", 1, "?", keepdims=0), "may be [0] or [1]"),
        (reduction("Sum", "2,3", 1, "5", keepdims=0), "may be none"),
        (reduction("Sum", "2,3,4", 1, "2,3,4", then="z = Shape(r) w = Expand(r, z) y = Add(w, x)"), "no declared"),
        (reduction("Sum", "2,2,2,2,2,2,2", 1, "2,2,2,2,2,2", keepdims=0), "may be [0] or [1] or"),
    ],
    ids=["unknown-length", "dynamic", "contradiction", "inner", "many"],
)
def test_undetermined_axes_are_declined(model: ModelProto, why: str) -> None:
    """Nothing is guessed: the report names what is possible and how to fix it."""
    after, report = FixReductionAxes().run(model)
    assert after is model
    assert why in report.declined[0].why


def test_half_floats_in_a_branch() -> None:
    """A branch has no promised shapes, but no axes are no axes there too; the type stays."""
    text = """o = ReduceMax<keepdims = 0>(x, none) c = Cast<to = 9>(o)
      y = If(c) <then_branch = t () => (float16[1,1] a) { a = ReduceMean(x, axes) },
                 else_branch = e () => (float16[1,1] b) { b = ReduceMax(x, axes) }>"""
    model = model_of(f"g (float16[2,3] x, int64[0] axes, int64[0] none) => (float16[1,1] y) {{ {text} }}", opset=20)
    empty = np.zeros(0, np.int64)
    sample = Sample("half", {"x": floats(2, 3).astype(np.float16), "axes": empty, "none": empty})
    _, report = applied(FixReductionAxes(), model, [sample])
    assert len(report.changed) == 3


def test_constant_axes_are_left_alone() -> None:
    """What TensorRT takes stays."""
    text = "g (float[2,3] x) => (float[2,1,1] y) { r = ReduceSum(x, a) y = Unsqueeze(r, a) }"
    for entry in (FixReductionAxes(), ReshapeToDeclaredShape()):
        after, report = entry.run(model := model_of(text, a=np.array([1])))
        assert after is model
        assert not report.declined


@pytest.mark.parametrize(
    ("operator", "source", "result", "axes"),
    [
        ("Unsqueeze", "3,4", "3,1,4", (1,)),
        ("Unsqueeze", "3,4", "1,3,4,1", (-1, 0)),
        ("Squeeze", "1,3,1,4", "3,1,4", (0,)),
        ("Unsqueeze", "n,4", "n,1,4", (1,)),
        ("Squeeze", "n,1,4", "n,4", (-2,)),
    ],
)
def test_elements_stay_in_order(operator: str, source: str, result: str, axes: tuple[int, ...]) -> None:
    """Squeeze and Unsqueeze are the Reshape to what is declared, one dynamic size included."""
    text = f"g (float[{source}] x, int64[{len(axes)}] axes) => (float[{result}] y) {{ y = {operator}(x, axes) }}"
    shape = tuple(2 if size == "n" else int(size) for size in source.split(","))
    after, _ = applied(ReshapeToDeclaredShape(), model_of(text), [fed(shape, *axes)])
    assert operators(after) == {"Reshape": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(float[2,3] x, int64[1] axes) => (float[m] y) { u = Unsqueeze(x, axes) y = Tile(u, t) }", "no shape"),
        ("(float[n,m] x, int64[1] axes) => (float[n,1,m] y) { y = Unsqueeze(x, axes) }", "dynamic"),
        ("(float[2,0] x, int64[1] axes) => (float[2,1,0] y) { y = Unsqueeze(x, axes) }", "dynamic"),
    ],
)
def test_undeclared_reshape_is_declined(text: str, why: str) -> None:
    """Inner tensors have no promised shape; two dynamic sizes are not told apart."""
    model = model_of(f"g {text}", t=np.array([2]))
    after, report = ReshapeToDeclaredShape().run(model)
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize("result", ["2,1,3", "2,3"])
def test_reduction_becomes_buildable(result: str) -> None:
    """TensorRT-RTX refuses axes known at run time, and takes what the pass writes, selected axes too."""
    model = reduction("Sum", "2,3,3", 1, result, keepdims=int(result == "2,1,3"))
    assert refused_by(model)
    assert not refused_by(FixReductionAxes().run(model)[0])


@pytest.mark.rtx
def test_unsqueeze_becomes_buildable() -> None:
    """TensorRT-RTX refuses the operator with axes known at run time, and takes the Reshape."""
    model = model_of("g (float[3,4] x, int64[1] axes) => (float[3,1,4] y) { y = Unsqueeze(x, axes) }")
    assert refused_by(model)
    assert not refused_by(ReshapeToDeclaredShape().run(model)[0])
