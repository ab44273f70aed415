"""Small classifiers with one layer that INT8 ruins, each for another reason; nothing is trained, all is seeded.

The features come from random layers, the last layer from the means of the classes' features. Labels are what the float
model says, of samples it is sure of, so its accuracy is 100 %. The layer at fault computes what a healthy one would
compute, only in numbers that one scale per tensor cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import onnx
from graphs import model_of, node, weights
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner

Floats = NDArray[np.float32]

CLASSES = 16
"""As many as make the last layer wide enough for INT8."""

SAMPLES = 96
"""Evaluation samples before the doubtful ones are taken out; half as many for calibration."""

SURE = 0.25
"""The least lead of the best class, of what it is in the middle: INT8 that works must not turn a label."""


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A model with a fault.

    Attributes:
        model: The float model, as exported: batch normalisations are not folded.
        calibration: Input → samples, first axis the number of samples, for an .npz file.
        evaluation: The same, other samples.
        labels: int64, one for each evaluation sample: the float model's own answers.
        guilty: The node that must stay in float.
        activation_products: Whether it is quantised only where products of activations are.
    """

    model: onnx.ModelProto
    calibration: Mapping[str, Floats]
    evaluation: Mapping[str, Floats]
    labels: NDArray[np.int64]
    guilty: str
    activation_products: bool = False

    @property
    def labelled(self) -> dict[str, NDArray[np.generic]]:
        """The evaluation samples with their labels, for an .npz file."""
        return {**self.evaluation, "labels": self.labels}


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The layers before the classifier: `x` goes in, float32 [1, features] `features` comes out."""

    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, NDArray[np.generic]]
    guilty: str
    activation_products: bool = False


def outlier_channel(factor: float = 400) -> Planted:
    """One of 16 channels is 400 times as large as the others, and read with weights 400 times as small."""
    constants = _convolutions(3, 16, 16, 32)
    constants["w2"][5] *= factor
    constants["w3"][:, 5] /= factor
    return _planted(Body(_chain(3), constants, "conv3"), _images(3))


def squared_activation(strong: float = 40) -> Planted:
    """A power spectrum: weak tones tell the class, behind a logarithm, beside one of a thousand times their power."""
    generator = np.random.default_rng(2)
    frame, bins = 64, 16
    angles = 2 * np.pi * np.outer(np.arange(1, bins + 1) * 2 - 1, np.arange(frame)) / frame
    window = np.hanning(frame + 1)[:-1]
    waves = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    bands = np.concatenate([np.eye(bins), np.eye(bins)], axis=1)
    constants = {
        "waves": waves.reshape(2 * bins, 1, 1, frame).astype(np.float32),
        "bands": bands.reshape(bins, 2 * bins, 1, 1).astype(np.float32),
        "floor": np.float32(1e-3),
        "w4": weights(32, bins, 1, 1, seed=4, scale=0.25),
        "b4": weights(32, seed=5, scale=0.5),
    }
    nodes = [
        node("Conv", "spectrum", ["x", "waves"], "waved", strides=[1, 32]),
        node("Mul", "square", ["waved", "waved"], "power"),
        node("Conv", "bands", ["power", "bands"], "banded"),
        node("Add", "floor", ["banded", "floor"], "floored"),
        node("Log", "log", ["floored"], "loudness"),
        node("Conv", "conv4", ["loudness", "w4", "b4"], "c4"),
        node("Relu", "relu4", ["c4"], "r4"),
        node("GlobalAveragePool", "average", ["r4"], "averaged"),
        node("Flatten", "flatten", ["averaged"], "features"),
    ]
    loud = generator.integers(2, size=(CLASSES, bins)) * 0.8 + 0.2
    loud[:, 3] = 0.0

    def samples(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
        drawn = np.random.default_rng(seed)
        classes = np.arange(count) % CLASSES
        times = np.arange(frame * 8)
        turns = 2 * np.pi * (np.outer(np.arange(1, bins + 1) * 2 - 1, times) / frame)
        phases = drawn.uniform(0, 2 * np.pi, (count, bins, 1))
        weak = loud[classes][..., None] * drawn.uniform(0.8, 1.25, (count, bins, 1))
        tone = strong * drawn.uniform(0.9, 1.1, (count, 1)) * np.sin(turns[3] + phases[:, 3])
        waves = (weak * np.sin(turns + phases)).sum(1) + tone
        return waves.reshape(count, 1, 1, -1).astype(np.float32), classes

    return _planted(Body(nodes, constants, "bands"), samples)


def tiny_variance(alike: float = 0.05) -> Planted:
    """A BatchNormalization of variance 1e-9 behind a convolution that takes the difference of near twins."""
    constants = _convolutions(8, 16, 16, 32)
    # Channels 2k and 2k + 1 of the input are twins but for what the class decides.
    constants["w1"][:, 1::2] = -constants["w1"][:, ::2]
    constants |= {
        "gamma": np.ones(16, np.float32),
        "beta": weights(16, seed=8, scale=0.3),
        "mean": np.zeros(16, np.float32),
        "variance": np.full(16, 1e-9, np.float32),
    }
    nodes = list(_chain(3))
    nodes[0] = node("Conv", "conv1", ["x", "w1", "b1"], "n1", pads=[1, 1, 1, 1])
    nodes.insert(1, node("BatchNormalization", "norm1", ["n1", "gamma", "beta", "mean", "variance"], "c1", epsilon=0.0))
    constants["b1"] = np.zeros(16, np.float32)

    images = _images(4)

    def samples(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
        told, classes = images(count, seed)
        both = np.random.default_rng(seed + 1).uniform(0, alike, told.shape)
        twins = np.stack([both, both + 2e-5 * told], axis=2).reshape(count, 8, *told.shape[2:])
        return twins.astype(np.float32), classes

    return _planted(Body(nodes, constants, "conv1"), samples)


def unequal_depthwise(most: float = 1000) -> Planted:
    """A depthwise convolution whose 16 channels have ranges from 1 to 1000, evened out by its weights."""
    constants = _convolutions(3, 16, 16, 32)
    sizes = np.geomspace(1, most, 16).astype(np.float32)
    constants["w2"] = weights(16, 1, 3, 3, seed=2, scale=0.5)
    constants["w1"] *= sizes[:, None, None, None]
    constants["b1"] *= sizes
    constants["w2"] /= sizes[:, None, None, None]
    nodes = list(_chain(3))
    nodes[2] = node("Conv", "depthwise", ["r1", "w2", "b2"], "c2", pads=[1, 1, 1, 1], group=16)
    return _planted(Body(nodes, constants, "depthwise"), _images(3))


def attention_probabilities(sharpness: float = 3) -> Planted:
    """Half of the rows of a softmax over 512 keys look at all of them, half at a few: 0.002 and 1 in one tensor."""
    length, width = 512, 32
    constants: dict[str, NDArray[np.generic]] = {
        "wq": weights(width, width, seed=1, scale=0.18),
        "wk": weights(width, width, seed=2, scale=0.18),
        "wv": weights(width, width, seed=3, scale=0.18),
        "wo": weights(width, width, seed=4, scale=0.18),
        "scale": np.float32(1 / np.sqrt(width)),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        node("MatMul", "query", ["x", "wq"], "q"),
        node("MatMul", "key", ["x", "wk"], "k"),
        node("MatMul", "value", ["x", "wv"], "v"),
        node("Transpose", "turn", ["k"], "kt", perm=[0, 2, 1]),
        node("MatMul", "scores", ["q", "kt"], "s"),
        node("Mul", "scaled", ["s", "scale"], "t"),
        node("Softmax", "softmax", ["t"], "p", axis=-1),
        node("MatMul", "context", ["p", "v"], "c"),
        node("MatMul", "out", ["c", "wo"], "o"),
        node("Tanh", "tanh", ["o"], "h"),
        node("ReduceMean", "average", ["h", "axis"], "features", keepdims=0),
    ]
    prototypes = np.random.default_rng(9).standard_normal((CLASSES, width))
    registers = sharpness * np.random.default_rng(10).standard_normal((length // 2, width))

    def samples(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
        drawn = np.random.default_rng(seed)
        classes = np.arange(count) % CLASSES
        tokens = 0.1 * (prototypes[classes][:, None] + drawn.standard_normal((count, length, width)))
        tokens[:, 1::2] += registers
        return tokens.astype(np.float32), classes

    return _planted(Body(nodes, constants, "context", activation_products=True), samples)


PLANTED: Mapping[str, Callable[[], Planted]] = MappingProxyType(
    {
        "outlier_channel": outlier_channel,
        "squared_activation": squared_activation,
        "tiny_variance": tiny_variance,
        "unequal_depthwise": unequal_depthwise,
        "attention_probabilities": attention_probabilities,
    }
)
"""Name → builder. Its argument is how large the fault is; the default ruins the model in INT8."""

Draw = Callable[[int, int], tuple[Floats, NDArray[np.int64]]]
"""Number of samples and seed → samples and the class each was made for."""


def _planted(body: Body, draw: Draw) -> Planted:
    """The body with a classifier behind it, and samples that it is sure of."""
    calibration, _ = draw(SAMPLES // 2, 100)
    evaluation, _ = draw(SAMPLES, 200)
    shape = [1, *calibration.shape[1:]]
    first, last = _classifier(_outputs(_model(body, shape), "features", draw(SAMPLES, 300)[0]), draw(SAMPLES, 300)[1])
    whole = Body(
        [*body.nodes, node("Gemm", "classifier", ["features", "w_class", "b_class"], "y")],
        {**body.constants, "w_class": first, "b_class": last},
        body.guilty,
    )
    model = _model(whole, shape, "y", CLASSES)
    answers = _outputs(model, "y", evaluation)
    best = np.sort(answers, axis=1)
    lead = best[:, -1] - best[:, -2]
    sure = lead > SURE * np.median(lead)
    return Planted(
        model,
        {"x": calibration},
        {"x": evaluation[sure]},
        answers[sure].argmax(1).astype(np.int64),
        body.guilty,
        body.activation_products,
    )


def _model(
    body: Body, shape: Sequence[int], output: str = "features", width: int | str = "features"
) -> onnx.ModelProto:
    return model_of(body.nodes, {"x": shape}, {output: [1, width]}, body.constants)


def _outputs(model: onnx.ModelProto, name: str, samples: Floats) -> Floats:
    with OnnxRuntimeRunner(model, optimised=False) as runner:
        return np.concatenate([runner.infer({"x": sample[None]})[name] for sample in samples]).astype(np.float32)


def _classifier(features: Floats, classes: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Weights and bias that answer with the class whose mean is nearest, each feature counted by its spread."""
    means = np.stack([features[classes == number].mean(0) for number in range(CLASSES)])
    spread = (features - means[classes]).std(0) + 1e-3 * features.std()
    scaled = (means - means.mean(0)) / spread**2
    bias = -((means - means.mean(0)) * scaled).sum(1) / 2 - scaled @ means.mean(0)
    size = np.abs(scaled).max()
    return (scaled.T / size).astype(np.float32), (bias / size).astype(np.float32)


def _convolutions(*widths: int) -> dict[str, NDArray[np.float32]]:
    """He-scaled 3x3 weights w1, w2 …, and biases b1, b2 …, from one width to the next."""
    found: dict[str, NDArray[np.float32]] = {}
    for number, (before, after) in enumerate(pairwise(widths), 1):
        found[f"w{number}"] = weights(after, before, 3, 3, seed=number, scale=float(np.sqrt(2 / (9 * before))))
        found[f"b{number}"] = weights(after, seed=10 + number, scale=0.1)
    return found


def _chain(length: int) -> list[onnx.NodeProto]:
    """Convolutions conv1 … with a Relu behind each, then the average of every channel."""
    nodes: list[onnx.NodeProto] = []
    source = "x"
    for number in range(1, length + 1):
        operands = [source, f"w{number}", f"b{number}"]
        nodes.append(node("Conv", f"conv{number}", operands, f"c{number}", pads=[1, 1, 1, 1]))
        nodes.append(node("Relu", f"relu{number}", [f"c{number}"], f"r{number}"))
        source = f"r{number}"
    return [
        *nodes,
        node("GlobalAveragePool", "average", [source], "averaged"),
        node("Flatten", "flatten", ["averaged"], "features"),
    ]


def _images(channels: int) -> Draw:
    """Smooth patterns of 12 x 12, one for each class, with noise."""
    small = np.random.default_rng(7).standard_normal((CLASSES, channels, 4, 4))
    patterns = np.kron(small, np.ones((3, 3)))

    def samples(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
        classes = np.arange(count) % CLASSES
        noise = np.random.default_rng(seed).standard_normal((count, *patterns.shape[1:]))
        return (patterns[classes] + 0.4 * noise).astype(np.float32), classes

    return samples
