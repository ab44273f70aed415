"""Pooling with ceil_mode, dilations, Indices, integers and p-norms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import ModelProto
from passes_models import applied, floats, model_of, operators, random_samples, refused_by

from trt_opt.passes.base import GraphEdit, Pass
from trt_opt.passes.node_pass import NodePass
from trt_opt.passes.vision.gather_max_pooling_indices import GatherMaxPoolingIndices
from trt_opt.passes.vision.lp_pooling_as_average import LpPoolingAsAverage
from trt_opt.passes.vision.pool_integers_as_floats import PoolIntegersAsFloats
from trt_opt.passes.vision.round_pooling_down import RoundPoolingDown
from trt_opt.passes.vision.unroll_average_pooling import UnrollAveragePooling
from trt_opt.passes.vision.unroll_max_pooling import UnrollMaxPooling
from trt_opt.values.samples import Sample


def pooling(op: str, size: str, dtype: str = "float", *, indices: bool = False, **attributes: object) -> str:
    """A graph of one pooling node over [N, 3, size]; text attributes are written with their quotes."""
    told = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    rank = size.count(",") + 1
    free = ",".join(f"O{axis}" for axis in range(rank))
    more, made = (f", int64[N,3,{free}] i", "y, i") if indices else ("", "y")
    return f"g ({dtype}[N,3,{size}] x) => ({dtype}[N,3,{free}] y{more}) {{ {made} = {op}<{told}>(x) }}"


def sized(model: ModelProto, *sizes: int, seed: int = 3) -> list[Sample]:
    """One random feed of [2, 3, *sizes]."""
    dtype = random_samples(model, 1)[0].feed["x"].dtype
    return [Sample("sized", {"x": floats(2, 3, *sizes, seed=seed).astype(dtype)})]


def misread(entry: NodePass, model: ModelProto) -> bool:
    """What the pass thinks of the model's only node."""
    edit = GraphEdit(model)
    return entry.misread(edit.graph.nodes[0], edit)


GEOMETRY = [
    geometry for geometry in itertools.product([1, 2, 3], [1, 2, 3], [0, 1], [0, 1]) if max(geometry[2:]) < geometry[0]
]
"""Kernel, stride, padding before and behind."""


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize(("kernel", "stride", "begin", "end"), GEOMETRY)
def test_rounding_down_gives_the_windows_of_onnx(op: str, kernel: int, stride: int, begin: int, end: int) -> None:
    """For every geometry, and sizes known only at run time, padding behind the input replaces ceil_mode."""
    text = pooling(op, "W", kernel_shape=[kernel], strides=[stride], pads=[begin, end], ceil_mode=1)
    model = model_of(text, opset=22, ir_version=10)
    samples = [one for size in range(4, 9) for one in sized(model, size)]
    after, _ = applied(LpPoolingAsAverage() if op == "LpPool" else RoundPoolingDown(), model, samples)
    assert not any(attribute.name == "ceil_mode" for node in after.graph.node for attribute in node.attribute)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 3, 1), (3, 2, 1), (3, 3, 1), (4, 3, 2)])
def test_rounded_average_that_counts_padding_keeps_its_numbers(size: int, kernel: int, stride: int, pad: int) -> None:
    """Padding of the model counts, what a window hangs over does not."""
    text = pooling(
        "AveragePool", "W", kernel_shape=[kernel], strides=[stride], pads=[pad, pad], ceil_mode=1, count_include_pad=1
    )
    model = model_of(text, opset=22, ir_version=10)
    after, _ = applied(RoundPoolingDown(), model, sized(model, size))
    assert operators(after) == {"Pad": 1, "AveragePool": 1}


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "told"),
    [("2", 1, 2, 0, True), ("3", 1, 2, 0, False), ("W", 1, 2, 0, True), ("W", 3, 2, 0, False), ("W", 3, 2, 2, True)],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_ceil_mode_is_misread_where_a_window_begins_in_padding(
    op: str, size: str, kernel: int, stride: int, pad: int, told: bool
) -> None:
    """Misread are sizes that give a window too many, and dynamic ones that can."""
    text = pooling(op, size, kernel_shape=[kernel], strides=[stride], pads=[pad, pad], ceil_mode=1)
    entry = LpPoolingAsAverage(frozenset()) if op == "LpPool" else RoundPoolingDown(frozenset())
    model = model_of(text, opset=22, ir_version=10)
    assert misread(entry, model) == told
    assert bool(entry.run(model)[1].changed) == told


def test_rounding_keeps_indices() -> None:
    """MaxPool with Indices still gives them after its ceil_mode is gone."""
    text = pooling("MaxPool", "7,7", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, storage_order=1, indices=True)
    after, _ = applied(RoundPoolingDown(), model_of(text))
    assert operators(after) == {"MaxPool": 1}


DILATED = [
    {"kernel_shape": [2, 3], "dilations": [2, 1]},
    {"kernel_shape": [3, 2], "dilations": [2, 3], "strides": [2, 1], "pads": [1, 2, 2, 0]},
    {"kernel_shape": [2, 2], "dilations": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 1], "dilations": [2, 2], "strides": [3, 2], "ceil_mode": 1},
]


@pytest.mark.parametrize("attributes", DILATED)
@pytest.mark.parametrize("size", ["9,8", "H,W"])
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_dilated_maximum_keeps_its_numbers(attributes: dict[str, object], size: str, dtype: str) -> None:
    """Slices over every geometry, with sizes known or not, give the same maxima."""
    model = model_of(pooling("MaxPool", size, dtype, **attributes), opset=22, ir_version=10)
    if dtype == "float16":
        before, after = model, UnrollMaxPooling().run(model)[0]
        assert operators(after).keys() <= {"Pad", "Slice", "Max"}
        assert before is not after
        return
    after, _ = applied(UnrollMaxPooling(), model, sized(model, 9, 8))
    assert operators(after).keys() <= {"Pad", "Slice", "Max"}


@pytest.mark.parametrize("attributes", DILATED)
@pytest.mark.parametrize("counting", [0, 1])
@pytest.mark.parametrize("size", ["9,8", "H,W"])
def test_dilated_average_keeps_its_numbers(attributes: dict[str, object], counting: int, size: str) -> None:
    """Padding counted or not, sizes known or not, rounded up or down: the same averages."""
    text = pooling("AveragePool", size, **attributes, count_include_pad=counting)
    model = model_of(text, opset=22, ir_version=10)
    after, _ = applied(UnrollAveragePooling(), model, sized(model, 9, 8))
    assert "AveragePool" not in operators(after)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2), (1, 2), (2, 3)])
def test_automatic_padding_keeps_its_windows(mode: str, kernel: int, stride: int) -> None:
    """The padding that auto_pad asks for is written out."""
    text = pooling("LpPool", "7", kernel_shape=[kernel], strides=[stride], auto_pad=f'"{mode}"', p=3)
    model = model_of(text, opset=18)
    after, _ = applied(LpPoolingAsAverage(), model, sized(model, 7))
    assert "LpPool" not in operators(after)


@pytest.mark.parametrize("power", [1, 2, 3, 5])
@pytest.mark.parametrize("attributes", [{"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 3]}, *DILATED[:2]])
def test_norm_of_any_power_keeps_its_numbers(power: int, attributes: dict[str, object]) -> None:
    """Every p, with and without dilations and rounding up."""
    model = model_of(pooling("LpPool", "9,8", **attributes, p=power), opset=22, ir_version=10)
    after, _ = applied(LpPoolingAsAverage(), model, sized(model, 9, 8))
    assert "LpPool" not in operators(after)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("batch", ["2", "N"])
@pytest.mark.parametrize(
    ("size", "attributes"),
    [
        ("5", {"kernel_shape": [2], "strides": [2], "pads": [1, 1]}),
        ("5,6", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]}),
        ("5,6", {"kernel_shape": [2, 2], "dilations": [2, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("4,3,5", {"kernel_shape": [2, 2, 2], "strides": [2, 1, 2], "pads": [0, 1, 0, 1, 0, 1]}),
    ],
)
def test_indices_are_those_of_the_first_maximum(
    order: int, batch: str, size: str, attributes: dict[str, object]
) -> None:
    """Of equal elements the first one is told, by rows or by columns, counted over the whole tensor."""
    text = pooling("MaxPool", size, **attributes, storage_order=order, indices=True).replace("[N", f"[{batch}")
    model = model_of(text, opset=22, ir_version=10)
    shape = tuple(map(int, size.split(",")))
    ties = [Sample("ties", {"x": np.round(one.feed["x"])}) for one in sized(model, *shape)]
    below = [Sample("infinite", {"x": np.full((2, 3, *shape), -np.inf, np.float32)})]
    after, _ = applied(GatherMaxPoolingIndices(), model, [*ties, *below])
    assert "MaxPool" not in operators(after)


def test_unread_indices_are_left_out() -> None:
    """MaxPool whose Indices nobody reads stays, with one output."""
    text = "g (float[1,3,6,6] x) => (float[1,3,3,3] y) { y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }"
    after, _ = applied(GatherMaxPoolingIndices(), model_of(text))
    assert operators(after) == {"MaxPool": 1}
    assert len(after.graph.node[0].output) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_are_pooled_as_floats(dtype: str) -> None:
    """All 8-bit values stay what they are."""
    model = model_of(pooling("MaxPool", "5,5", dtype, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    values = np.random.default_rng(0).integers(-128, 256, (2, 3, 5, 5)).astype(dtype)
    after, _ = applied(PoolIntegersAsFloats(), model, [Sample("integers", {"x": values})])
    assert operators(after) == {"Cast": 2, "MaxPool": 1}


def test_pooling_inside_a_branch_is_replaced() -> None:
    """A pooling node in both branches of an If, reading a tensor of the outer graph."""
    text = """g (bool c, float[1,2,8] x) => (float[1,2,4] y) {
        y = If<then_branch = a () => (float[1,2,4] z) { z = MaxPool<kernel_shape=[3], dilations=[2]>(x) },
               else_branch = b () => (float[1,2,4] w) { w = MaxPool<kernel_shape=[2], dilations=[4]>(x) }>(c) }"""
    samples = [Sample(str(c), {"c": np.array(c), "x": floats(1, 2, 8)}) for c in (True, False)]
    after, report = applied(UnrollMaxPooling(), model_of(text), samples)
    assert len(report.changed) == 2
    assert "MaxPool" not in operators(after)


def test_pooled_output_read_twice_stays_one() -> None:
    """Two readers and the graph output read the same replacement."""
    text = """g (float[1,2,8] x) => (float[1,2,4] y, float[1,2,4] z) {
        y = AveragePool<kernel_shape=[3], dilations=[2]>(x)  a = Neg(y)  z = Mul(a, y) }"""
    after, _ = applied(UnrollAveragePooling(), model_of(text, opset=19, ir_version=9))
    assert operators(after)["Sum"] == 1


@pytest.mark.parametrize(
    ("entry", "text", "why"),
    [
        (UnrollMaxPooling(), pooling("MaxPool", "8", kernel_shape=[2]), "takes it as it is"),
        (UnrollAveragePooling(), pooling("AveragePool", "8", kernel_shape=[2]), "takes it as it is"),
        (LpPoolingAsAverage(), pooling("LpPool", "8", kernel_shape=[2]), "takes it as it is"),
        (GatherMaxPoolingIndices(), pooling("MaxPool", "W", kernel_shape=[2], indices=True), "not static"),
        (
            LpPoolingAsAverage(),
            pooling("LpPool", "W", kernel_shape=[2], strides=[2], p=3, auto_pad='"SAME_UPPER"'),
            "not static",
        ),
    ],
)
def test_pooling_declines_with_its_reason(entry: Pass, text: str, why: str) -> None:
    """Plain forms, and those that need sizes nobody knows, stay."""
    model = model_of(text, opset=19, ir_version=9)
    after, report = entry.run(model)
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.parametrize("entry", [RoundPoolingDown(), GatherMaxPoolingIndices(), PoolIntegersAsFloats()])
def test_plain_pooling_is_nothing_to_talk_about(entry: Pass) -> None:
    """A node without what the pass is for is neither changed nor declined."""
    after, report = entry.run(model := model_of(pooling("MaxPool", "8", kernel_shape=[2])))
    assert after is model
    assert not report.declined


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (UnrollMaxPooling(), pooling("MaxPool", "9,8", "float16", **DILATED[1])),
        (UnrollAveragePooling(), pooling("AveragePool", "9,8", "float16", **DILATED[2])),
        (LpPoolingAsAverage(), pooling("LpPool", "9,8", "float16", **DILATED[1])),
        (LpPoolingAsAverage(), pooling("LpPool", "9,8", kernel_shape=[2, 2], p=3)),
        (GatherMaxPoolingIndices(), pooling("MaxPool", "9,8", indices=True, **DILATED[1])),
        (PoolIntegersAsFloats(), pooling("MaxPool", "9,8", "uint8", kernel_shape=[2, 2])),
    ],
)
def test_pooling_becomes_buildable(entry: Pass, text: str) -> None:
    """TensorRT-RTX refuses the node and takes what the pass writes."""
    model = model_of(text.replace("[N", "[2"), opset=22, ir_version=10)
    assert refused_by(model)
    assert not refused_by(entry.run(model)[0])
