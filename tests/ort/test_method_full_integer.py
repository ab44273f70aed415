"""The method full-integer through the whole quantise stage, with FP16 and without, and the sample model's accuracy."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from graphs import residual_block

from calibrators import calibrator_from_text
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.datasets import open_dataset
from trt_opt.datasets.preprocess import preprocess_from_text
from trt_opt.errors import RequestError
from trt_opt.graph.load import load_model
from trt_opt.graph.query import graph_inputs
from trt_opt.quantize.lint import findings_of
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, QuantizedGraph, float_graph, quantized_graph
from trt_opt.recipe import Recipe
from trt_opt.samples import DIGITS
from trt_opt.values.accuracy import Comparison
from trt_opt.values.calibration import TensorRange
from trt_opt.values.progress import Silent
from trt_opt.variants import GraphVariant, accuracies, graph_variants

IMAGE = "layout=NCHW,color=L,scale=1/16"
"""The sample's grey values are 0 … 16, divided by 16."""


def quantized_block(request: PrecisionRequest) -> QuantizedGraph:
    """A residual block with every range from -4 to 4."""
    graph = float_graph(residual_block(), request)
    return quantized_graph(graph, {name: TensorRange(-4.0, 4.0, 4.0, 1) for name in graph.taps.all})


@cache
def judged(method: str, fp16: bool, image: bool) -> tuple[Comparison, QuantizedGraph]:
    """The sample model in one precision, compared with the float model on the test images."""
    model = load_model(DIGITS / "model.onnx")
    request = PrecisionRequest(method, fp16, image=preprocess_from_text(IMAGE) if image else None)
    graph = float_graph(model, request)
    final = quantized_graph(graph, ranges_from_calibration_data(graph))
    variants = graph_variants(graph, {}, GraphVariant(graph.name, final.model, final.ends), baselines=False)
    test = open_dataset(str(DIGITS / "test.npz"), graph_inputs(model))
    return accuracies(model, variants, test, Silent())[graph.name], final


def ranges_from_calibration_data(graph: FloatGraph) -> dict[str, TensorRange]:
    """The sample's ranges, from its calibration images."""
    data = open_dataset(str(DIGITS / "calibration.npz"), graph_inputs(graph.model))
    table = calibration_table(graph.model, graph.taps, data, calibrator_from_text("entropy"), Silent())
    return dict(table.ranges)


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("image", [False, True], ids=["int8", "image"])
def test_the_sample_reads_digits_as_well_as_with_float_ends(fp16: bool, image: bool) -> None:
    """Top-1 within half a point of static quantisation's, on all test images."""
    tasks = [judged(*key)[0].candidate_task for key in (("static", fp16, False), ("full-integer", fp16, image))]
    assert tasks[0] is not None
    assert tasks[1] is not None
    assert abs(tasks[0].top1 - tasks[1].top1) <= 0.005
    assert tasks[1].top1 > 0.98


@pytest.mark.parametrize("fp16", [False, True])
def test_the_sample_takes_and_gives_int8(fp16: bool) -> None:
    """The ends that are told are the model's, the dynamic batch among them."""
    _, final = judged("full-integer", fp16, False)
    assert final.ends is not None
    told = [(end.name, end.dtype, end.shape) for end in (*final.ends.inputs, *final.ends.outputs)]
    assert told == [("image", "int8", ("batch", 1, 8, 8)), ("logits", "int8", ("batch", 10))]
    assert [value.type.tensor_type.elem_type for value in final.model.graph.input] == [onnx.TensorProto.INT8]


@pytest.mark.parametrize("fp16", [False, True])
def test_a_graph_with_integer_ends_is_clean(fp16: bool) -> None:
    """No finding: an output's quantiser that nobody reads is no torn pair."""
    assert not findings_of(quantized_block(PrecisionRequest("full-integer", fp16)).model)


def test_the_layer_before_an_output_gives_it_in_fp16() -> None:
    """With FP16, no Cast stands between a layer and the quantiser of its output, nor behind the input's dequantiser."""
    model = quantized_block(PrecisionRequest("full-integer", fp16=True)).model
    assert "Cast" not in {node.op_type for node in model.graph.node}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    quantizer = next(node for node in model.graph.node if node.output[0] == "y")
    assert kinds[quantizer.input[1]] == onnx.TensorProto.FLOAT16


def test_an_output_that_stays_fp32_is_quantised_in_fp32() -> None:
    """Where FP16 cannot hold what the last layer gives, its quantiser stays in FP32 with it."""
    graph = float_graph(residual_block(), PrecisionRequest("full-integer", fp16=True))
    ranges = {name: TensorRange(-4.0, 4.0, 4.0, 1) for name in graph.taps.all}
    final = quantized_graph(graph, {**ranges, "y": TensorRange(-1e6, 1e6, 1e6, 1)})
    assert "conv3" in final.plan.kept_fp32
    assert final.ends is not None
    assert final.ends.outputs[0].scale == pytest.approx(1e6 / 127, rel=1e-3)
    quantizer = next(node for node in final.model.graph.node if node.output[0] == "y")
    assert {tensor.name: tensor.data_type for tensor in final.model.graph.initializer}[quantizer.input[1]] == 1


def test_other_methods_have_no_integer_ends() -> None:
    """Static quantisation tells nothing of its ends, FP16 ones included."""
    request = PrecisionRequest("static", fp16=True, io_fp16=True)
    assert quantized_block(request).ends is None


def test_the_scale_of_the_sample_is_that_of_its_extremes() -> None:
    """An output's 127 is the largest magnitude that calibration saw, not a threshold that clips."""
    _, final = judged("full-integer", False, False)
    model = load_model(DIGITS / "model.onnx")
    graph = float_graph(model, PrecisionRequest("full-integer"))
    assert final.ends is not None
    found = ranges_from_calibration_data(graph)["logits"]
    assert final.ends.outputs[0].scale == pytest.approx(np.float32(found.extreme / 127))


def test_an_image_input_needs_preprocessing_and_the_method() -> None:
    """Both slips show before any work is done."""
    with pytest.raises(RequestError, match="preprocessing"):
        Recipe("model.onnx", quantization="full-integer", image_input=True)
    with pytest.raises(RequestError, match="integer ends"):
        Recipe("model.onnx", int8=True, image_input=True, preprocess=IMAGE)
