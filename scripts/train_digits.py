"""Trains the sample in `trt_opt/samples/digits` and writes its model, calibration data and test data.

    pip install -e ".[train]"
    python scripts/train_digits.py --output trt_opt/samples/digits

The network is small and has one of each thing the tool must get right: BatchNormalization (written as such, not
folded), a residual Add, a Concat, depthwise and pointwise convolutions, pooling and Gemm.

On one machine, two runs write the same bytes. On another, the CPU's instruction set and the version of PyTorch change
how sums are rounded, and with that the weights and a few tenths of a point of accuracy. The images and labels in the
data files stay the same; how they are compressed depends on zlib.
"""

from __future__ import annotations

import argparse
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, fx, nn
from torch.nn import functional

SEED = 20
TEST_SAMPLES = 450
CALIBRATION_SAMPLES = 128
EPOCHS = 60
BATCH = 64
PEAK_LEARNING_RATE = 4e-3
OPSET = 17
IR_VERSION = 8
EXPORT_TOLERANCE = 1e-5
"""How far ONNX Runtime's logits may lie from PyTorch's."""


class Add(nn.Module):
    """The sum of two tensors, as a module so that it has a name."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Adds two tensors of one shape."""
        return left + right


class Concat(nn.Module):
    """Two tensors joined along their channels, as a module so that it has a name."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Joins `[N, A, H, W]` and `[N, B, H, W]` to `[N, A + B, H, W]`."""
        return torch.cat((left, right), dim=1)


def convolution(inputs: int, outputs: int, kernel: int, *, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution that keeps the image's size, with BatchNormalization and, unless declined, ReLU."""
    layers: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)),
        ("bn", nn.BatchNorm2d(outputs)),
    ]
    return nn.Sequential(OrderedDict([*layers, ("relu", nn.ReLU())] if relu else layers))


class Residual(nn.Module):
    """Two convolutions around which the input is carried and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels, 3)
        self.second = convolution(channels, channels, 3, relu=False)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Maps `[N, C, H, W]` to the same shape."""
        return self.relu(self.add(self.second(self.first(features)), features))


class Branches(nn.Module):
    """A pointwise and a 3x3 convolution side by side, their channels joined."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = convolution(inputs, outputs // 2, 1)
        self.wide = convolution(inputs, outputs // 2, 3)
        self.concat = Concat()

    def forward(self, features: Tensor) -> Tensor:
        """Maps `[N, inputs, H, W]` to `[N, outputs, H, W]`."""
        return self.concat(self.narrow(features), self.wide(features))


def digits_network() -> nn.Sequential:
    """The untrained network: `[N, 1, 8, 8]`, grey values 0 to 1, to logits `[N, 10]`.

    Every hidden layer has at least 32 channels: below 16, INT8 gains nothing.
    """
    separable = nn.Sequential(
        OrderedDict(depthwise=convolution(32, 32, 3, groups=32), pointwise=convolution(32, 64, 1))
    )
    head = nn.Sequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            hidden=nn.Linear(64, 64),
            relu=nn.ReLU(),
            logits=nn.Linear(64, 10),
        )
    )
    return nn.Sequential(
        OrderedDict(
            stem=convolution(1, 32, 3),
            block1=Residual(32),
            pool=nn.MaxPool2d(2),
            block2=separable,
            block3=Branches(64, 64),
            head=head,
        )
    )


@dataclass(frozen=True)
class Split:
    """Images, float32 `[N, 1, 8, 8]` from 0 to 1, and their labels, int64 `[N]`."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_splits() -> tuple[Split, Split, Split]:
    """Train, calibration and test: disjoint, and each with about as many images of every digit."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST_SAMPLES, stratify=labels, random_state=SEED)
    training, calibration = train_test_split(
        rest, test_size=CALIBRATION_SAMPLES, stratify=labels[rest], random_state=SEED
    )
    return tuple(Split(images[chosen], labels[chosen]) for chosen in (training, calibration, test))


def distorted(images: Tensor) -> Tensor:
    """Each image turned by up to 10 degrees, scaled by up to 10 % and moved by up to one pixel."""
    angle, scale, right, down = (torch.rand(4, len(images)) * 2 - 1) * torch.tensor(
        [math.radians(10), 0.1, 2 / images.shape[-1], 2 / images.shape[-2]]
    ).unsqueeze(1)
    cosine, sine = torch.cos(angle) * (1 + scale), torch.sin(angle) * (1 + scale)
    maps = torch.stack((cosine, -sine, right, sine, cosine, down), dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(network: nn.Module, split: Split) -> None:
    """Trains the network in place and leaves it in evaluation mode."""
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    steps = len(images) // BATCH
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=EPOCHS * steps)
    network.train()
    for epoch in range(EPOCHS):
        loss_sum = 0.0
        for chosen in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            loss = functional.cross_entropy(network(distorted(images[chosen])), labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            loss_sum += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d} of {EPOCHS}: mean loss {loss_sum / steps:.4f}")
    network.eval()


class NamedLayers(fx.Tracer):
    """Records the network as calls of its innermost modules, each of which has a name."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        """Whether a module is recorded as one call."""
        return next(m.children(), None) is None


def onnx_model(network: nn.Module) -> onnx.ModelProto:
    """The trained network as an ONNX graph: one node per module, `block1.add` becoming `block1/add`.

    Written by hand because an exporter folds BatchNormalization away or names nodes after its own version.
    """
    recorded = NamedLayers().trace(network)
    layers = [step for step in recorded.nodes if step.op == "call_module"]
    tensors = {step: "image" for step in recorded.nodes if step.op == "placeholder"}
    tensors |= {step: f"{_path(step.target)}_output" for step in layers} | {layers[-1]: "logits"}
    nodes, weights = [], []
    for step in layers:
        module, name = network.get_submodule(step.target), _path(step.target)
        op_type, parameters, attributes = onnx_operator(module)
        stored = [f"{name}/{parameter}" for parameter in parameters]
        for key, parameter in zip(stored, parameters, strict=True):
            weights.append(numpy_helper.from_array(getattr(module, parameter).detach().numpy(), key))
        inputs = [tensors[argument] for argument in step.args] + stored
        nodes.append(helper.make_node(op_type, inputs, [tensors[step]], name=name, **attributes))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="trt-opt scripts/train_digits.py",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _path(target: str) -> str:
    return target.replace(".", "/")


def onnx_operator(module: nn.Module) -> tuple[str, Sequence[str], dict[str, object]]:
    """ONNX's operator for a module, the module's parameters in the order of its inputs, and its attributes.

    Raises:
        TypeError: The network uses a module that is not translated here.
    """
    translated: tuple[str, Sequence[str], dict[str, object]]
    match module:
        case nn.Conv2d():
            translated = "Conv", ("weight",), _window(module) | {"group": module.groups}
        case nn.BatchNorm2d():
            statistics = ("weight", "bias", "running_mean", "running_var")
            translated = "BatchNormalization", statistics, {"epsilon": module.eps}
        case nn.Linear():
            translated = "Gemm", ("weight", "bias"), {"transB": 1}
        case nn.MaxPool2d():
            size = module.kernel_size
            translated = "MaxPool", (), {"kernel_shape": [size, size], "strides": [size, size]}
        case nn.AdaptiveAvgPool2d():
            translated = "GlobalAveragePool", (), {}
        case nn.Flatten() | Concat():
            translated = type(module).__name__, (), {"axis": 1}
        case nn.ReLU():
            translated = "Relu", (), {}
        case Add():
            translated = "Add", (), {}
        case _:
            raise TypeError(f"no ONNX operator is written down here for {type(module).__name__}")
    return translated


def _window(convolution: nn.Conv2d) -> dict[str, object]:
    """A convolution's window; ONNX wants the padding before and after each axis."""
    return {
        "kernel_shape": list(convolution.kernel_size),
        "strides": list(convolution.stride),
        "pads": list(convolution.padding) * 2,
    }


def logits_from_onnx(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's logits `[N, 10]`, computed by ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def accuracy_pct(model: onnx.ModelProto, split: Split) -> float:
    """How many of the images the model gets right."""
    return 100.0 * float(np.mean(logits_from_onnx(model, split.images).argmax(axis=1) == split.labels))


def check_export(network: nn.Module, model: onnx.ModelProto, images: NDArray[np.float32]) -> None:
    """Compares the logits of PyTorch and ONNX Runtime.

    Raises:
        ValueError: They differ by more than the tolerance.
    """
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    error = float(np.abs(expected - logits_from_onnx(model, images)).max())
    if not error <= EXPORT_TOLERANCE:
        raise ValueError(f"the ONNX model's logits differ from PyTorch's by {error:.2e}, over {EXPORT_TOLERANCE:.0e}")
    print(f"largest difference between PyTorch and ONNX Runtime: {error:.1e}")


def main() -> None:
    """Trains, checks and writes the sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder to write to")
    output: Path = parser.parse_args().output
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)

    training, calibration, test = load_splits()
    network = digits_network()
    train(network, training)
    model = onnx_model(network)
    check_export(network, model, test.images)

    output.mkdir(parents=True, exist_ok=True)
    model_path, calibration_path, test_path = (output / name for name in ("model.onnx", "calibration.npz", "test.npz"))
    model_path.write_bytes(model.SerializeToString(deterministic=True))
    # Safe to repeat: NumPy stamps the members of an .npz with 1980, not with the time of writing.
    np.savez_compressed(calibration_path, image=calibration.images)
    np.savez_compressed(test_path, image=test.images, labels=test.labels)

    print(f"parameters                {sum(parameter.numel() for parameter in network.parameters()):>10,}")
    print(f"train accuracy            {accuracy_pct(model, training):>10.2f} %  of {len(training.labels)} images")
    print(f"test accuracy             {accuracy_pct(model, test):>10.2f} %  of {len(test.labels)} images")
    for path in (model_path, calibration_path, test_path):
        print(f"{path.name:<26}{path.stat().st_size:>10,} bytes")


if __name__ == "__main__":
    main()
