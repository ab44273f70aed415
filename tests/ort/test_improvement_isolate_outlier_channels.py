"""A few large channels leave a layer's INT8 input for a small float layer of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import conv, model_of, node, weights
from improvement_subjects import Feed, again, data_of, pooled_sqnr_db, subject_of
from ort_session import outputs_of

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.improvements.isolate_outlier_channels import IsolateOutlierChannels
from trt_opt.quantize.stage import quantized_graph
from trt_opt.values.progress import Silent

IMPROVED = IsolateOutlierChannels()
OUTLIERS = [5, 40]
ROUNDING = 4e-6
"""The sum over channels is taken in another order."""


def convolution() -> onnx.ModelProto:
    """Two of 80 channels of the graph's input are a hundred times as large; a bias and a Relu follow."""
    held = {"w": weights(32, 80, 3, 3, seed=1), "b": weights(32, seed=2)}
    nodes = [conv("layer", "x", "c", "w", "b", strides=[2, 2]), node("Relu", "act", ["c"], "y")]
    return model_of(nodes, {"x": ["n", 80, 8, 8]}, {"y": ["n", 32, "h", "w"]}, held)


def gemm() -> onnx.ModelProto:
    """alpha, beta and transB."""
    held = {"w": weights(32, 80, seed=1), "b": weights(32, seed=2)}
    nodes = [node("Gemm", "layer", ["x", "w", "b"], "y", transB=1, alpha=0.5, beta=2.0)]
    return model_of(nodes, {"x": ["n", 80]}, {"y": ["n", 32]}, held)


def two_products() -> onnx.ModelProto:
    """Two MatMuls read the same outliers."""
    held = {"w": weights(80, 32, seed=1), "v": weights(80, 32, seed=2)}
    nodes = [node("MatMul", "layer", ["x", "w"], "y"), node("MatMul", "other", ["x", "v"], "z")]
    return model_of(nodes, {"x": ["n", 5, 80]}, {"y": ["n", 5, 32], "z": ["n", 5, 32]}, held)


SPLIT: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "convolution": convolution,
    "gemm": gemm,
    "two_products": two_products,
}


def feeds_of(model: onnx.ModelProto, seed: int = 0, factor: float = 100.0) -> list[Feed]:
    """Normal random numbers with two larger channels, which are on axis 1 of images and else on the last."""
    generator = np.random.default_rng(seed)
    (spec,) = graph_inputs(model)
    shape = [3 if isinstance(size, str) else size for size in spec.shape or ()]
    found = []
    for _ in range(6):
        array = generator.standard_normal(shape).astype(np.float32)
        (array if len(shape) == 4 else np.moveaxis(array, -1, 1))[:, OUTLIERS] *= factor
        found.append({spec.name: array})
    return found


@pytest.mark.parametrize("name", SPLIT)
def test_outliers_go_into_a_float_layer(name: str, tmp_path: Path) -> None:
    """INT8 gains 10 dB, the float model and its ends stay, the layer stays INT8, a second run finds nothing."""
    model = SPLIT[name]()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is not None
    onnx.checker.check_model(found.model)
    others = feeds_of(model, seed=1)
    for feed in others:
        for output, array in outputs_of(model, feed).items():
            difference = np.abs(outputs_of(found.model, feed)[output] - array).max()
            assert difference <= ROUNDING * np.abs(array).max()
    assert graph_inputs(found.model) == graph_inputs(subject.source.model)
    assert graph_outputs(found.model) == graph_outputs(subject.source.model)
    after = again(found, subject)
    assert pooled_sqnr_db(after, model, others) > pooled_sqnr_db(subject, model, others) + 10
    assert "layer" in after.source.quantized_nodes
    assert IMPROVED.improved(after, Silent()).model is None


def test_the_split_holds_for_numbers_never_seen(tmp_path: Path) -> None:
    """Other channels may be large at run time: the float model is the same for any input."""
    model = convolution()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert found.model is not None
    strange = {"x": (weights(1, 80, 8, 8, seed=3) * 1e4).astype(np.float32)}
    wanted, got = outputs_of(model, strange)["y"], outputs_of(found.model, strange)["y"]
    assert np.abs(wanted - got).max() <= ROUNDING * np.abs(wanted).max()


def test_the_small_layer_and_the_sum_stay_in_float(tmp_path: Path) -> None:
    """Both are named with the layer they come from, and no Q/DQ pair stands before them."""
    model = convolution()
    subject = subject_of(model, data_of(model, feeds_of(model), tmp_path))
    found = IMPROVED.improved(subject, Silent())
    assert len(found.spared) == 2
    assert all("'layer'" in reason for reason in found.spared.values())
    after = again(found, subject)
    assert not after.source.quantized_nodes & set(found.spared)
    written = quantized_graph(after.source, after.ranges).model
    makers = {name: made.op_type for made in written.graph.node for name in made.output}
    reading = {made.name: [makers.get(name) for name in made.input] for made in written.graph.node}
    assert all("DequantizeLinear" not in reading[name] for name in found.spared)


def test_outliers_hardly_larger_are_left(tmp_path: Path) -> None:
    """Twice as large is not worth a trial, nor a word in the report."""
    model = convolution()
    found = IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model, factor=2.0), tmp_path)), Silent())
    assert found.model is None
    assert not found.declined


def test_many_outliers_are_left(tmp_path: Path) -> None:
    """Four of 80 channels are more than 3 %."""
    model = convolution()
    feeds = feeds_of(model)
    for feed in feeds:
        feed["x"][:, [7, 9]] *= 100
    assert IMPROVED.improved(subject_of(model, data_of(model, feeds, tmp_path)), Silent()).model is None


def test_grouped_convolutions_are_left(tmp_path: Path) -> None:
    """Their outliers would be columns of one group alone."""
    held = {"w": weights(32, 40, 3, 3, seed=1)}
    nodes = [conv("layer", "x", "y", "w", group=2)]
    model = model_of(nodes, {"x": ["n", 80, 8, 8]}, {"y": ["n", 32, 8, 8]}, held)
    assert IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent()).model is None


def test_the_int8_weights_lose_the_columns_of_the_outliers(tmp_path: Path) -> None:
    """Nothing reads them there, and they would only coarsen the scales of the others."""
    model = convolution()
    found = IMPROVED.improved(subject_of(model, data_of(model, feeds_of(model), tmp_path)), Silent())
    assert found.model is not None
    (layer,) = [made for made in found.model.graph.node if made.name == "layer"]
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    assert not held[layer.input[1]][:, OUTLIERS].any()


def test_a_layer_is_split_once(tmp_path: Path) -> None:
    """Further channels that are large beside what is left do not get a second float layer."""
    model = convolution()
    feeds = feeds_of(model, factor=1000.0)
    for feed in feeds:
        feed["x"][:, [9]] *= 30
    subject = subject_of(model, data_of(model, feeds, tmp_path))
    after = again(IMPROVED.improved(subject, Silent()), subject)
    assert IMPROVED.improved(after, Silent()).model is None
