"""Small ONNX graphs, named after what is special about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, NDArray[np.generic]]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Arrays,
    opset: int = 19,
) -> onnx.ModelProto:
    """A float32 model from nodes, input and output shapes and constants."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def weights(*shape: int, seed: int = 0, scale: float = 0.2) -> NDArray[np.float32]:
    """Normal random numbers, the same every time."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def conv(name: str, source: str, target: str, weight: str, bias: str = "", **attributes: object) -> onnx.NodeProto:
    """A 3x3 convolution that keeps the image's size, unless told otherwise."""
    options = {"pads": [1, 1, 1, 1], **attributes}
    inputs = [source, weight] + ([bias] if bias else [])
    return helper.make_node("Conv", inputs, [target], name=name, **options)


def node(op_type: str, name: str, sources: Sequence[str], target: str, **attributes: object) -> onnx.NodeProto:
    """A node with one output."""
    return helper.make_node(op_type, list(sources), [target], name=name, **attributes)


def residual_block(addition: str = "Add") -> onnx.ModelProto:
    """Relu(conv1) feeds conv2 and skips to an Add (or Sum) behind it; conv3 reads the sum."""
    constants = {f"w{number}": weights(16, 16, 3, 3, seed=number) for number in (1, 2, 3)}
    nodes = [
        conv("conv1", "x", "a", "w1"),
        node("Relu", "relu1", ["a"], "b"),
        conv("conv2", "b", "c", "w2"),
        node(addition, "add", ["c", "b"], "d"),
        node("Relu", "relu2", ["d"], "e"),
        conv("conv3", "e", "y", "w3"),
    ]
    return model_of(nodes, {"x": [1, 16, 8, 8]}, {"y": [1, 16, 8, 8]}, constants)


def two_branches_into_a_concat() -> onnx.ModelProto:
    """Two convolutions of very different ranges meet in a Concat that a third reads."""
    constants = {
        "w1": weights(16, 3, 3, 3, seed=1),
        "w2": weights(16, 3, 3, 3, seed=2, scale=2.0),
        "w3": weights(8, 32, 3, 3, seed=3),
    }
    nodes = [
        conv("conv1", "x", "a", "w1"),
        conv("conv2", "x", "b", "w2"),
        node("Concat", "concat", ["a", "b"], "c", axis=1),
        conv("conv3", "c", "y", "w3"),
    ]
    return model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8, 8, 8]}, constants)


def pooled() -> onnx.ModelProto:
    """Conv → Relu → MaxPool → Transpose → Transpose → conv → GlobalAveragePool → Flatten → Gemm."""
    constants = {
        "w1": weights(16, 3, 3, 3, seed=1),
        "w2": weights(16, 16, 3, 3, seed=2),
        "w3": weights(16, 32, seed=3),
        "bias": weights(32, seed=4),
    }
    nodes = [
        conv("conv1", "x", "a", "w1"),
        node("Relu", "relu1", ["a"], "b"),
        node("MaxPool", "pool", ["b"], "c", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "to_nhwc", ["c"], "d", perm=[0, 2, 3, 1]),
        node("Transpose", "to_nchw", ["d"], "e", perm=[0, 3, 1, 2]),
        conv("conv2", "e", "f", "w2"),
        node("Relu", "relu2", ["f"], "g"),
        node("GlobalAveragePool", "average", ["g"], "h"),
        node("Flatten", "flatten", ["h"], "i"),
        node("Gemm", "gemm", ["i", "w3", "bias"], "y"),
    ]
    return model_of(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 32]}, constants)
