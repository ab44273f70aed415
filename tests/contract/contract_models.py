"""Small graphs for the contract, named after their trait."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from graphs import conv, model_of, node, weights

SCALES = {"scale": np.float32(0.05), "zero": np.int8(0)}


def saved(model: onnx.ModelProto, file: Path) -> Path:
    """The file, with the model in it."""
    onnx.save(model, file)
    return file


def two_convolutions(batch: int | str = "N") -> onnx.ModelProto:
    """conv1, relu1 and conv2 in float32; the batch is open unless told."""
    nodes = [conv("conv1", "x", "a", "w1"), node("Relu", "relu1", ["a"], "b"), conv("conv2", "b", "y", "w2")]
    shape = (batch, 3, 8, 8)
    constants = {"w1": weights(4, 3, 3, 3), "w2": weights(3, 4, 3, 3, seed=1)}
    return model_of(nodes, {"x": shape}, {"y": shape}, constants, opset=17)


def quantised_convolution() -> onnx.ModelProto:
    """conv1 between Q/DQ pairs."""
    nodes = [
        node("QuantizeLinear", "quantize_x", ["x", "scale", "zero"], "xq"),
        node("DequantizeLinear", "dequantize_x", ["xq", "scale", "zero"], "xd"),
        node("QuantizeLinear", "quantize_w", ["w", "scale", "zero"], "wq"),
        node("DequantizeLinear", "dequantize_w", ["wq", "scale", "zero"], "wd"),
        conv("conv1", "xd", "y", "wd"),
    ]
    shape = (1, 3, 8, 8)
    return model_of(nodes, {"x": shape}, {"y": shape}, {"w": weights(3, 3, 3, 3), **SCALES}, opset=17)


def integer_matrix_product() -> onnx.ModelProto:
    """An operator that no parser takes, called `product`."""
    nodes = [
        node("Cast", "to_int8", ["x"], "i", to=int(onnx.TensorProto.INT8)),
        node("MatMulInteger", "product", ["i", "w"], "p"),
        node("Cast", "to_float", ["p"], "y", to=int(onnx.TensorProto.FLOAT)),
    ]
    return model_of(nodes, {"x": (2, 4)}, {"y": (2, 4)}, {"w": np.eye(4, dtype=np.int8)}, opset=17)
