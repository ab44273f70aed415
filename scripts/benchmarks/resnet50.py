"""A ResNet-50 that needs no download: onnx's own, with seeded random weights, and images to feed it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from numpy.typing import NDArray
from onnx import numpy_helper

INPUT = "gpu_0/data_0"
SHAPE = (1, 3, 224, 224)

samples = 32
"""How many images `images` yields; it takes no argument, as the functions that --calib-data names."""


def images() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yields seeded random images, float32 [1, 3, 224, 224] between -2 and 2, made as they are asked for."""
    for number in range(samples):
        yield {INPUT: np.random.default_rng(number).random(SHAPE, np.float32) * 4 - 2}


def model() -> onnx.ModelProto:
    """Returns onnx's ResNet-50 with weights of He's scale and batch normalisations that keep activations sane.

    In the file that onnx's backend tests use, every weight is a ConstantOfShape; here activations reach from 0.2 to 10.
    """
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    light = onnx.load(folder / "light_resnet50.onnx")
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in light.graph.initializer}
    generator = np.random.default_rng(0)
    for node in [node for node in light.graph.node if node.op_type == "ConstantOfShape"]:
        weights = _random_weights(shapes[node.input[0]], generator)
        light.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        light.graph.node.remove(node)
    fed = [value for value in light.graph.input if value.name == INPUT]
    del light.graph.input[:]
    light.graph.input.extend(fed)
    light.ir_version = 8  # before 4, an initialiser had to be an input too
    _set_statistics(light)
    return light


def _random_weights(shape: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float32]:
    """He initialisation for weights of rank 2 and more, small numbers for biases."""
    sizes = tuple(int(size) for size in shape)
    scale = np.sqrt(2 / np.prod(sizes[1:])) if len(sizes) > 1 else 0.02
    return (generator.standard_normal(sizes) * scale).astype(np.float32)


def _set_statistics(light: onnx.ModelProto) -> None:
    """Every BatchNormalization: scale 0.5, bias as it is, mean 0, variance 1."""
    values: dict[str, float] = {}
    for node in light.graph.node:
        if node.op_type == "BatchNormalization":
            values |= {node.input[1]: 0.5, node.input[3]: 0.0, node.input[4]: 1.0}
    for tensor in light.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, values[tensor.name], np.float32), tensor.name))
