"""Col2Im, MaxUnpool, AffineGrid and DeformConv."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.base import Pass
from trt_opt.passes.vision.affine_grid_as_sum import AffineGridAsSum
from trt_opt.passes.vision.column_to_image_as_gather import ColumnToImageAsGather
from trt_opt.passes.vision.deformable_conv_as_grid_sample import DeformableConvAsGridSample
from trt_opt.passes.vision.max_unpooling_as_scatter import MaxUnpoolingAsScatter
from trt_opt.values.samples import Sample

I64 = np.int64

COLUMNS = [
    ((5, 5), (2, 3), {}),
    ((6, 5), (3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ((7, 7), (2, 2), {"dilations": [3, 2], "strides": [2, 3]}),
    ((4, 3, 5), (2, 1, 2), {"pads": [1, 0, 0, 0, 0, 1], "strides": [2, 1, 2]}),
    ((6,), (2,), {"strides": [3]}),
]


def columns(image: tuple[int, ...], block: tuple[int, ...], attributes: dict[str, list[int]]) -> tuple[str, int, int]:
    """The graph of a Col2Im of two channels, and the rows and columns of its input."""
    rank = len(image)
    pads, strides, dilations = (
        attributes.get(name, [default] * times * rank)
        for name, default, times in (("pads", 0, 2), ("strides", 1, 1), ("dilations", 1, 1))
    )
    count = 1
    for axis, size in enumerate(image):
        room = size + pads[axis] + pads[rank + axis] - (block[axis] - 1) * dilations[axis] - 1
        count *= room // strides[axis] + 1
    rows = 2 * math.prod(block)
    told = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    shape = ",".join(map(str, image))
    node = f"Col2Im{f'<{told}>' if told else ''}(x, image, block)"
    return f"g (float[N,{rows},{count}] x) => (float[N,2,{shape}] y) {{ y = {node} }}", rows, count


@pytest.mark.parametrize(("image", "block", "attributes"), COLUMNS)
def test_columns_add_up_to_the_image(
    image: tuple[int, ...], block: tuple[int, ...], attributes: dict[str, list[int]]
) -> None:
    """Strides that leave gaps, pads, dilations, one to three dimensions, any batch size."""
    text, rows, count = columns(image, block, attributes)
    model = model_of(text, opset=18, image=np.array(image, I64), block=np.array(block, I64))
    after, _ = applied(ColumnToImageAsGather(), model, [Sample("three", {"x": floats(3, rows, count)})])
    assert operators(after) == {"Reshape": 2, "Pad": 1, "Gather": 1, "ReduceSum": 1}


def test_sizes_of_blocks_follow_from_the_shapes() -> None:
    """Image and block as graph inputs: only one block fits the shapes; where two do, the pass declines."""
    text = """g (float[1,6,8] x, int64[2] image, int64[2] block) => (float[1,1,5,4] y) {
        y = Col2Im(x, image, block) }"""
    samples = [Sample("one", {"x": floats(1, 6, 8), "image": np.array([5, 4]), "block": np.array([2, 3])})]
    after, _ = applied(ColumnToImageAsGather(), model_of(text, opset=18), samples)
    assert "Col2Im" not in operators(after)
    text = text.replace("1,6,8", "1,5,5").replace("1,1,5,4", "1,1,5,5")
    after, report = ColumnToImageAsGather().run(model_of(text, opset=18))
    assert "--freeze-input block=" in report.declined[0].why


@pytest.mark.parametrize("batch", ["2", "N"])
@pytest.mark.parametrize("channels", ["3", "C"])
@pytest.mark.parametrize("kernel", [[2, 2], [3, 2]])
def test_unpooling_puts_values_where_they_came_from(batch: str, channels: str, kernel: list[int]) -> None:
    """Indices count over batch and channels too, whatever their number."""
    size = (np.array([3, 4]) - 1) * 2 + kernel
    free = f"{batch},{channels},{size[0]},{size[1]}"
    text = f"""g (float[{batch},{channels},3,4] x, int64[{batch},{channels},3,4] i) => (float[{free}] y) {{
        y = MaxUnpool<kernel_shape = {kernel}, strides = [2, 2]>(x, i) }}"""
    indices = np.random.default_rng(0).permutation(2 * 3 * math.prod(size))[:72].reshape(2, 3, 3, 4)
    samples = [Sample("one", {"x": floats(2, 3, 3, 4), "i": indices})]
    after, _ = applied(MaxUnpoolingAsScatter(), model_of(text), samples)
    assert operators(after)["ScatterElements"] == 1


@pytest.mark.parametrize("frozen", [False, True])
def test_larger_output_shape_is_padded(frozen: bool) -> None:
    """Indices count over the size of the attributes, and zeros follow, as onnx's own implementation has it."""
    inputs = "" if frozen else ", int64[4] o"
    text = f"""g (float[1,1,2,2] x, int64[1,1,2,2] i{inputs}) => (float[1,1,5,6] y) {{
        y = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(x, i, o) }}"""
    asked = np.array([1, 1, 5, 6])
    model = model_of(text, **({"o": asked} if frozen else {}))
    after, report = MaxUnpoolingAsScatter().run(model)
    assert report.changed
    feed = {"x": floats(1, 1, 2, 2), "i": np.array([[[[5, 7], [13, 15]]]])} | ({} if frozen else {"o": asked})
    wanted, found = (ReferenceEvaluator(one).run(None, feed)[0] for one in (model, after))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("sizes", [(3, 4), (2, 3, 5)])
@pytest.mark.parametrize("frozen", [False, True])
def test_affine_grid_keeps_its_numbers(aligned: int, sizes: tuple[int, ...], frozen: bool) -> None:
    """Two and three dimensions, the size a constant or read off the output's declared shape."""
    rank = len(sizes)
    inputs = "" if frozen else f", int64[{rank + 2}] size"
    shape = ",".join(map(str, sizes))
    text = f"""g (float[N,{rank},{rank + 1}] t{inputs}) => (float[N,{shape},{rank}] y) {{
        y = AffineGrid<align_corners = {aligned}>(t, size) }}"""
    size = np.array([3, 7, *sizes])
    feed = {"t": floats(3, rank, rank + 1)} | ({} if frozen else {"size": size})
    model = model_of(text, opset=20, ir_version=9, **({"size": size} if frozen else {}))
    after, _ = applied(AffineGridAsSum(), model, [Sample("three", feed)])
    assert operators(after) == {"Unsqueeze": 1, "Mul": 1, "ReduceSum": 1, "Reshape": 1}


DEFORMED = [
    {},
    {"pads": [1, 0, 2, 1], "strides": [2, 1]},
    {"dilations": [2, 1], "group": 2},
    {"offset_group": 2, "pads": [1, 1, 1, 1]},
]


def deformed(attributes: dict[str, object], *, more: str = "", kernel: tuple[int, int] = (3, 2)) -> tuple[str, dict]:
    """The graph of a DeformConv of four channels into six, and its feed."""
    height, width = (
        (size + pads[0] + pads[1] - (taps - 1) * dilation - 1) // stride + 1
        for size, pads, taps, dilation, stride in zip(
            (7, 6),
            np.array(attributes.get("pads", [0] * 4)).reshape(2, 2).T,
            kernel,
            attributes.get("dilations", [1, 1]),
            attributes.get("strides", [1, 1]),
            strict=True,
        )
    )
    taps = math.prod(kernel) * int(attributes.get("offset_group", 1))
    feed = {
        "x": floats(2, 4, 7, 6, seed=1),
        "w": floats(6, 4 // int(attributes.get("group", 1)), *kernel, seed=2),
        "offset": 2 * floats(2, 2 * taps, height, width, seed=3),
        "b": floats(6, seed=4),
        "mask": floats(2, taps, height, width, seed=5),
    }
    read = ["x", "w", "offset", *more.split()]
    inputs = ", ".join(f"float{list(feed[name].shape)} {name}".replace("[2, ", "[N, ") for name in read)
    told = ", ".join(f"{name} = {value}" for name, value in {**attributes, "kernel_shape": list(kernel)}.items())
    node = f"DeformConv<{told}>({', '.join(read)})"
    text = f"g ({inputs}) => (float[N,6,{height},{width}] y) {{ y = {node} }}"
    return text, {name: feed[name] for name in read}


@pytest.mark.parametrize("attributes", DEFORMED)
@pytest.mark.parametrize("more", ["", "b", "b mask"])
def test_deformable_convolution_keeps_its_numbers(attributes: dict[str, object], more: str) -> None:
    """Pads, strides, dilations, groups, bias and mask, with offsets that leave the image."""
    text, feed = deformed(attributes, more=more)
    after, _ = applied(DeformableConvAsGridSample(), model_of(text, opset=19, ir_version=9), [Sample("one", feed)])
    assert operators(after)["GridSample"] == 1
    assert operators(after)["Conv"] == 1


def test_image_of_one_row_is_deformed() -> None:
    """GridSample's coordinates stay finite where there is one row."""
    text = """g (float[1,1,1,4] x, float[1,1,1,2] w, float[1,4,1,3] offset) => (float[1,1,1,3] y) {
        y = DeformConv<kernel_shape = [1, 2]>(x, w, offset) }"""
    feed = {"x": floats(1, 1, 1, 4), "w": floats(1, 1, 1, 2), "offset": floats(1, 4, 1, 3) / 4}
    applied(DeformableConvAsGridSample(), model_of(text, opset=19, ir_version=9), [Sample("one", feed)])


def test_replacement_inside_a_branch_is_read_twice() -> None:
    """A grid made in a branch is its result, and is read there as well."""
    text = """g (bool c, float[1,2,3] t) => (float[1,4,4,2] y, float[1,4,4,2] z) {
        y, z = If<then_branch = a () => (float[1,4,4,2] p, float[1,4,4,2] q) {
                      p = AffineGrid(t, size)  q = Neg(p) },
                  else_branch = b () => (float[1,4,4,2] r, float[1,4,4,2] s) {
                      r = AffineGrid<align_corners = 1>(t, size)  s = Abs(r) }>(c) }"""
    model = model_of(text, opset=20, ir_version=9, size=np.array([1, 1, 4, 4]))
    samples = [Sample(str(c), {"c": np.array(c), "t": floats(1, 2, 3)}) for c in (True, False)]
    after, report = applied(AffineGridAsSum(), model, samples)
    assert len(report.changed) == 2
    assert operators(after)["ReduceSum"] == 2


def test_halves_keep_their_type() -> None:
    """A float16 theta gives a float16 grid, computed in float32."""
    text = "g (float16[1,2,3] t) => (float16[1,3,4,2] y) { y = AffineGrid(t, size) }"
    after, _ = AffineGridAsSum().run(model_of(text, opset=20, ir_version=9, size=np.array([1, 1, 3, 4])))
    onnx.checker.check_model(after, full_check=True)
    assert operators(after)["Cast"] == 2


@pytest.mark.parametrize(
    ("entry", "text", "why"),
    [
        (ColumnToImageAsGather(), "g (float[1,4,L] x, int64[2] i) => (y) { y = Col2Im(x, i, i) }", "--freeze-input i="),
        (
            MaxUnpoolingAsScatter(),
            "g (float[1,1,H,2] x, int64[1,1,H,2] i) => (y) { y = MaxUnpool<kernel_shape = [2, 2]>(x, i) }",
            "not static",
        ),
        (AffineGridAsSum(), "g (float[1,2,3] t, int64[4] s) => (y) { y = AffineGrid(t, s) }", "--freeze-input s="),
        (
            DeformableConvAsGridSample(),
            "g (float[1,1,H,5] x, float[1,1,2,2] w, float[1,8,4,4] o) => (y) { y = DeformConv(x, w, o) }",
            "not static",
        ),
    ],
)
def test_vision_declines_with_its_reason(entry: Pass, text: str, why: str) -> None:
    """Sizes that nobody knows before run time are asked for."""
    after, report = entry.run(model := model_of(text.replace("(y)", "(float[A,B,C,D] y)"), opset=20, ir_version=9))
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize("kind", ["columns", "unpool", "grid", "deformed"])
def test_vision_becomes_buildable(kind: str) -> None:
    """TensorRT-RTX refuses the operator and takes what the pass writes."""
    image = {"image": np.array([5, 5], I64), "block": np.array([2, 3], I64)}
    text, entry, weights = {
        "columns": (columns(*COLUMNS[0])[0], ColumnToImageAsGather(), image),
        "unpool": (
            "g (float[1,1,2,2] x, int64[1,1,2,2] i) => (float[1,1,4,4] y)"
            "{ y = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(x, i) }",
            MaxUnpoolingAsScatter(),
            {},
        ),
        "grid": (
            "g (float16[1,2,3] t) => (float16[1,3,4,2] y) { y = AffineGrid(t, size) }",
            AffineGridAsSum(),
            {"size": np.array([1, 1, 3, 4])},
        ),
        "deformed": (deformed(DEFORMED[3], more="b mask")[0], DeformableConvAsGridSample(), {}),
    }[kind]
    model = model_of(text.replace("[N,", "[2,").replace("[N, ", "[2, "), opset=20, ir_version=9, **weights)
    assert refused_by(model)
    assert not refused_by(entry.run(model)[0])
