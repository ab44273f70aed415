"""Resize modes that TensorRT lacks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from passes_models import applied, floats, model_of, operators, refused_by

from trt_opt.passes.vision.resize_to_matrices import ResizeToMatrices
from trt_opt.values.samples import Sample

F32 = np.float32


def resize(shape: str = "1,2,5,7", *, inputs: str = "x, , scales", dtype: str = "float", **attributes: object) -> str:
    """A graph of one Resize; texts are quoted here."""
    told = ", ".join(f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in attributes.items())
    rank = shape.count(",") + 1
    free = ",".join(f"O{axis}" for axis in range(rank))
    return f"g ({dtype}[{shape}] x) => ({dtype}[{free}] y) {{ y = Resize<{told}>({inputs}) }}"


def checked(model: ModelProto, *shape: int, tolerance: float = 2e-6) -> ModelProto:
    """The model after the pass, whose numbers are those of the specification's own implementation."""
    after, report = ResizeToMatrices().run(model)
    assert len(report.changed) == 1
    onnx.checker.check_model(after, full_check=True)
    feed = {"x": floats(*shape)}
    wanted = ReferenceEvaluator(model).run(None, feed)[0]
    np.testing.assert_allclose(ReferenceEvaluator(after).run(None, feed)[0], wanted, rtol=0, atol=tolerance)
    return after


def scales(*values: float) -> dict[str, np.ndarray]:
    return {"scales": np.array(values, F32)}


def sizes(*values: int) -> dict[str, np.ndarray]:
    return {"sizes": np.array(values, np.int64)}


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("excluded", [0, 1])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "asymmetric", "half_pixel_symmetric"])
def test_antialias_is_a_matrix_per_axis(mode: str, excluded: int, coordinates: str) -> None:
    """Stretched kernels give the numbers of the specification, also where one axis is enlarged."""
    text = resize(mode=mode, antialias=1, exclude_outside=excluded, coordinate_transformation_mode=coordinates)
    model = model_of(text, opset=18, **scales(1, 1, 0.6, 1.7))
    assert operators(checked(model, 1, 2, 5, 7)) == {"MatMul": 2}


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.3, 2.5])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_symmetric_half_pixels_keep_their_numbers(factor: float, mode: str) -> None:
    """Sizes that are no whole multiples are where half_pixel_symmetric differs."""
    text = resize(mode=mode, coordinate_transformation_mode="half_pixel_symmetric")
    after = checked(model_of(text, opset=19, ir_version=9, **scales(1, 1, factor, 1)), 1, 2, 5, 7)
    assert operators(after) == {"Gather" if mode == "nearest" else "MatMul": 1}


def test_symmetric_half_pixels_of_whole_sizes_are_plain() -> None:
    """Where scales give whole sizes, half_pixel means the same."""
    text = resize("1,2,4,6", mode="linear", coordinate_transformation_mode="half_pixel_symmetric")
    after, _ = applied(ResizeToMatrices(), model_of(text, opset=19, ir_version=9, **scales(1, 1, 0.5, 2)))
    assert operators(after) == {"Resize": 1}


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2]])
def test_regions_take_the_extrapolation_value(mode: str, axes: list[int]) -> None:
    """A region that leaves the input on one axis, for every mode, with the axes in any order."""
    text = resize(
        inputs="x, roi, , sizes",
        mode=mode,
        axes=axes,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    )
    region = np.array([0.25, -0.25, 0.75, 1.25], F32)
    model = model_of(text, opset=18, roi=region, **sizes(3, 4))
    assert operators(checked(model, 1, 2, 5, 7)) == {"Gather" if mode == "nearest" else "MatMul": 2, "Where": 1}


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_aspect_ratio_is_kept(policy: str, mode: str) -> None:
    """One factor for all axes, which need not give whole sizes."""
    text = resize(inputs="x, , , sizes", mode=mode, axes=[2, 3], keep_aspect_ratio_policy=policy)
    after = checked(model_of(text, opset=18, **sizes(9, 8)), 1, 2, 5, 7)
    assert "Resize" not in operators(after)


def test_aspect_ratio_of_whole_sizes_is_plain() -> None:
    """Where the factor gives whole sizes, a Resize with scales does."""
    text = resize("N,2,4,6", inputs="x, , , sizes", mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    model = model_of(text, opset=18, **sizes(8, 15))
    after, _ = applied(ResizeToMatrices(), model, [Sample("three", {"x": floats(3, 2, 4, 6)})])
    assert operators(after) == {"Resize": 1}
    assert not any(attribute.name == "axes" for attribute in after.graph.node[0].attribute)


@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-2, -1]])
def test_axes_are_spelled_out(axes: list[int]) -> None:
    """Scales for some axes, in any order, become sizes for all."""
    text = resize("1,2,4,6", mode="linear", axes=axes, antialias=1)
    after, _ = applied(ResizeToMatrices(), model_of(text, opset=18, **scales(2, 3)))
    assert operators(after) == {"Resize": 1}
    assert not any(attribute.name == "axes" for attribute in after.graph.node[0].attribute)


@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("factor", [0.5, 0.75, 2.0, 3.0])
def test_integers_are_looked_up(nearest: str, factor: float) -> None:
    """The nearest elements of a tensor of integers, ties included, are those ONNX Runtime takes."""
    text = resize("1,2,4,8", dtype="int32", mode="nearest", nearest_mode=nearest)
    model = model_of(text, opset=18, **scales(1, 1, factor, factor))
    after, _ = applied(
        ResizeToMatrices(), model, [Sample("counted", {"x": np.arange(64, dtype=np.int32).reshape(1, 2, 4, 8)})]
    )
    assert operators(after) == {"Gather": 2}


@pytest.mark.parametrize(("shape", "axes"), [("7", [0]), ("4,7", [0, 1]), ("4,3,2,5", [0, 1])])
def test_any_axis_can_be_resized(shape: str, axes: list[int]) -> None:
    """A vector, a matrix, and axes far from the end."""
    size = tuple(map(int, shape.split(",")))
    text = resize(shape, inputs="x, , , sizes", mode="linear", antialias=1, axes=axes)
    checked(model_of(text, opset=18, **sizes(*(size[axis] - 1 for axis in axes))), *size)


def test_halves_are_multiplied_in_float32() -> None:
    """Float16 keeps its type, and the matrices their digits."""
    text = resize(dtype="float16", inputs="x, , , sizes", mode="linear", antialias=1, axes=[2, 3])
    after, _ = ResizeToMatrices().run(model := model_of(text, opset=18, **sizes(3, 3)))
    feed = {"x": floats(1, 2, 5, 7).astype(np.float16)}
    wanted, found = (ReferenceEvaluator(one).run(None, feed)[0] for one in (model, after))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert operators(after) == {"Cast": 2, "MatMul": 2}


def test_dynamic_batch_and_branch() -> None:
    """Axes that are not resized may have any size, also inside a branch."""
    text = """g (bool c, float[N,C,5,4] x) => (float[N,C,3,2] y) {
        y = If<then_branch = a () => (float[N,C,3,2] z) { z = Resize<mode="linear", antialias=1>(x, , scales) },
               else_branch = b () => (float[N,C,3,2] w) { w = Resize<mode="cubic", antialias=1>(x, , scales) }>(c) }"""
    model = model_of(text, opset=18, **scales(1, 1, 0.6, 0.5))
    samples = [Sample(str(c), {"c": np.array(c), "x": floats(3, 2, 5, 4)}) for c in (True, False)]
    after, report = applied(ResizeToMatrices(), model, samples)
    assert len(report.changed) == 2
    assert "Resize" not in operators(after)


def test_sizes_follow_from_the_declared_shape() -> None:
    """Sizes that are a graph input are read off the output's declared shape."""
    text = """g (float[1,2,6,8] x, int64[4] sizes) => (float[1,2,3,3] y) {
        y = Resize<mode="linear", antialias=1>(x, , , sizes) }"""
    samples = [Sample("one", {"x": floats(1, 2, 6, 8), "sizes": np.array([1, 2, 3, 3])})]
    after, _ = applied(ResizeToMatrices(), model_of(text, opset=18), samples)
    assert operators(after) == {"MatMul": 2}


def test_plain_resize_is_left_alone_unless_refused() -> None:
    """What TensorRT takes stays; the very same node becomes matrices once it is refused."""
    model = model_of(resize("1,2,4,6", mode="linear"), opset=18, **scales(1, 1, 2, 0.5))
    model.graph.node[0].name = "resize"
    assert ResizeToMatrices().run(model)[0] is model
    after, _ = applied(ResizeToMatrices(frozenset({"resize"})), model)
    assert operators(after) == {"MatMul": 2}


ANTIALIAS = {"mode": "linear", "antialias": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("g (float[1,6] x, float[2] s) => (float[1,3] y) { y = Resize<antialias=1>(x, , s) }", "--freeze-input s="),
        (resize("1,2,H,6", **ANTIALIAS), "axis 2, which is resized, is not static"),
        (resize("1,2,4,6", dtype="uint8", **ANTIALIAS), "interpolates uint8"),
        (resize("1,2,4,6", coordinate_transformation_mode="align_corners", **ANTIALIAS), "give sizes instead"),
        (resize("1,2,4,6", coordinate_transformation_mode="tf_crop_and_resize"), "it has no roi"),
    ],
)
def test_resize_declines_with_its_reason(text: str, why: str) -> None:
    """Values of run time, sizes nobody knows and what runtimes disagree about stay."""
    model = model_of(text, opset=18, **scales(1, 1, 0.6, 0.6))
    after, report = ResizeToMatrices().run(model)
    assert after is model
    assert why in report.declined[0].why


@pytest.mark.rtx
@pytest.mark.parametrize(
    "text",
    [
        resize(dtype="float16", mode="cubic", antialias=1),
        resize(mode="nearest", coordinate_transformation_mode="half_pixel_symmetric"),
        resize(
            inputs="x, roi, , sizes", mode="linear", axes=[2, 3], coordinate_transformation_mode="tf_crop_and_resize"
        ),
    ],
)
def test_resize_becomes_buildable(text: str) -> None:
    """TensorRT-RTX refuses the node and takes what the pass writes."""
    weights = {**scales(1, 1, 0.5, 0.5), **sizes(3, 4), "roi": np.array([0, 0, 2, 1], F32)}
    model = model_of(text, opset=19, ir_version=9, **{name: weights[name] for name in weights if name in text})
    assert refused_by(model)
    assert not refused_by(ResizeToMatrices().run(model)[0])
