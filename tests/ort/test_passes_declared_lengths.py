"""Range and OneHot of declared size, Dropout that drops nothing, and ranks beyond TensorRT's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.graph.beyond_rank import nodes_beyond_rank
from trt_opt.passes.control_flow.remove_inactive_dropout import RemoveInactiveDropout
from trt_opt.passes.shapes.one_hot_of_declared_depth import OneHotOfDeclaredDepth
from trt_opt.passes.shapes.range_of_declared_length import RangeOfDeclaredLength
from trt_opt.values.samples import Sample


@pytest.mark.parametrize("dtype", ["float", "double", "int32", "int64"])
def test_declared_length_makes_a_range(dtype: str) -> None:
    """Bounds known at run time only, counting up and down."""
    text = f"g ({dtype} s, {dtype} l, {dtype} d) => ({dtype}[4] y) {{ y = Range(s, l, d) }}"
    numpy_type = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    feeds = [dict(zip("sld", np.array(bounds, numpy_type), strict=True)) for bounds in ((1, 8, 2), (3, -5, -2))]
    samples = [
        Sample(str(index), {name: np.asarray(value) for name, value in feed.items()})
        for index, feed in enumerate(feeds)
    ]
    after, _ = applied(RangeOfDeclaredLength(), model_of(text), samples)
    assert operators(after) == {"Mul": 1, "Add": 1}


def test_range_of_half_floats_is_rounded_once() -> None:
    """ONNX Runtime has no Range in 16 bits; onnx's reference has, and the length may lie behind an Abs."""
    text = "g (float16 s, float16 l, float16 d) => (float16[5] y) { r = Range(s, l, d) y = Abs(r) }"
    model = model_of(text, opset=20)
    feed = dict(zip("sld", np.array([1, 2, 0.2], np.float16), strict=True))
    after, _ = RangeOfDeclaredLength().run(model)
    onnx.checker.check_model(after, full_check=True)
    assert "Range" not in operators(after)
    [found] = ReferenceEvaluator(after).run(None, {name: np.asarray(value) for name, value in feed.items()})
    exact = feed["s"].astype(np.float32) + np.arange(5, dtype=np.float32) * feed["d"].astype(np.float32)
    np.testing.assert_array_equal(found, exact.astype(np.float16))


def test_constant_bounds_need_no_declared_shape() -> None:
    """The length follows from them."""
    bounds = {"s": np.int64(5), "l": np.int64(-2), "d": np.int64(-3)}
    model = model_of("g (int64[m] x) => (int64[m] y) { r = Range(s, l, d) y = Mul(x, r) }", **bounds)
    after, _ = applied(RangeOfDeclaredLength(), model, [Sample("x", {"x": np.arange(3)})])
    assert operators(after) == {"Mul": 2, "Add": 1}


def test_range_of_unknown_length_is_declined() -> None:
    """The report names the bounds that are not constant."""
    model = model_of("g (float s, float l) => (float[m] y) { y = Range(s, l, d) }", d=np.float32(1))
    after, report = RangeOfDeclaredLength().run(model)
    assert after is model
    assert report.declined[0].why.endswith("--freeze-input s=… --freeze-input l=…")


@pytest.mark.parametrize(("axis", "result"), [(-1, "2,3,4"), (0, "4,2,3"), (1, "2,4,3"), (-2, "2,4,3")])
@pytest.mark.parametrize("kind", ["int64", "int32", "float"])
def test_declared_depth_makes_one_hot(axis: int, result: str, kind: str) -> None:
    """Every place of the new axis; negative indices and such that are out of range."""
    text = f"g ({kind}[2,3] i, int64 d, float[2] v) => (float[{result}] y) {{ y = OneHot<axis = {axis}>(i, d, v) }}"
    indices = np.array([[0, 3, -1], [-4, 4, -5]], {"float": "float32"}.get(kind, kind))
    feed = {"i": indices, "d": np.int64(4), "v": np.array([0.5, 2], np.float32)}
    after, _ = applied(OneHotOfDeclaredDepth(), model_of(text), [Sample("all", feed)])
    assert "OneHot" not in operators(after)


def test_one_hot_keeps_a_dynamic_batch() -> None:
    """Only the size of the new axis must be declared."""
    text = "g (int64[n] i, int64 d) => (float[n,4] y) { y = OneHot(i, d, v) }"
    model = model_of(text, v=np.array([0, 1], np.float32))
    applied(OneHotOfDeclaredDepth(), model, [Sample("3", {"i": np.array([1, 0, 3]), "d": np.int64(4)})])


@pytest.mark.parametrize(
    "result", ["float[n,m] y) { y = OneHot(i, d, v)", "float[m] y) { h = OneHot(i, d, v) y = Tile(h, t)"]
)
def test_one_hot_of_unknown_depth_is_declined(result: str) -> None:
    """A dynamic or an inner axis tells nothing."""
    weights = {"v": np.array([0, 1], np.float32), **({"t": np.array([2])} if "Tile" in result else {})}
    model = model_of(f"g (int64[n] i, int64 d) => ({result} }}", **weights)
    after, report = OneHotOfDeclaredDepth().run(model)
    assert after is model
    assert "--freeze-input d=" in report.declined[0].why


@pytest.mark.parametrize(
    ("inputs", "weights"),
    [
        ("x, r, t", {"r": np.float32(0), "t": np.array(True)}),
        ("x, r, t", {"r": np.float32(0.5), "t": np.array(False)}),
        ("x, r", {"r": np.float32(0.5)}),
    ],
)
def test_dropout_that_drops_nothing_goes(inputs: str, weights: dict[str, np.ndarray]) -> None:
    """Ratio 0 or no training: the input, and a mask of true."""
    model = model_of(f"g (float[n,3] x) => (float[n,3] y, bool[n,3] m) {{ y, m = Dropout({inputs}) }}", **weights)
    after, _ = applied(RemoveInactiveDropout(), model)
    assert operators(after) == {"Identity": 1, "Shape": 1, "ConstantOfShape": 1}
    model = model_of(f"g (float[n,3] x) => (float[n,3] y) {{ y = Dropout({inputs}) }}", **weights)
    after, _ = applied(RemoveInactiveDropout(), model)
    assert operators(after) == {"Identity": 1}


@pytest.mark.parametrize(
    ("source", "weights", "why"),
    [
        ("float[3] x, bool t", {"r": np.float32(0.5)}, "--freeze-input t=false"),
        ("float[3] x, float r", {"t": np.array(True)}, "random"),
    ],
)
def test_active_dropout_is_declined(source: str, weights: dict[str, np.ndarray], why: str) -> None:
    """What may drop something stays."""
    model = model_of(f"g ({source}) => (float[3] y) {{ y = Dropout(x, r, t) }}", **weights)
    after, report = RemoveInactiveDropout().run(model)
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.parametrize("operator", ["Reshape", "Expand"])
@pytest.mark.parametrize("rank", [9, 12])
def test_nodes_beyond_the_largest_rank_are_named(operator: str, rank: int) -> None:
    """Whatever makes or reads them, in nested graphs too."""
    shape = np.ones(rank, np.int64)
    text = f"""g (float[1] x, bool c) => (float[m] y) {{ b = {operator}(x, s) t = Relu(b) r = Reshape(t, w)
      y = If(c) <then_branch = p () => (float[m] a) {{ k = Constant<value_ints = [1,1,1,1,1,1,1,1,1]>()
                   i = {operator}(x, k) a = Reshape(i, w) }}, else_branch = q () => (float[m] e) {{ e = Neg(r) }}> }}"""
    found = nodes_beyond_rank(model_of(text, s=shape, w=np.array([-1])))
    assert [entry.op_type for entry in found] == [operator, "Relu", "Reshape", operator, "Reshape"]
    assert f"{rank} dimensions" in found[0].reason


def test_long_constants_are_no_shapes() -> None:
    """Eight dimensions are fine, and so are the long lists that other operators take."""
    text = "g (float[12] x) => (float[m] y) { a = Add(x, w) b = Reshape(a, s) y = Reshape(b, t) }"
    weights = {"w": floats(12), "s": np.array([12, 1, 1, 1, 1, 1, 1, 1]), "t": np.array([-1])}
    assert not nodes_beyond_rank(model_of(text, **weights))


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("entry", "text", "weights"),
    [
        (RangeOfDeclaredLength(), "(float s, float l) => (float[4] y) { y = Range(s, l, d) }", {"d": np.float32(1)}),
        (
            OneHotOfDeclaredDepth(),
            "(int64[3] i, float d) => (float[3,4] y) { y = OneHot(i, d, v) }",
            {"v": np.array([0, 1], np.float32)},
        ),
        (
            RemoveInactiveDropout(),
            "(float[3] x) => (float[3] y, bool[3] m) { y, m = Dropout(x, r, t) }",
            {"r": np.float32(0), "t": np.array(True)},
        ),
    ],
)
def test_declared_sizes_become_buildable(entry, text: str, weights: dict[str, np.ndarray]) -> None:
    """TensorRT-RTX refuses the operator, and takes what the pass writes."""
    model = model_of(f"g {text}", **weights)
    assert refused_by(model)
    assert not refused_by(entry.run(model)[0])
