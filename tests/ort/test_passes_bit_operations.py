"""Bit operators, BitCast and reductions of booleans as integer arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from passes_models import applied, model_of, operators, refused_by

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes.integers.decompose_bit_operations import DecomposeBitOperations
from trt_opt.passes.integers.reduce_booleans_as_integers import ReduceBooleansAsIntegers
from trt_opt.passes.integers.reinterpret_integers import ReinterpretIntegers
from trt_opt.passes.verification import run_model
from trt_opt.values.samples import Sample

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
LOGIC = {"BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor}


def numbers(dtype: str, count: int = 300, seed: int = 0) -> np.ndarray:
    """Random numbers of a type, its limits and what is next to powers of two among them; all of 8 bits."""
    limits = np.iinfo(dtype)
    if limits.bits == 8:
        return np.arange(limits.min, limits.max + 1).astype(dtype)
    powers = [1 << place for place in range(limits.bits)]
    near = {sign * (power + step) for power in powers for step in (-1, 0, 1) for sign in (-1, 1)}
    edges = [number for number in (*near, limits.min, limits.max) if limits.min <= number <= limits.max]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(limits.min, limits.max, count, dtype=dtype, endpoint=True)
    return np.concatenate([np.array(edges, dtype), drawn])


def one_node(node: onnx.NodeProto, feed: dict[str, np.ndarray], dtype: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A model of one node that reads the feed and writes y."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    output = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
    graph = helper.make_graph([node], "g", values, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def computed(entry: DecomposeBitOperations | ReinterpretIntegers, model: onnx.ModelProto, feed: dict) -> np.ndarray:
    """What the rewritten model gives; that nothing is left of the node, and that the ends are the same."""
    after, report = entry.run(model)
    assert len(report.changed) == 1
    assert not set(operators(after)) & entry.operators
    assert (graph_inputs(after), graph_outputs(after)) == (graph_inputs(model), graph_outputs(model))
    onnx.checker.check_model(after, full_check=True)
    return run_model(after, [Sample("sample", feed)])[0]["y"]


def shifted(values: np.ndarray, places: np.ndarray, direction: str) -> np.ndarray:
    """The shift of the specification, in Python's integers."""
    bits = np.iinfo(values.dtype).bits
    left = direction == "LEFT"

    def one(number: int, place: int) -> int:
        inside = 0 <= place < bits
        moved = (number << place if left else number >> place) if inside else (-1 if number < 0 and not left else 0)
        moved %= 1 << bits
        return moved - (1 << bits) if moved > np.iinfo(values.dtype).max else moved

    grid = [[one(int(number), int(place)) for place in places] for number in values]
    return np.array(grid, values.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", sorted(LOGIC))
def test_bits_of_two_tensors(op: str, dtype: str) -> None:
    """AND, OR and XOR of two tensors that broadcast are NumPy's, for every type, sign and edge."""
    feed = {"a": numbers(dtype)[:, None], "b": numbers(dtype, 20, seed=1)[None, ::3]}
    expected = LOGIC[op](feed["a"], feed["b"])
    model = one_node(helper.make_node(op, ["a", "b"], ["y"], name="n"), feed, dtype, expected.shape)
    np.testing.assert_array_equal(computed(DecomposeBitOperations(), model, feed), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", sorted(LOGIC))
def test_bits_of_a_tensor_and_a_number(op: str, dtype: str) -> None:
    """With a constant number on either side no axis is added, and the numbers are NumPy's."""
    feed = {"a": numbers(dtype)}
    limits = np.iinfo(dtype)
    for mask in {
        0,
        1,
        0x3C,
        limits.max,
        limits.min,
        limits.max - 5,
        0x55 & limits.max,
        -1 if limits.min else limits.max,
    }:
        constant = np.array(mask, dtype)
        for inputs in (["a", "c"], ["c", "a"]):
            model = one_node(helper.make_node(op, inputs, ["y"], name="n"), feed, dtype, feed["a"].shape)
            model.graph.initializer.append(onnx.numpy_helper.from_array(constant, "c"))
            assert "ReduceSum" not in operators(DecomposeBitOperations().run(model)[0])
            found = computed(DecomposeBitOperations(), model, feed)
            np.testing.assert_array_equal(found, LOGIC[op](feed["a"], constant), err_msg=f"mask {mask}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_turned_over(dtype: str) -> None:
    """NOT is NumPy's."""
    feed = {"a": numbers(dtype)}
    model = one_node(helper.make_node("BitwiseNot", ["a"], ["y"], name="n"), feed, dtype, feed["a"].shape)
    np.testing.assert_array_equal(computed(DecomposeBitOperations(), model, feed), np.bitwise_not(feed["a"]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shift_by_a_tensor(direction: str, dtype: str) -> None:
    """Shifts by every number of places, negative ones and those beyond the width too, follow the specification."""
    limits = np.iinfo(dtype)
    places = np.unique(np.clip(np.arange(-3, limits.bits + 4), limits.min, limits.max)).astype(dtype)
    places = np.append(places, np.array([limits.max, limits.min], dtype))
    feed = {"a": numbers(dtype, 40)[:, None], "b": places[None]}
    expected = shifted(feed["a"][:, 0], places, direction)
    node = helper.make_node("BitShift", ["a", "b"], ["y"], name="n", direction=direction)
    model = one_node(node, feed, dtype, expected.shape)
    np.testing.assert_array_equal(computed(DecomposeBitOperations(), model, feed), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shift_by_a_number(direction: str, dtype: str) -> None:
    """Shifts by a constant follow the specification and look nothing up."""
    feed = {"a": numbers(dtype, 40)}
    bits = np.iinfo(dtype).bits
    for place in (0, 1, bits // 2, bits - 2, bits - 1, bits):
        node = helper.make_node("BitShift", ["a", "k"], ["y"], name="n", direction=direction)
        model = one_node(node, feed, dtype, feed["a"].shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(place, dtype), "k"))
        assert "Gather" not in operators(DecomposeBitOperations().run(model)[0])
        expected = shifted(feed["a"], np.array([place]), direction)[:, 0]
        np.testing.assert_array_equal(
            computed(DecomposeBitOperations(), model, feed), expected, err_msg=f"{place} places"
        )


def test_mask_of_low_bits_is_a_remainder() -> None:
    """x AND 255 of an unsigned type is one remainder, in a graph with dynamic sizes, and the pass is a proper pass."""
    model = model_of("g (uint32[N,4] x) => (uint32[N,4] y) { y = BitwiseAnd(x, c) }", opset=18, c=np.uint32(255))
    after, _ = applied(DecomposeBitOperations(), model)
    assert operators(after) == {"Cast": 2, "Mod": 1}


def test_bits_inside_a_branch() -> None:
    """A bit operator inside an If, read twice and a branch's output, is replaced there."""
    branch = "{ z = BitwiseOr(x, x) o = BitwiseXor(z, z) }"
    text = f"""g (int64[N] x, bool c) => (int64[N] y) {{
      y = If(c) <then_branch = t () => (int64[M] o) {branch},
                 else_branch = e () => (int64[K] p) {{ p = Identity(x) }}> }}"""
    samples = [Sample(str(c), {"x": np.arange(-3, 3), "c": np.array(c)}) for c in (True, False)]
    after, report = applied(DecomposeBitOperations(), model_of(text, opset=18), samples)
    assert len(report.changed) == 2
    assert not set(operators(after)) & DecomposeBitOperations.operators


def test_bits_of_constants_are_left_to_folding() -> None:
    """Where both operands are constant the pass declines."""
    text = "g (int32[2] x) => (int32[2] y) { z = BitwiseAnd(a, a) y = Add(x, z) }"
    _, report = DecomposeBitOperations().run(model_of(text, opset=18, a=np.int32([1, 2])))
    assert "constant" in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("node", "dtype"),
    [
        ("BitwiseAnd(x, z)", "int32"),
        ("BitwiseNot(x)", "uint8"),
        ('BitShift<direction="LEFT">(x, z)', "int64"),
        ('BitShift<direction="RIGHT">(x, c)', "uint8"),
    ],
)
def test_bits_become_buildable(node: str, dtype: str) -> None:
    """TensorRT-RTX refuses the operators and takes what the pass writes."""
    second = f", {dtype}[2,3] z" if "z)" in node else ""
    text = f"g ({dtype}[2,3] x{second}) => ({dtype}[2,3] y) {{ y = {node} }}"
    model = model_of(text, opset=18, c=np.array(12, dtype))
    model.graph.initializer.pop() if "c)" not in node else None
    assert refused_by(model)
    assert not refused_by(DecomposeBitOperations().run(model)[0])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (one + bits, other + bits)
        for bits in ("8", "16", "32", "64")
        for one, other in (("int", "uint"), ("uint", "int"))
    ],
)
def test_integers_keep_their_bits(given: str, wanted: str) -> None:
    """BitCast between a signed type and the unsigned one of its width is NumPy's view."""
    feed = {"a": numbers(given)}
    to = helper.np_dtype_to_tensor_dtype(np.dtype(wanted))
    model = one_node(helper.make_node("BitCast", ["a"], ["y"], name="n", to=to), feed, wanted, feed["a"].shape)
    np.testing.assert_array_equal(computed(ReinterpretIntegers(), model, feed), feed["a"].view(wanted))
    if "64" not in given:
        # What is cast at the end is in range: whether a Cast wraps around is not the same everywhere.
        compared = operators(ReinterpretIntegers().run(model)[0])
        assert ("Less" if given.startswith("int") else "Greater") in compared


def test_bits_of_floats_are_declined() -> None:
    """No arithmetic gives the bits of floating point numbers; of booleans a Cast does."""
    feed = {"a": np.float32([1, 2])}
    node = helper.make_node("BitCast", ["a"], ["y"], name="n", to=TensorProto.INT32)
    model = one_node(node, feed, "int32", (2,))
    after, report = ReinterpretIntegers().run(model)
    assert after is model
    assert "float32" in report.declined[0].why
    feed = {"a": np.array([True, False])}
    node = helper.make_node("BitCast", ["a"], ["y"], name="n", to=TensorProto.UINT8)
    assert computed(ReinterpretIntegers(), one_node(node, feed, "uint8", (2,)), feed).tolist() == [1, 0]


@pytest.mark.rtx
def test_reinterpreted_integers_become_buildable() -> None:
    """TensorRT-RTX refuses BitCast and takes what the pass writes."""
    node = helper.make_node("BitCast", ["a"], ["y"], name="n", to=TensorProto.UINT8)
    model = one_node(node, {"a": np.int8([1, -1])}, "uint8", (2,))
    assert refused_by(model)
    assert not refused_by(ReinterpretIntegers().run(model)[0])


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("size", [0, 3])
def test_booleans_are_reduced_as_integers(op: str, size: int) -> None:
    """The largest and least of booleans stay what they are, of none too."""
    text = f"g (bool[4,{size}] x) => (bool[4,1] y) {{ y = {op}(x, a) }}"
    model = model_of(text, opset=20, ir_version=9, a=np.int64([1]))
    pattern = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]], bool)[:, :size]
    after, _ = ReduceBooleansAsIntegers().run(model)
    assert operators(after) == {"Cast": 1, op: 1, "Greater": 1}
    found = run_model(after, [Sample("sample", {"x": pattern})])[0]["y"]
    expected = pattern.any(axis=1, keepdims=True) if op == "ReduceMax" else pattern.all(axis=1, keepdims=True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.rtx
def test_reduced_booleans_become_buildable() -> None:
    """TensorRT-RTX refuses a ReduceMax of booleans and takes what the pass writes; other types are declined."""
    model = model_of(
        "g (bool[4,3] x) => (bool[4,1] y) { y = ReduceMax(x, a) }", opset=20, ir_version=9, a=np.int64([1])
    )
    assert refused_by(model)
    assert not refused_by(ReduceBooleansAsIntegers().run(model)[0])
    model = model_of(
        "g (float[4,3] x) => (float[4,1] y) { y = ReduceMax(x, a) }", opset=20, ir_version=9, a=np.int64([1])
    )
    assert "not boolean" in ReduceBooleansAsIntegers().run(model)[1].declined[0].why
