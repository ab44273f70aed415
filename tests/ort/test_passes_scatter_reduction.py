"""Scatters with a reduction, and TensorScatter."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.mathematics.scatter_elements_with_reduction import ScatterElementsWithReduction
from trt_opt.passes.mathematics.scatter_nd_with_reduction import ScatterNdWithReduction
from trt_opt.passes.mathematics.tensor_scatter_to_where import TensorScatterToWhere
from trt_opt.values.samples import Sample

REDUCTIONS = ["add", "mul", "max", "min"]
REPEATED = np.array([[1], [-1], [1], [0], [1]])
"""Indices of axis 0 of 4 positions, one of them named three times, one counted from the back."""


def scatter_nd(reduction: str, indices: str = "", *, dtype: str = "float", data: str = "4,3", new: str = "5,3") -> str:
    """A graph of one ScatterND; without `indices` they are an initialiser `i`."""
    given = f", int64[{indices}] i" if indices else ""
    call = f'ScatterND<reduction = "{reduction}">(x, i, u)'
    return f"g ({dtype}[{data}] x, {dtype}[{new}] u{given}) => ({dtype}[{data}] y) {{ y = {call} }}"


def scatter_elements(reduction: str, indices: str, axis: int, *, data: str = "4,3", given: bool = True) -> str:
    """A graph of one ScatterElements; unless `given`, its indices are an initialiser `i`."""
    call = f'ScatterElements<axis = {axis}, reduction = "{reduction}">(x, i, u)'
    more = f", int64[{indices}] i" if given else ""
    return f"g (float[{data}] x, float[{indices}] u{more}) => (float[{data}] y) {{ y = {call} }}"


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float", "int32", "int64", "float16"])
def test_constant_indices_scatter_in_rounds(reduction: str, dtype: str) -> None:
    """Three updates of one row take three rounds of gather, combine and scatter, in every type."""
    model = model_of(scatter_nd(reduction, dtype=dtype), opset=18, i=REPEATED)
    after, _ = applied(ScatterNdWithReduction(), model)
    counts = operators(after)
    assert counts["ScatterND"] == counts["GatherND"] == 3


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float", "int32", "int64"])
def test_runtime_indices_reduce_over_a_mask(reduction: str, dtype: str) -> None:
    """Indices that are a graph input, negative and repeated ones among them, keep the numbers."""
    model = model_of(scatter_nd(reduction, "5,1", dtype=dtype), opset=18)
    numbers = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    feed = {"x": (9 * floats(4, 3)).astype(numbers), "u": (9 * floats(5, 3, seed=1)).astype(numbers), "i": REPEATED}
    after, _ = applied(ScatterNdWithReduction(), model, [Sample("x", feed)])
    assert "ScatterND" not in operators(after)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_index_keeps_the_data(reduction: str) -> None:
    """Where all indices name one place, what was there still counts."""
    feed = {"x": floats(1, 3), "u": floats(1, 3, seed=1), "i": np.array([[0]])}
    model = model_of(scatter_nd(reduction, "1,1", data="1,3", new="1,3"), opset=18)
    applied(ScatterNdWithReduction(), model, [Sample("x", feed)])


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("reduction", ["add", "max"])
@pytest.mark.parametrize(
    ("data", "index_shape", "new"),
    [
        ("4,3", (2, 3, 2), "2,3"),
        ("4,3,2", (2, 2), "2,2"),
        ("5,3,4", (2, 6, 3), "2,6"),
        ("4,3,F", (2, 2, 2), "2,2,F"),
        ("4,M,F", (3, 1), "3,M,F"),
    ],
)
def test_several_coordinates_and_batches_of_indices(
    constant: bool, reduction: str, data: str, index_shape: tuple[int, ...], new: str
) -> None:
    """Indices of any shape and number of coordinates keep the numbers, with dynamic sizes that are not indexed."""
    indices = np.random.default_rng(2).integers(-3, 3, index_shape)
    declared = "" if constant else ",".join(map(str, index_shape))
    weights = {"i": indices} if constant else {}
    model = model_of(scatter_nd(reduction, declared, data=data, new=new), opset=18, **weights)
    shapes = [[int(size) if size.isdigit() else 5 for size in text.split(",")] for text in (data, new)]
    feed = {"x": floats(*shapes[0]), "u": floats(*shapes[1], seed=1)} | ({} if constant else {"i": indices})
    after, _ = applied(ScatterNdWithReduction(), model, [Sample("x", feed)])
    assert operators(after).get("ScatterND", 0) == (0 if not constant else operators(after)["GatherND"])


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (model_of(scatter_nd("add", "5,1", data="N,3"), opset=18), "not all static"),
        (model_of(scatter_nd("add", "4096,1", data="8192,3", new="4096,3"), opset=18), "16 million"),
        (model_of(scatter_nd("add", new="65,3"), opset=18, i=np.zeros((65, 1), np.int64)), "65 times"),
    ],
)
def test_scatter_is_declined_with_reason(model: onnx.ModelProto, why: str) -> None:
    """Unknown sizes, huge masks and many repetitions are declined."""
    after, report = ScatterNdWithReduction().run(model)
    assert after is model
    assert why in report.declined[0].why


def test_overwriting_scatter_is_left_alone() -> None:
    """Without a reduction there is nothing to do, and nothing to report."""
    for entry, op in ((ScatterNdWithReduction(), scatter_nd), (ScatterElementsWithReduction(), None)):
        text = op("none", "5,1") if op else scatter_elements("none", "2,3", 0)
        after, report = entry.run(model := model_of(text, opset=18))
        assert after is model
        assert not report.declined


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("axis", "shape"), [(0, (6, 3)), (-1, (4, 5)), (0, (5, 2)), (1, (3, 4))])
def test_scatter_of_elements_keeps_its_numbers(given: bool, reduction: str, axis: int, shape: tuple[int, int]) -> None:
    """Constant and runtime indices, repeated, negative, and fewer than the data off the axis."""
    indices = np.random.default_rng(3).integers(-3, 3, shape)
    text = scatter_elements(reduction, ",".join(map(str, shape)), axis, given=given)
    model = model_of(text, opset=18, **({} if given else {"i": indices}))
    feed = {"x": floats(4, 3), "u": floats(*shape, seed=1)} | ({"i": indices} if given else {})
    after, _ = applied(ScatterElementsWithReduction(), model, [Sample("x", feed)])
    assert "ScatterElements" not in operators(after)


def test_scatter_of_elements_takes_dynamic_batches() -> None:
    """Off the axis, sizes may be dynamic."""
    model = model_of(scatter_elements("add", "B,2", 1, data="B,3"), opset=18)
    feed = {"x": floats(5, 3), "u": floats(5, 2, seed=1), "i": np.random.default_rng(3).integers(-3, 3, (5, 2))}
    applied(ScatterElementsWithReduction(), model, [Sample("x", feed)])


def test_scatter_along_dynamic_axis_is_declined() -> None:
    """The positions along the axis must be countable."""
    after, report = ScatterElementsWithReduction().run(
        model := model_of(scatter_elements("add", "B,3", 0, data="B,3"), opset=18)
    )
    assert after is model
    assert "axis 0 is not static" in report.declined[0].why


def test_scatter_in_branch_is_replaced() -> None:
    """A scatter in a branch of an If, which reads the outer graph, is replaced there."""
    text = """g (float[4,3] x, float[5,3] u, bool c) => (float[4,3] y) {
        y = If (c) <
            then_branch = t () => (float[4,3] r) { s = ScatterND<reduction = "add">(x, i, u) r = Mul(s, s) },
            else_branch = e () => (float[4,3] r) { r = Identity(x) }
        >
    }"""
    model = model_of(text, opset=18, i=REPEATED)
    feeds = [
        Sample(str(given), {"x": floats(4, 3), "u": floats(5, 3), "c": np.asarray(given)}) for given in (True, False)
    ]
    after, _ = applied(ScatterNdWithReduction(), model, feeds)
    assert operators(after)["ScatterND"] == 3


@pytest.mark.rtx
@pytest.mark.parametrize("reduction", ["mul", "max"])
def test_scatter_becomes_buildable(reduction: str) -> None:
    """TensorRT-RTX refuses reductions and takes what the passes write, INT32 too."""
    model = model_of(scatter_nd(reduction, dtype="int32"), opset=18, i=REPEATED)
    assert refused_by(model)
    assert not refused_by(ScatterNdWithReduction().run(model)[0])
    masked = model_of(scatter_nd(reduction, "5,1", dtype="int32"), opset=18)
    assert not refused_by(ScatterNdWithReduction().run(masked)[0])
    elements = model_of(scatter_elements(reduction, "6,2", 0), opset=18)
    assert refused_by(elements)
    assert not refused_by(ScatterElementsWithReduction().run(elements)[0])


def cache(mode: str, axis: int, written: str, *, starts: bool = True) -> str:
    """A graph of one TensorScatter over a cache of [3, 4, 5]."""
    inputs, more = ("x, u, w", ", int64[3] w") if starts else ("x, u", "")
    call = f'TensorScatter<mode = "{mode}", axis = {axis}>({inputs})'
    return f"g (float[3,4,5] x, float[{written}] u{more}) => (float[3,4,5] y) {{ y = {call} }}"


@pytest.mark.parametrize(
    ("mode", "axis", "written", "starts"),
    [
        ("linear", 1, (3, 2, 5), [0, 1, 2]),
        ("linear", -1, (3, 4, 1), [4, 0, 2]),
        ("circular", 1, (3, 3, 5), [3, 6, 0]),
        ("circular", 2, (3, 4, 1), [5, 9, 2]),
        ("linear", 1, (3, 2, 5), None),
    ],
)
def test_cache_update_keeps_its_numbers(
    mode: str, axis: int, written: tuple[int, ...], starts: list[int] | None
) -> None:
    """Linear and circular updates of one and more positions, with and without write indices."""
    text = cache(mode, axis, ",".join(map(str, written)), starts=starts is not None)
    feed = {"x": floats(3, 4, 5), "u": floats(*written, seed=1)} | ({"w": np.array(starts)} if starts else {})
    model = model_of(text, opset=24, ir_version=11)
    after, report = TensorScatterToWhere().run(model)
    assert len(report.changed) == 1
    onnx.checker.check_model(after, full_check=True)
    wanted, found = (ReferenceEvaluator(given).run(None, feed)[0] for given in (model, after))
    np.testing.assert_array_equal(found, wanted)


def test_cache_of_unknown_length_is_declined() -> None:
    """The positions of the cache must be countable."""
    text = "g (float[3,L,5] x, float[3,2,5] u) => (float[3,L,5] y) { y = TensorScatter(x, u) }"
    after, report = TensorScatterToWhere().run(model := model_of(text, opset=24, ir_version=11))
    assert after is model
    assert "not static" in report.declined[0].why


@pytest.mark.rtx
def test_circular_cache_becomes_buildable() -> None:
    """TensorRT-RTX refuses a cache of rank 3 and takes what the pass writes."""
    model = model_of(cache("circular", 1, "3,2,5"), opset=24, ir_version=11)
    assert refused_by(model)
    assert not refused_by(TensorScatterToWhere().run(model)[0])
