"""The digits sample is what its README says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from ort_session import outputs_of

from trt_opt.samples import DIGITS

LARGEST_MODEL_BYTES = 500_000
LOWEST_ACCURACY = 0.97


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(DIGITS / "model.onnx")


def arrays_of(file: str) -> dict[str, NDArray[np.generic]]:
    with np.load(DIGITS / file, allow_pickle=False) as stored:
        return dict(stored)


def test_model_is_valid(model: onnx.ModelProto) -> None:
    """The model passes onnx's checker, shapes included."""
    onnx.checker.check_model(model, full_check=True)


def test_model_is_small() -> None:
    """The model may lie in a repository and in a wheel."""
    assert (DIGITS / "model.onnx").stat().st_size <= LARGEST_MODEL_BYTES


def test_model_has_a_dynamic_batch(model: onnx.ModelProto) -> None:
    """Images go in and logits come out, any number at a time."""
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": ["batch", 1, 8, 8], "logits": ["batch", 10]}


def test_model_has_one_of_each_layer_the_tool_treats(model: onnx.ModelProto) -> None:
    """Every Conv has its BatchNormalization, unfolded; the other operators are there as well."""
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == operators["BatchNormalization"] == 7
    assert {"Add", "Concat", "MaxPool", "GlobalAveragePool", "Gemm", "Relu"} <= operators.keys()


def test_model_has_depthwise_and_pointwise_convolutions(model: onnx.ModelProto) -> None:
    """One convolution has a group per channel, another a 1x1 kernel."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes = {node.name: weights[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}
    groups = {
        node.name: onnx.helper.get_node_attr_value(node, "group") for node in model.graph.node if node.op_type == "Conv"
    }
    assert groups["block2/depthwise/conv"] == shapes["block2/depthwise/conv"][0] == 32
    assert shapes["block2/pointwise/conv"][2:] == (1, 1)


def test_names_are_unique(model: onnx.ModelProto) -> None:
    """Every node has a name of its own: reports and tables refer to nodes by it."""
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_model_reads_the_test_images(model: onnx.ModelProto) -> None:
    """At least 97 % of the test images are read correctly."""
    test = arrays_of("test.npz")
    logits = outputs_of(model, {"image": test["image"]})["logits"]
    assert np.mean(logits.argmax(axis=1) == test["labels"]) >= LOWEST_ACCURACY


def test_calibration_has_no_labels() -> None:
    """Calibration data is images alone, float32 from 0 to 1."""
    calibration = arrays_of("calibration.npz")
    assert calibration.keys() == {"image"}
    images = calibration["image"]
    assert (images.shape, images.dtype) == ((128, 1, 8, 8), np.float32)
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_test_images_are_labelled() -> None:
    """There is a label for each test image, and every digit occurs."""
    test = arrays_of("test.npz")
    assert (test["image"].shape, test["image"].dtype) == ((450, 1, 8, 8), np.float32)
    assert (test["labels"].shape, test["labels"].dtype) == ((450,), np.int64)
    assert np.bincount(test["labels"].astype(np.int64), minlength=10).min() >= 40


def test_calibration_and_test_are_disjoint() -> None:
    """No image is in both files, nor twice in one: a calibration on test images would flatter the result."""
    images = np.concatenate([arrays_of("calibration.npz")["image"], arrays_of("test.npz")["image"]])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
