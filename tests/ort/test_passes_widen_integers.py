"""Integers of types that TensorRT lacks, carried in INT32 and INT64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from passes_models import applied, model_of, operators, refused_by

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes.ends.widen_io import WidenIo
from trt_opt.passes.integers.integer_types import CARRIERS
from trt_opt.passes.integers.widen_integers import WidenIntegers
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample

DTYPES = ("uint8", "int16", "uint16", "uint32", "uint64")

Arrays = tuple[np.ndarray, ...]


def truncated(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The quotient rounded towards zero, wrapped around."""
    bits = np.iinfo(one.dtype).bits
    found = [abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(one, other, strict=True)]
    return np.array([number % (1 << bits) for number in found], f"uint{bits}").view(one.dtype)


OPERATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add(a, b)": np.add,
    "Sub(a, b)": np.subtract,
    "Mul(a, b)": np.multiply,
    "Div(a, b)": truncated,
    "Mod(a, b)": np.mod,
    "Mod<fmod=1>(a, b)": np.fmod,
    "Max(a, b)": np.maximum,
    "Min(a, b)": np.minimum,
    "Clip(a, l, h)": lambda a, _: np.clip(a, np.array(100, a.dtype), np.array(np.iinfo(a.dtype).max - 9, a.dtype)),
    "BitwiseXor(a, b)": np.bitwise_xor,
    "Concat<axis=0>(a, b)": lambda a, b: np.concatenate([a, b]),
    "Abs(a)": lambda a, _: np.abs(a),
    "ReduceMax(a)": lambda a, _: a.max(keepdims=True),
    "ReduceMin(a)": lambda a, _: a.min(keepdims=True),
}

COMPARISONS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}


def pairs(dtype: str) -> Arrays:
    """Pairs of numbers of a type: its limits, what is next to powers of two, random ones; the second is never 0."""
    limits = np.iinfo(dtype)
    near = {0, limits.min, limits.max, limits.min + 1} | {
        (1 << p) + step for p in range(limits.bits) for step in (-1, 0)
    }
    edges = np.array([number for number in near if limits.min <= number <= limits.max], dtype)
    rng = np.random.default_rng(0)
    drawn = rng.integers(limits.min, limits.max, 12, dtype=dtype, endpoint=True)
    values = np.concatenate([edges, drawn, drawn >> 3])
    one, other = (grid.reshape(-1) for grid in np.meshgrid(values, values))
    return one[other != 0], other[other != 0]


def computed(text: str, feed: Mapping[str, np.ndarray], **weights: np.ndarray) -> np.ndarray:
    """What the model gives with its ends and all between widened; nothing narrow is left but UINT8 ends."""
    model = model_of(text, opset=18, **weights)
    widened, _ = WidenIo().run(model)
    widened, _ = WidenIntegers().run(widened)
    onnx.checker.check_model(widened, full_check=True)
    assert WidenIntegers().run(widened)[0] is widened
    inferred = onnx.shape_inference.infer_shapes(widened).graph
    ends = {value.name for value in (*inferred.input, *inferred.output)}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        name = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        assert name not in {"int16", "uint16", "uint32", "uint64"} | (set() if value.name in ends else {"uint8"})
    wanted = {spec.name: spec.dtype for spec in graph_inputs(widened)}
    carried = {name: values.astype(wanted[name]) for name, values in feed.items()}
    return run_model(widened, [Sample("sample", carried)])[0]["y"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_arithmetic_wraps_around(operation: str, dtype: str) -> None:
    """Every operator gives the bits that NumPy gives in the narrow type."""
    one, other = pairs(dtype)
    with np.errstate(over="ignore"):
        expected = OPERATIONS[operation](one, other)
    unread = "" if "b" in operation[4:] else " u = Shape(b)"
    ends = f"({dtype}[{one.size}] a, {dtype}[{one.size}] b) => ({dtype}[{expected.size}] y)"
    text = f"g {ends} {{{unread} y = {operation} }}"
    limits = {"l": np.array(100, dtype), "h": np.array(np.iinfo(dtype).max - 9, dtype)} if "Clip" in operation else {}
    found = computed(text, {"a": one, "b": other}, **limits)
    np.testing.assert_array_equal(found.astype(dtype), expected)
    if dtype != "uint64":
        np.testing.assert_array_equal(found, expected, err_msg="out of the range of the type")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons_follow_the_type(op: str, dtype: str) -> None:
    """Unsigned numbers beyond the range of INT64 compare as unsigned."""
    one, other = pairs(dtype)
    text = f"g ({dtype}[{one.size}] a, {dtype}[{one.size}] b) => (bool[{one.size}] y) {{ y = {op}(a, b) }}"
    np.testing.assert_array_equal(computed(text, {"a": one, "b": other}), COMPARISONS[op](one, other))


@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_numbers_are_found(dtype: str) -> None:
    """TopK and ArgMax see the order of the type."""
    one, _ = pairs(dtype)
    values = np.unique(one)[None]
    size = values.size
    text = f"g ({dtype}[1,{size}] a) => ({dtype}[1,3] y, int64[1,3] i) {{ y, i = TopK(a, k) }}"
    np.testing.assert_array_equal(computed(text, {"a": values}, k=np.int64([3])).astype(dtype), values[:, :-4:-1])
    text = f"g ({dtype}[1,{size}] a) => (int64[1,1] y) {{ y = ArgMax<axis=1>(a) }}"
    assert computed(text, {"a": values}).item() == size - 1


@pytest.mark.parametrize("given", [*DTYPES, "int8", "bool", "int32", "int64", "float"])
@pytest.mark.parametrize("wanted", DTYPES)
def test_casts_wrap_around(given: str, wanted: str) -> None:
    """A Cast to a narrow type and from there to the widest keeps the bits that NumPy keeps."""
    name = "float32" if given == "float" else given
    if given == "bool":
        values = np.array([True, False])
    elif given == "float":
        values = np.float32([0, 1.5, 99.9, 120])
    else:
        values = np.unique(pairs(given)[0])
    text = (
        f"g ({given}[{values.size}] a) => (int64[{values.size}] y) {{ n = Cast<to={to(wanted)}>(a) y = Cast<to=7>(n) }}"
    )
    np.testing.assert_array_equal(computed(text, {"a": values.astype(name)}), values.astype(wanted).astype("int64"))


@pytest.mark.parametrize(("divisor", "remainders"), [(256, 1), (1000, 2)])
def test_numbers_in_range_are_not_wrapped(divisor: int, remainders: int) -> None:
    """A Cast to UINT8 of what is in range anyway needs no remainder; of what may not be it does."""
    text = "g (int32[6] x) => (float[6] y) { m = Mod(x, k) n = Cast<to=2>(m) y = Cast<to=1>(n) }"
    samples = [Sample("sample", {"x": np.int32([-1, 255, 256, 999, 1001, 70000])})]
    after, _ = applied(WidenIntegers(), model_of(text, k=np.int32(divisor)), samples)
    assert operators(after)["Mod"] == remainders


def test_largest_of_nothing_is_the_least_of_the_type() -> None:
    """Reductions of an axis of length 0 give the limits of UINT8, not of INT32."""
    feed = {"a": np.zeros((4, 0), np.uint8)}
    for op, limit in (("ReduceMax", 0), ("ReduceMin", 255)):
        text = f"g (uint8[4,0] a) => (int32[4,1] y) {{ m = {op}(a, i) y = Cast<to=6>(m) }}"
        assert computed(text, feed, i=np.int64([1])).tolist() == [[limit]] * 4


def to(dtype: str) -> int:
    """The number of an element type."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def test_largest_unsigned_numbers_become_floats_and_come_back() -> None:
    """UINT64 of 2^63 and more are rounded once on the way to float32, and are found again on the way back."""
    values = np.unique(pairs("uint64")[0])
    values = np.append(values, np.array([(1 << 63) + (1 << 39) + 1, (1 << 63) + (3 << 39) - 1], "uint64"))
    text = f"g (uint64[{values.size}] a) => (float[{values.size}] y) {{ y = Cast<to=1>(a) }}"
    np.testing.assert_array_equal(computed(text, {"a": values}), values.astype(np.float32))
    floats = np.float32([0, 7.5, 2.0**40, 2.0**63, 2.0**63 * 1.5, 1.8e19])
    text = "g (float[6] a) => (int64[6] y) { n = Cast<to=13>(a) y = Cast<to=7>(n) }"
    np.testing.assert_array_equal(computed(text, {"a": floats}).astype("uint64"), floats.astype("uint64"))


IMAGE = """g (uint8[N,8,8,3] x) => (float[N,3,4,4] y) {
  s = Slice(x, starts, ends, axes) t = Transpose<perm=[0,3,1,2]>(s) c = Cast<to=1>(t) y = Mul(c, scale) }"""
IMAGE_WEIGHTS = {
    "starts": np.int64([2, 2]),
    "ends": np.int64([6, 6]),
    "axes": np.int64([1, 2]),
    "scale": np.float32(1 / 255),
}
LOOP = """g (uint8[3] x) => (float[3] y, uint8[3] f) {
  n = Constant<value = int64 {3}>() c = Constant<value = bool {1}>()
  f = Loop(n, c, x) <body = b (int64 i, bool o, uint8[3] p) => (bool k, uint8[3] q) { k = Identity(o) q = Add(p, p) }>
  y = Cast<to=1>(f) }"""
BRANCHES = """g (float[3] x, bool c) => (float[3] y) { u = Cast<to=2>(x)
  f = If(c) <then_branch = t () => (uint8[3] p) { p = Sub(w, u) },
         else_branch = e () => (uint8[3] q) { q = Cast<to=2>(x) }>
  y = Cast<to=1>(f) }"""
MIXED = """g (uint8[4,5] x, uint8[4,5] z) => (uint8[4,5] y, uint8[4,5] e, uint8[4,2] v, uint8[2,10] r) {
  a = Add(x, z) b = Mul(a, x) d = Sub(b, z) e = Max(d, x) c = Less(a, b) y = Where(c, e, k) v, j = TopK(e, n)
  r = Reshape(y, s) }"""
RESIZED = """g (uint8[1,3,4,4] x) => (float[1,3,8,8] y) {
  t = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(x, , scales)
  y = Cast<to=1>(t) }"""


def uint8_samples(model: onnx.ModelProto) -> list[Sample]:
    """Feeds over the whole range of the types; dynamic sizes are 2."""
    rng = np.random.default_rng(0)
    samples = []
    for turn in range(2):
        feed = {}
        for spec in graph_inputs(model):
            shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
            top = {"bool": 1, "float32": 100}.get(spec.dtype, 255)
            feed[spec.name] = (
                np.array(bool(turn)) if spec.dtype == "bool" else rng.integers(0, top, shape).astype(spec.dtype)
            )
        samples.append(Sample(str(turn), feed))
    return samples


@pytest.mark.parametrize(
    ("text", "weights", "casts"),
    [
        pytest.param(IMAGE, IMAGE_WEIGHTS, 2, id="image"),
        pytest.param(LOOP, {}, 3, id="loop"),
        pytest.param(BRANCHES, {"w": np.uint8([1, 2, 3])}, 3, id="branches"),
        pytest.param(MIXED, {"k": np.uint8(7), "n": np.int64([2]), "s": np.int64([2, 10])}, 6, id="mixed"),
        pytest.param(RESIZED, {"scales": np.float32([1, 1, 2, 2])}, 4, id="resized"),
    ],
)
def test_narrow_numbers_stay_at_the_ends(text: str, weights: dict, casts: int) -> None:
    """Between graph inputs and outputs there is a Cast at each end and none in between."""
    model = model_of(text, **weights)
    after, _ = applied(WidenIntegers(), model, uint8_samples(model))
    assert operators(after)["Cast"] == casts


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("text", "weights"),
    [
        pytest.param(IMAGE.replace("N", "2"), IMAGE_WEIGHTS, id="image"),
        pytest.param(LOOP, {}, id="loop"),
        pytest.param(BRANCHES, {"w": np.uint8([1, 2, 3])}, id="branches"),
        pytest.param(MIXED, {"k": np.uint8(7), "n": np.int64([2]), "s": np.int64([2, 10])}, id="mixed"),
        pytest.param(RESIZED, {"scales": np.float32([1, 1, 2, 2])}, id="resized"),
    ],
)
def test_widened_graphs_become_buildable(text: str, weights: dict) -> None:
    """TensorRT-RTX refuses the graphs and takes what the pass writes."""
    model = model_of(text, **weights)
    assert refused_by(model)
    assert not refused_by(WidenIntegers().run(model)[0])


def test_int8_is_widened_where_it_is_refused() -> None:
    """Mod of INT8 is computed in INT32 with nothing narrow between two of them; an Add of INT8 stays."""
    text = "g (int8[4,5] x) => (int8[4,5] y) { a = Mod(x, k) b = Mod(a, l) y = Add(b, x) }"
    model = model_of(text, k=np.int8(7), l=np.int8(-3))
    samples = [Sample("sample", {"x": np.arange(-100, 100, 10, np.int8).reshape(4, 5)})]
    after, report = applied(WidenIntegers(), model, samples)
    assert operators(after) == {"Cast": 2, "Mod": 2, "Add": 1}
    assert len(report.changed) == 2


def test_only_what_concerns_refused_nodes_is_done() -> None:
    """Without a refused node that touches such a type nothing changes; with one the whole graph does."""
    model = model_of("g (uint8[4] x, float[4] z) => (uint8[4] y, float[4] w) { y = Add(x, x) w = Relu(z) }")
    model.graph.node[0].name, model.graph.node[1].name = "add", "relu"
    assert WidenIntegers().on(frozenset({"relu"})).run(model)[0] is model
    assert operators(WidenIntegers().on(frozenset({"add"})).run(model)[0]) == {"Cast": 2, "Add": 1, "Mod": 1, "Relu": 1}


def test_graphs_without_such_types_and_quantised_ones_stay() -> None:
    """Quantisation nodes keep their UINT8, and a graph of floats is not touched."""
    text = "g (float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    for model in (
        model_of(text, s=np.float32(0.1), z=np.uint8(3)),
        model_of("g (float[4] x) => (float[4] y) { y = Relu(x) }"),
    ):
        assert WidenIntegers().run(model)[0] is model


def test_nodes_without_a_rule_are_named() -> None:
    """What no rule is known for, and Resize that interpolates, is declined with the reason; the rest is widened."""
    text = (
        "g (uint8[1,1,4,4] x) => (uint8[1,1,2,2] y) { a = Add(x, x) b = MaxPool<kernel_shape=[3,3]>(a) y = Sub(b, b) }"
    )
    model = model_of(text)
    after, report = applied(WidenIntegers(), model, uint8_samples(model))
    assert "MaxPool is not known" in report.declined[0].why
    assert operators(after) == {"Cast": 4, "Add": 2, "Mod": 2, "MaxPool": 1, "Sub": 1}
    text = """g (uint8[1,1,4,4] x) => (uint8[1,1,8,8] y) { y = Resize<mode = "linear">(x, , s) }"""
    _, report = WidenIntegers().run(model_of(text, s=np.float32([1, 1, 2, 2])))
    assert "cast to float before it" in report.declined[0].why


def test_ends_become_wider() -> None:
    """Inputs and outputs of types TensorRT lacks take the carrier's; UINT8 and others stay; names and shapes too."""
    text = """g (uint16[N,3] x, uint8[3] z, float[3] f) => (uint16[N,3] y, uint64[3] v, int16[3] w) {
      u = Cast<to=4>(z) y = Add(x, u) v = Cast<to=13>(u) w = Cast<to=5>(f) }"""
    model = model_of(text)
    after, report = WidenIo().run(model)
    assert [spec.dtype for spec in graph_inputs(after)] == ["int32", "uint8", "float32"]
    assert [spec.dtype for spec in graph_outputs(after)] == ["int32", "int64", "int32"]
    assert [(s.name, s.shape) for s in graph_outputs(after)] == [(s.name, s.shape) for s in graph_outputs(model)]
    assert any("graph input uint16 is now int32" in change.what for change in report.changed)
    feed = {"x": np.uint16([[65535, 1, 2]]), "z": np.uint8([255, 7, 0]), "f": np.float32([-3, 2.5, 9])}
    found = run_model(after, [Sample("sample", {**feed, "x": feed["x"].astype(np.int32)})])[0]
    assert found["y"].tolist() == [[254, 8, 2]]
    assert found["v"].tolist() == [255, 7, 0]
    assert found["w"].tolist() == [-3, 2, 9]
    assert WidenIo().run(after)[0] is after


@pytest.mark.rtx
@pytest.mark.parametrize("dtype", ["uint64"])
def test_widened_ends_become_buildable(dtype: str) -> None:
    """TensorRT-RTX refuses inputs of these types and takes what the pass writes."""
    ends = f"({dtype}[4] x, {dtype}[4] z) => ({dtype}[4] y, {dtype}[4] w)"
    text = f"g {ends} {{ y = Mul(x, z) d = Div(x, z) w = Mod(d, z) }}"
    assert refused_by(model_of(text))
    assert not refused_by(WidenIo().run(model_of(text))[0])


def test_carriers_hold_every_number() -> None:
    """All numbers of a type, or of UINT64 all bits, come back from the carrier."""
    for dtype, carrier in CARRIERS.items():
        limits = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
        np.testing.assert_array_equal(limits.astype(carrier).astype(dtype), limits)
