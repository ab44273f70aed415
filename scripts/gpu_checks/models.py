"""The models of the acceptance run and their samples: in the project, or made here from seeded random numbers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trt_opt.samples import DIGITS

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import resnet50

CALIBRATED, JUDGED = 16, 16
"""How many samples the models made here are calibrated with and judged on."""

LAYERS, TOKENS, WIDTH, HEADS, CLASSES = 2, 32, 64, 4, 10


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and its data.

    Attributes:
        name: "digits".
        model: The ONNX file.
        calibration: Samples that ranges come from, an .npz file.
        evaluation: Other samples, with labels where there are any.
        int8_all: Whether every layer runs in INT8 that can: a search for a better choice would take too long.
        build_s: About how long TensorRT needs for one engine, seconds.
    """

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    int8_all: bool
    build_s: float


def digits(folder: Path, samples: int) -> Subject:
    """The project's own sample, judged on the first so many test images."""
    with np.load(DIGITS / "test.npz") as arrays:
        np.savez(folder / "digits_test.npz", **{name: arrays[name][:samples] for name in arrays.files})
    return Subject("digits", DIGITS / "model.onnx", DIGITS / "calibration.npz", folder / "digits_test.npz", False, 15.0)


def resnet(folder: Path) -> Subject:
    """A ResNet-50 with random weights."""
    onnx.save(resnet50.model(), folder / "resnet50.onnx")
    resnet50.samples = CALIBRATED + JUDGED
    images = [image[resnet50.INPUT] for image in resnet50.images()]
    calibration: dict[str, Any] = {resnet50.INPUT: np.concatenate(images[:CALIBRATED])}
    judged: dict[str, Any] = {resnet50.INPUT: np.concatenate(images[CALIBRATED:])}
    np.savez(folder / "resnet50_calibration.npz", **calibration)
    np.savez(folder / "resnet50_test.npz", **judged)
    return _made("resnet50", folder, 60.0)


def transformer(folder: Path, *, primitive: bool) -> Subject:
    """A transformer's encoder of two layers with random weights.

    Args:
        folder: Where its files go.
        primitive: LayerNormalization as the operators it consists of, for TensorRT 8, instead of opset 17's.
    """
    onnx.save(transformer_model(primitive=primitive), folder / "transformer.onnx")
    shape = (TOKENS, WIDTH)
    random = np.random.default_rng(1).standard_normal((CALIBRATED + JUDGED, *shape)).astype(np.float32)
    np.savez(folder / "transformer_calibration.npz", tokens=random[:CALIBRATED])
    np.savez(folder / "transformer_test.npz", tokens=random[CALIBRATED:])
    return _made("transformer", folder, 30.0)


def _made(name: str, folder: Path, build_s: float) -> Subject:
    data = folder / f"{name}_calibration.npz", folder / f"{name}_test.npz"
    return Subject(name, folder / f"{name}.onnx", *data, int8_all=True, build_s=build_s)


def witness_model() -> onnx.ModelProto:
    """One convolution unlike any of the other models', whose timings are few."""
    weight = np.random.default_rng(2).standard_normal((24, 5, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="witness", pads=[1, 1, 1, 1])
    return _model([node], ("x", [1, 5, 20, 20]), ("y", [1, 24, 20, 20]), {"w": weight})


def transformer_model(*, primitive: bool) -> onnx.ModelProto:
    """Tokens float32 [1, 32, 64] → logits [1, 32, 10]."""
    graph = _Encoder(primitive=primitive)
    tensor = "tokens"
    for layer in range(LAYERS):
        tensor = graph.layer(f"layer{layer}", tensor)
    logits = graph.linear("classes", tensor, (WIDTH, CLASSES))
    graph.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
    ends = ("tokens", [1, TOKENS, WIDTH]), ("logits", [1, TOKENS, CLASSES])
    return _model(graph.nodes, *ends, graph.constants)


class _Encoder:
    """Writes the nodes of an encoder."""

    def __init__(self, *, primitive: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self._primitive = primitive
        self._random = np.random.default_rng(0)

    def layer(self, name: str, tensor: str) -> str:
        """Attention and a perceptron, each behind a normalisation and beside a shortcut."""
        attended = self._attention(f"{name}/attention", self._normalised(f"{name}/norm1", tensor))
        tensor = self._node("Add", f"{name}/add1", tensor, attended)
        wide = self.linear(f"{name}/up", self._normalised(f"{name}/norm2", tensor), (WIDTH, 4 * WIDTH))
        narrow = self.linear(f"{name}/down", self._node("Relu", f"{name}/relu", wide), (4 * WIDTH, WIDTH))
        return self._node("Add", f"{name}/add2", tensor, narrow)

    def linear(self, name: str, tensor: str, shape: tuple[int, int]) -> str:
        """A matrix product with weights, and a bias."""
        weight = self._random.standard_normal(shape) / np.sqrt(shape[0])
        product = self._node("MatMul", f"{name}/matmul", tensor, self._constant(f"{name}/weight", weight))
        bias = self._constant(f"{name}/bias", self._random.standard_normal(shape[1]) * 0.02)
        return self._node("Add", f"{name}/bias_add", product, bias)

    def _attention(self, name: str, tensor: str) -> str:
        query, key, value = (self._heads(f"{name}/{part}", tensor) for part in ("query", "key", "value"))
        turned = self._node("Transpose", f"{name}/turn", key, perm=[0, 1, 3, 2])
        product = self._node("MatMul", f"{name}/scores", query, turned)
        scaled = self._node("Mul", f"{name}/scale", product, self._constant("scale", np.sqrt(HEADS / WIDTH)))
        shares = self._node("Softmax", f"{name}/softmax", scaled, axis=-1)
        mixed = self._node("MatMul", f"{name}/mix", shares, value)
        together = self._node("Transpose", f"{name}/join", mixed, perm=[0, 2, 1, 3])
        flat = self._node("Reshape", f"{name}/flat", together, self._integers("flat", [1, TOKENS, WIDTH]))
        return self.linear(f"{name}/output", flat, (WIDTH, WIDTH))

    def _heads(self, name: str, tensor: str) -> str:
        sizes = self._integers("heads", [1, TOKENS, HEADS, WIDTH // HEADS])
        apart = self._node("Reshape", f"{name}/split", self.linear(name, tensor, (WIDTH, WIDTH)), sizes)
        return self._node("Transpose", f"{name}/order", apart, perm=[0, 2, 1, 3])

    def _normalised(self, name: str, tensor: str) -> str:
        scale = self._constant(f"{name}/scale", 1 + self._random.standard_normal(WIDTH) * 0.05)
        bias = self._constant(f"{name}/bias", self._random.standard_normal(WIDTH) * 0.05)
        if not self._primitive:
            return self._node("LayerNormalization", name, tensor, scale, bias, axis=-1, epsilon=1e-5)
        mean = self._node("ReduceMean", f"{name}/mean", tensor, axes=[-1])
        centred = self._node("Sub", f"{name}/centre", tensor, mean)
        square = self._node("Mul", f"{name}/square", centred, centred)
        variance = self._node("ReduceMean", f"{name}/variance", square, axes=[-1])
        safe = self._node("Add", f"{name}/epsilon", variance, self._constant("epsilon", 1e-5))
        even = self._node("Div", f"{name}/divide", centred, self._node("Sqrt", f"{name}/sqrt", safe))
        return self._node("Add", f"{name}/shift", self._node("Mul", f"{name}/stretch", even, scale), bias)

    def _node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        output = f"{name}_output"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def _constant(self, name: str, values: NDArray[np.floating] | float) -> str:
        self.constants[name] = np.asarray(values, np.float32)
        return name

    def _integers(self, name: str, values: list[int]) -> str:
        self.constants[name] = np.asarray(values, np.int64)
        return name


def _model(
    nodes: list[onnx.NodeProto],
    taken: tuple[str, list[int]],
    given: tuple[str, list[int]],
    constants: dict[str, NDArray[np.generic]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "acceptance",
        [helper.make_tensor_value_info(taken[0], TensorProto.FLOAT, taken[1])],
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
