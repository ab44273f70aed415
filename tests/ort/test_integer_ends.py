"""Float inputs and outputs turned into integers, against the same graph with float ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, pooled, residual_block, two_branches_into_a_concat, weights
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from ort_session import outputs_of, ranges_of

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.datasets.preprocess import Preprocess, preprocess_from_text
from trt_opt.errors import DataError, RecipeError, RequestError, StaleError
from trt_opt.integer_runner import IntegerEndsRunner, image_from_tensor, quantized
from trt_opt.quantize.integer_ends import integer_ends
from trt_opt.quantize.lint import require_clean
from trt_opt.quantize.methods import METHODS
from trt_opt.quantize.stage import PrecisionRequest, float_graph
from trt_opt.report.integer_ends import note_text
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.integer_ends import IntegerEnd, IntegerEnds
from trt_opt.values.shapes import ShapeRange

Feed = Mapping[str, NDArray[np.generic]]

IMAGENET = "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


def feed_for(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Normal random numbers for every float input, small whole ones for every other."""
    generator = np.random.default_rng(7)
    feed: dict[str, NDArray[np.generic]] = {}
    for value in model.graph.input:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        numbers = generator.standard_normal([dim.dim_value for dim in value.type.tensor_type.shape.dim])
        feed[value.name] = np.abs(numbers).astype(dtype) if dtype.kind == "i" else numbers.astype(dtype)
    return feed


def both(
    model: onnx.ModelProto, feed: Feed, image: Preprocess | None = None
) -> tuple[onnx.ModelProto, onnx.ModelProto, IntegerEnds]:
    """The statically quantised model, the one with integer ends, and what these are."""
    request = PrecisionRequest("full-integer", image=image)
    graph = float_graph(model, request)
    ranges = ranges_of(graph, feed)
    integer = METHODS["full-integer"].written(graph.index, graph.placement, ranges, request)
    onnx.checker.check_model(integer, full_check=True)
    static = float_graph(model, PrecisionRequest("static"))
    floating = METHODS["static"].written(static.index, static.placement, ranges, static.request)
    ends = integer_ends(integer, graph.index, image)
    assert ends is not None
    return floating, integer, ends


def integers_from(integer: onnx.ModelProto, ends: IntegerEnds, feed: Feed) -> dict[str, NDArray[np.generic]]:
    """What the integer model answers to a float feed that is quantised as its ends say."""
    given = {end.name: feed[end.name] if end.scale is None else quantized(feed[end.name], end.scale)
             for end in ends.inputs}  # fmt: skip
    return outputs_of(integer, given)


def assert_like_static(model: onnx.ModelProto, feed: Feed) -> tuple[onnx.ModelProto, IntegerEnds]:
    """The integers that come out are static quantisation's float answers on the output's grid, one for one."""
    floating, integer, ends = both(model, feed)
    expected, found = outputs_of(floating, feed), integers_from(integer, ends, feed)
    for end in ends.outputs:
        wanted = expected[end.name] if end.scale is None else quantized(expected[end.name], end.scale)
        np.testing.assert_array_equal(found[end.name], wanted)
        assert found[end.name].dtype == wanted.dtype
    return integer, ends


def operators(model: onnx.ModelProto) -> list[str]:
    """The operators, sorted."""
    return sorted(entry.op_type for entry in model.graph.node)


@pytest.mark.parametrize("make", [residual_block, two_branches_into_a_concat, pooled])
def test_integers_come_out_as_static_quantisation_says(make: object) -> None:
    """INT8 in and INT8 out, every integer the one that static quantisation's float answer lies next to."""
    model = make()  # type: ignore[operator]
    integer, ends = assert_like_static(model, feed_for(model))
    assert [value.type.tensor_type.elem_type for value in (*integer.graph.input, *integer.graph.output)] == [
        TensorProto.INT8, TensorProto.INT8]  # fmt: skip
    assert ends.inputs[0].zero_point == ends.outputs[0].zero_point == 0


def test_an_input_that_an_int8_layer_reads_has_one_dequantizer_and_no_quantizer() -> None:
    """The pair on the input becomes a DequantizeLinear alone: one Q fewer than before, and one more on the output."""
    model = residual_block()
    floating, integer, _ = both(model, feed_for(model))
    counts = [operators(each).count("QuantizeLinear") for each in (floating, integer)]
    assert counts[0] == counts[1]
    assert [entry.op_type for entry, _ in _readers(integer, "x")] == ["DequantizeLinear"]


def test_an_input_read_by_an_int8_and_a_float_layer_has_one_scale() -> None:
    """The convolution and the Sigmoid read one dequantised tensor."""
    nodes = [
        conv("conv1", "x", "a", "w"),
        node("Sigmoid", "gate", ["x"], "b"),
        node("Mul", "product", ["a", "b"], "y"),
    ]
    model = model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 16, 8, 8]}, {"w": weights(16, 16, 3, 3)})
    feed = feed_for(model)
    _, integer, ends = both(model, feed)
    (reader,) = _readers(integer, "x")
    assert len(_readers(integer, reader[0].output[0])) == 2
    rounded = {"x": quantized(feed["x"], ends.inputs[0].scale or 0).astype(np.float32) * (ends.inputs[0].scale or 0)}
    floating, *_ = both(model, feed)
    wanted = quantized(outputs_of(floating, rounded)["y"], ends.outputs[0].scale or 0)
    np.testing.assert_array_equal(integers_from(integer, ends, feed)["y"], wanted)


def test_an_input_takes_the_grid_of_the_concat_that_reads_it() -> None:
    """Read by a Concat of a wider range alone, the input lies on the Concat's grid, and no second pair follows."""
    nodes = [
        conv("conv1", "u", "a", "w1"),
        node("Concat", "concat", ["a", "x"], "c", axis=1),
        conv("conv2", "c", "y", "w2"),
    ]
    constants = {"w1": weights(16, 3, 3, 3, scale=5.0), "w2": weights(8, 32, 3, 3, seed=1)}
    model = model_of(nodes, {"u": [1, 3, 8, 8], "x": [1, 16, 8, 8]}, {"y": [1, 8, 8, 8]}, constants)
    feed = feed_for(model)
    integer, ends = assert_like_static(model, feed)
    assert (ends.inputs[1].scale or 0) * 127 > 2 * float(np.abs(feed["x"]).max())
    assert operators(integer).count("QuantizeLinear") == 3  # before the Concat, behind it, and the output's


def test_a_reader_on_a_coarser_grid_keeps_its_pair() -> None:
    """Where a convolution and a Concat of a far wider range read one input, the Concat's operand is quantised again."""
    nodes = [
        conv("conv1", "x", "a", "w1"),
        node("Concat", "concat", ["a", "x"], "c", axis=1),
        conv("conv2", "c", "y", "w2"),
    ]
    constants = {"w1": weights(16, 16, 3, 3, scale=5.0), "w2": weights(8, 32, 3, 3, seed=1)}
    model = model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 8, 8, 8]}, constants)
    feed = feed_for(model)
    floating, integer, ends = both(model, feed)
    assert (ends.inputs[0].scale or 0) * 127 == pytest.approx(float(np.abs(feed["x"]).max()))
    step = ends.outputs[0].scale or 0
    error = integers_from(integer, ends, feed)["y"] * step - outputs_of(floating, feed)["y"]
    assert float(np.abs(error).max()) < 20 * step
    assert sorted(entry.op_type for entry, _ in _readers(integer, "x_float")) == ["Conv", "QuantizeLinear"]


def test_several_inputs_and_outputs_and_integers_that_stay() -> None:
    """Float ends become INT8, each on a grid of its own; an INT64 input and ArgMax's INT64 output stay."""
    nodes = [
        conv("conv1", "x", "a", "w"),
        node("Gather", "pick", ["a", "which"], "b", axis=1),
        node("Mul", "product", ["b", "factor"], "y"),
        node("Sigmoid", "gate", ["a"], "probabilities"),
        node("ArgMax", "best", ["a"], "class", axis=1),
    ]
    model = model_of(
        nodes,
        {"x": [1, 16, 8, 8], "factor": [1]},
        {"y": [1, 2, 8, 8], "probabilities": [1, 16, 8, 8]},
        {"w": weights(16, 16, 3, 3)},
    )
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.INT64, [2]))
    model.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, [1, 1, 8, 8]))
    feed = {**feed_for(model), "factor": np.array([2.0], np.float32)}
    integer, ends = assert_like_static(model, feed)
    assert [(end.name, end.dtype) for end in (*ends.inputs, *ends.outputs)] == [
        ("x", "int8"), ("factor", "int8"), ("which", "int64"),
        ("y", "int8"), ("probabilities", "int8"), ("class", "int64")]  # fmt: skip
    assert ends.inputs[2].scale is ends.outputs[2].scale is None
    assert (ends.outputs[1].scale or 1) <= 1 / 127
    assert [entry.op_type for entry, _ in _readers(integer, "factor")] == ["DequantizeLinear"]


def test_an_output_that_a_layer_reads_too_is_quantised_for_both() -> None:
    """The layer behind the output computes what it computed before."""
    nodes = [conv("conv1", "x", "y", "w1"), conv("conv2", "y", "z", "w2")]
    constants = {"w1": weights(16, 16, 3, 3), "w2": weights(16, 16, 3, 3, seed=1)}
    shape = [1, 16, 8, 8]
    model = model_of(nodes, {"x": shape}, {"y": shape, "z": shape}, constants)
    assert_like_static(model, feed_for(model))


def test_an_input_that_goes_straight_out_keeps_its_values() -> None:
    """Through an Identity, the integers that go in come out on the output's grid."""
    nodes = [conv("conv1", "x", "y", "w"), node("Identity", "same", ["x"], "copy")]
    shape = [1, 16, 8, 8]
    model = model_of(nodes, {"x": shape}, {"y": shape, "copy": shape}, {"w": weights(16, 16, 3, 3)})
    feed = feed_for(model)
    _, integer, ends = both(model, feed)
    np.testing.assert_array_equal(
        integers_from(integer, ends, feed)["copy"], quantized(feed["x"], ends.inputs[0].scale or 0)
    )


def test_an_input_that_no_node_reads_and_that_is_an_output_itself_stays_float() -> None:
    """There is no pair that nobody reads, and nothing is told to be quantised."""
    shape = [1, 16, 8, 8]
    ends = {"x": shape, "z": shape}
    model = model_of([conv("conv1", "x", "y", "w")], ends, {"y": shape, "z": shape}, {"w": weights(16, 16, 3, 3)})
    feed = feed_for(model)
    _, integer, found = both(model, feed)
    require_clean(integer)
    assert [end.scale is None for end in (*found.inputs, *found.outputs)] == [False, True, False, True]
    np.testing.assert_array_equal(integers_from(integer, found, feed)["z"], feed["z"])


def test_a_subgraph_reads_the_dequantised_input() -> None:
    """An If whose branch reads the graph input gets float numbers."""
    shape = [1, 16, 8, 8]
    value = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, shape)]
    branches = [
        helper.make_graph([node(op, f"{op}_node", ["x"], "inner")], op, [], value) for op in ("Sigmoid", "Tanh")
    ]
    nodes = [
        conv("conv1", "x", "a", "w"),
        helper.make_node("If", ["flag"], ["b"], name="if", then_branch=branches[0], else_branch=branches[1]),
        node("Add", "sum", ["a", "b"], "y"),
    ]
    model = model_of(nodes, {"x": shape}, {"y": shape}, {"w": weights(16, 16, 3, 3), "flag": np.array(False)})
    feed = feed_for(model)
    _, integer, ends = both(model, feed)
    found = integers_from(integer, ends, feed)["y"] * (ends.outputs[0].scale or 0)
    assert float(np.abs(found - outputs_of(model, feed)["y"]).max()) < 0.2


def test_half_precision_ends_become_int8_too() -> None:
    """FP16 inputs and outputs, with Casts behind and before them, end as INT8."""
    nodes = [
        node("Cast", "widen", ["x"], "x32", to=TensorProto.FLOAT),
        conv("conv1", "x32", "y32", "w"),
        node("Cast", "narrow", ["y32"], "y", to=TensorProto.FLOAT16),
    ]
    model = model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 16, 8, 8]}, {"w": weights(16, 16, 3, 3)})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    feed = feed_for(model)
    _, integer, ends = both(model, feed)
    found = integers_from(integer, ends, feed)["y"] * (ends.outputs[0].scale or 0)
    assert float(np.abs(found - outputs_of(model, feed)["y"]).max()) < 0.1


def test_a_table_without_the_ends_is_refused() -> None:
    """A table that was made for static quantisation has no range for the output."""
    request = PrecisionRequest("full-integer")
    graph = float_graph(residual_block(), request)
    ranges = ranges_of(graph, feed_for(graph.model))
    del ranges["y"]
    with pytest.raises(StaleError, match=r"y: .*calibrat"):
        METHODS["full-integer"].written(graph.index, graph.placement, ranges, request)


def small_vision_model(shape: list[int | str], channels_last: bool = False) -> onnx.ModelProto:
    """A padded convolution of three channels; with `channels_last` behind a Transpose."""
    nodes = [node("Transpose", "to_nchw", ["x"], "t", perm=[0, 3, 1, 2])] if channels_last else []
    nodes.append(conv("conv1", "t" if channels_last else "x", "y", "w"))
    return model_of(nodes, {"x": shape}, {"y": ["n", 8, 8, 6]}, {"w": weights(8, 3, 3, 3)})


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (f"color=RGB,{IMAGENET}", [1, 3, 8, 6]),
        (f"color=BGR,{IMAGENET}", [1, 3, 8, 6]),
        (f"color=RGB,layout=NHWC,{IMAGENET}", [1, 8, 6, 3]),
        ("color=BGR,mean=104:117:123", ["n", 3, "h", "w"]),
        ("color=RGB,scale=1/127.5,mean=1", [1, 3, 8, 6]),
    ],
)
def test_an_image_goes_in_as_bytes(text: str, shape: list[int | str]) -> None:
    """RGB bytes with the channels last give static quantisation's answers to the preprocessed image, within a step."""
    steps = preprocess_from_text(text)
    model = small_vision_model(shape, channels_last=steps.layout == "NHWC")
    image = np.random.default_rng(3).integers(0, 256, (1, 8, 6, 3)).astype(np.uint8)
    feed = {"x": preprocessed(image, steps)}
    floating, integer, ends = both(model, feed, steps)
    assert ends.inputs[0].dtype == "uint8"
    assert [dim.dim_value for dim in integer.graph.input[0].type.tensor_type.shape.dim][-1] == 3
    np.testing.assert_array_equal(image_from_tensor(feed["x"], steps, where="x"), image)
    wanted = quantized(outputs_of(floating, feed)["y"], ends.outputs[0].scale or 0).astype(int)
    found = outputs_of(integer, {"x": image})["y"].astype(int)
    assert np.abs(found - wanted).max() <= 1


def preprocessed(image: NDArray[np.uint8], steps: Preprocess) -> NDArray[np.float32]:
    """`(pixel * scale - mean) / std` in float32, as the readers of images do it."""
    pixels = image[..., ::-1] if steps.color == "BGR" else image
    values = (pixels.astype(np.float32) * np.float32(steps.scale) - np.float32(steps.mean)) / np.float32(steps.std)
    return np.ascontiguousarray(values if steps.layout == "NHWC" else np.moveaxis(values, -1, -3), np.float32)


def test_an_image_that_only_a_float_layer_reads_needs_no_range() -> None:
    """What an image becomes is computed, not looked up on a grid: its float tensor is not calibrated."""
    nodes = [node("Sigmoid", "gate", ["x"], "a"), conv("conv1", "a", "y", "w")]
    model = model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8, 8, 8]}, {"w": weights(8, 3, 3, 3)})
    taps = [float_graph(model, PrecisionRequest("full-integer", image=image)).taps for image in (Preprocess(), None)]
    assert [tap.calibrated for tap in taps] == [("a", "y"), ("a", "x", "y")]


@pytest.mark.parametrize(
    ("text", "shape", "told"),
    [
        ("color=L", [1, 3, 8, 6], r"1 channel\(s\) in NCHW"),
        ("layout=NHWC", [1, 3, 8, 6], r"3 channel\(s\) in NHWC"),
    ],
)
def test_a_model_without_such_an_image_input_is_refused(text: str, shape: list[int | str], told: str) -> None:
    """The error says which input the preprocessing leads to, and which the model has, before any data are read."""
    request = PrecisionRequest("full-integer", image=preprocess_from_text(text))
    with pytest.raises(RequestError, match=rf"{told}.*x: float32 \[1x3x8x6\]"):
        float_graph(small_vision_model(shape), request)


def test_two_images_are_refused() -> None:
    """Which of two inputs the image is cannot be guessed."""
    nodes = [
        conv("conv1", "left", "a", "w"),
        conv("conv2", "right", "b", "w"),
        node("Add", "sum", ["a", "b"], "y"),
    ]
    shape = [1, 3, 8, 8]
    model = model_of(nodes, {"left": shape, "right": shape}, {"y": [1, 8, 8, 8]}, {"w": weights(8, 3, 3, 3)})
    with pytest.raises(RequestError, match="2: left, right"):
        float_graph(model, PrecisionRequest("full-integer", image=Preprocess()))


@given(st.integers(0, 255), st.sampled_from([IMAGENET, "scale=1/127.5,mean=1,color=BGR", "std=58.4:57.1:57.4"]))
def test_every_pixel_survives_the_way_there_and_back(pixel: int, text: str) -> None:
    """Preprocessing in float32, as the readers of images do it, is undone exactly."""
    steps = preprocess_from_text(text)
    image = np.full((1, 2, 2, 3), pixel, np.uint8)
    np.testing.assert_array_equal(image_from_tensor(preprocessed(image, steps), steps, where="x"), image)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_data_that_are_no_8_bit_images_are_refused(value: float) -> None:
    """Pixels beyond 0 … 255 by more than half a step, and NaN."""
    with pytest.raises(DataError, match="no 8-bit images"):
        image_from_tensor(np.full((1, 3, 2, 2), value, np.float32), Preprocess(scale=1 / 255), where="x")


def test_the_runner_takes_and_gives_float_numbers() -> None:
    """Wrapped, the integer model answers like the static one, within half an output step."""
    model = residual_block()
    feed = feed_for(model)
    floating, integer, ends = both(model, feed)
    with IntegerEndsRunner(OnnxRuntimeRunner(integer, optimised=False, name="integers"), ends) as runner:
        found = runner.infer(feed)["y"]
        assert runner.name == "integers"
    assert found.dtype == np.float32
    assert np.abs(found - outputs_of(floating, feed)["y"]).max() <= 0.5001 * (ends.outputs[0].scale or 0)


def test_ends_survive_json_and_bad_ones_are_refused() -> None:
    """What a manifest holds reads back the same; a scale without a zero-point, or of zero, does not."""
    model = small_vision_model([1, 3, 8, 6])
    *_, ends = both(model, feed_for(model), preprocess_from_text(f"resize=256,crop=6x8,{IMAGENET}"))
    assert value_from_json(IntegerEnds, json_from_value(ends), where="manifest") == ends
    with pytest.raises(RecipeError, match="zero-point"):
        replace(ends.outputs[0], zero_point=None)
    with pytest.raises(RecipeError, match="positive"):
        replace(ends.outputs[0], scale=0.0)


def test_the_profile_of_an_image_has_its_channels_last() -> None:
    """Only the image's shapes change, and only where the float model has the channels first."""
    found = {name: ShapeRange((1, 3, 8, 6), (2, 3, 8, 6), (4, 3, 16, 12)) for name in ("image", "other")}
    ends = {
        layout: IntegerEnds(
            (IntegerEnd("image", "input", "uint8", None, "", preprocess=str(Preprocess(layout=layout))),), ()
        )
        for layout in ("NCHW", "NHWC")
    }
    turned = ShapeRange((1, 8, 6, 3), (2, 8, 6, 3), (4, 16, 12, 3))
    assert ends["NCHW"].profile(found) == {"image": turned, "other": found["other"]}
    assert ends["NHWC"].profile(found) == found


def test_the_note_holds_numpy_that_does_it() -> None:
    """The lines for an input quantise, and those for an output dequantise, when they are run."""
    model = residual_block()
    feed = feed_for(model)
    _, integer, ends = both(model, feed)
    blocks = [
        "\n".join(line.strip() for line in part.splitlines() if line.startswith("    "))
        for part in note_text(ends).split("\n\n")[1:]
    ]
    names: dict[str, object] = {"np": np, "x": feed["x"]}
    exec(blocks[0], names)
    names["integers"] = integers = outputs_of(integer, {"x": np.asarray(names["integers"])})["y"]
    exec(blocks[1], names)
    np.testing.assert_array_equal(np.asarray(names["y"]), integers * np.float32(ends.outputs[0].scale or 0))
    np.testing.assert_array_equal(integers, integers_from(integer, ends, feed)["y"])


def test_the_note_tells_how_the_image_is_fed() -> None:
    """The sentence names resizing and cropping; the code gives an array of the engine's shape."""
    model = small_vision_model([1, 3, 8, 6])
    *_, ends = both(model, feed_for(model), preprocess_from_text(f"resize=256,crop=6x8,color=BGR,{IMAGENET}"))
    note = note_text(ends)
    assert "shorter side resized to 256 (bilinear), its centre of 6x8 pixels" in note
    assert "feed the RGB image" in note
    names: dict[str, object] = {"np": np, "image": np.zeros((8, 6, 3))}
    exec(next(line.strip() for line in note.splitlines() if line.strip().startswith("pixels")), names)
    assert np.shape(names["pixels"]) == ends.inputs[0].shape


def _readers(model: onnx.ModelProto, tensor: str) -> list[tuple[onnx.NodeProto, int]]:
    return [(entry, place) for entry in model.graph.node for place, name in enumerate(entry.input) if name == tensor]
