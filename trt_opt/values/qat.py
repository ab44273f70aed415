"""What a PyTorch training needs to know to quantise where TensorRT will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trt_opt.values.placement import Reader
from trt_opt.values.precision import LayerDecision
from trt_opt.values.samples import DataProvenance


@dataclass(frozen=True, slots=True)
class QatInput:
    """A graph input.

    Attributes:
        name: Its name.
        shape: Its dimensions; a name for one that changes.
    """

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class QatLayer:
    """A node with constant weights, and the quantiser of these.

    Attributes:
        node: The node's name.
        kind: "Conv", "ConvTranspose" or "Linear" (Gemm and MatMul).
        weight: The initialiser in the file as given, before anything was folded into it; None if there is none.
        shape: The weights' shape as ONNX has them.
        axis: The output-channel axis of that shape; None where the layer stays in float.
        scales: One scale per output channel, of the weights with BatchNormalization folded in; empty in float.
    """

    node: str
    kind: str
    weight: str | None
    shape: tuple[int, ...]
    axis: int | None = None
    scales: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class QatPlace:
    """How to find a node without weights that reads quantised tensors, in another tracing of the same model.

    Attributes:
        node: The node's name.
        kind: What it does: "Add", "Concat", "MaxPool", "AveragePool", "Reshape" …
        operands: For each tensor that it reads the layers nearest above it, at most four, or the graph's input.
        alike: How many nodes agree in kind and operands.
        position: Which of these it is, from 0, in graph order.
    """

    node: str
    kind: str
    operands: tuple[tuple[str, ...], ...]
    alike: int
    position: int


@dataclass(frozen=True, slots=True)
class QatQuantizer:
    """A Q/DQ pair on an activation.

    Attributes:
        tensor: The tensor, in the rewritten graph.
        scale: Which of the activation scales it uses; inputs of a Concat name the same.
        readers: The node inputs that read the quantised tensor.
    """

    tensor: str
    scale: str
    readers: tuple[Reader, ...]


@dataclass(frozen=True, slots=True)
class QatConfiguration:
    """Placement and initial scales of symmetric INT8 quantisation, for training.

    Attributes:
        model: The float model's file.
        model_sha256: The hash of its content.
        data: The samples that the activation scales come from.
        calibrator: The algorithm that chose their thresholds.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        activation_scales: Scale name → initial scale (threshold / 127).
        activations: The quantisers of activations, in graph order.
        layers: All nodes with constant weights, in graph order.
        places: The other nodes that read quantised tensors.
        float_layers: What stays in float, and why.
    """

    model: str
    model_sha256: str
    data: DataProvenance
    calibrator: str
    inputs: tuple[QatInput, ...]
    outputs: tuple[str, ...]
    activation_scales: Mapping[str, float]
    activations: tuple[QatQuantizer, ...]
    layers: tuple[QatLayer, ...]
    places: tuple[QatPlace, ...]
    float_layers: tuple[LayerDecision, ...]


@dataclass(frozen=True, slots=True)
class QatFolder:
    """The files that were written for a training.

    Attributes:
        folder: Where.
        files: Their names.
        configuration: What is in `qat.json`.
    """

    folder: str
    files: tuple[str, ...]
    configuration: QatConfiguration
