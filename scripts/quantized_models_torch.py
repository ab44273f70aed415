"""Networks that PyTorch and torchao quantise, and the ONNX models their exporters write."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping

import onnx
import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    fake_quantize,
    get_default_qconfig_mapping,
    quantize_fx,
)
from torch.ao.quantization.backend_config import get_native_backend_config, get_tensorrt_backend_config
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import Quantizer
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

SEED = 20261124
NORMALIZATION_PASSES = 40
"""Passes over the images after which BatchNorm2d's running statistics (momentum 0.1) are those of the images."""
IN, OUT = "image", "logits"
LEVELS = 127


class TinyNetwork(nn.Module):
    """One of each: Conv-BN-ReLU, depthwise, pointwise, residual Add, MaxPool, Concat, average pooling, Linear.

    An average of nine integers never lies between two: with four or sixteen, which PyTorch puts on the grid of what is
    averaged, every fourth or sixteenth would, and a grid moved by an odd zero-point rounds these the other way.

    Args:
        upsampling: A transposed convolution, whose weight's output channels lie on axis 1, behind the Concat.
    """

    def __init__(self, upsampling: bool = False) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.depthwise_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.pointwise, self.pointwise_norm = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 16, 2, stride=2) if upsampling else nn.Identity()
        self.average = nn.AvgPool2d(3, stride=5 if upsampling else 1)
        self.flatten, self.classifier = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits `[N, 10]` of images `[N, 1, 8, 8]`."""
        first = self.relu1(self.stem_norm(self.stem(image)))
        second = self.pointwise_norm(self.pointwise(self.relu2(self.depthwise_norm(self.depthwise(first)))))
        pooled = self.pool(self.relu3(first + second))
        both = torch.cat([self.left(pooled), self.right(pooled)], 1)
        return self.classifier(self.flatten(self.average(self.up(both))))


def tiny_network(images: torch.Tensor, upsampling: bool = False) -> TinyNetwork:
    """The network with random weights, always the same, and statistics of these images.

    The classifier is scaled so that over the images every logit has mean 0 and deviation 1: without that, all images
    get almost the same logits, and a comparison would see the biases alone.
    """
    torch.manual_seed(SEED)
    network = TinyNetwork(upsampling).train()
    with torch.no_grad():
        for _ in range(NORMALIZATION_PASSES):
            network(images)
        logits, classifier = network.eval()(images), network.classifier
        deviation, mean = torch.std_mean(logits, 0)
        classifier.weight /= deviation[:, None]
        classifier.bias.copy_((classifier.bias - mean) / deviation)
    return network


def fx_fake_quantized(images: torch.Tensor, activations: torch.dtype, per_channel: bool) -> onnx.ModelProto:
    """FX graph mode's QAT network in evaluation mode: fake quantisation of activations and float weights.

    INT8 activations are known to the TensorRT backend's settings alone; the others would leave them in float.
    Its fused fake quantisation has no ONNX form, so the unfused modules are asked for, as PyTorch's users do.
    """
    low, high = (0, 255) if activations == torch.quint8 else (-128, 127)
    backend = get_native_backend_config() if activations == torch.quint8 else get_tensorrt_backend_config()
    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=low, quant_max=high, dtype=activations
    )
    weight = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver if per_channel else MovingAverageMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
    )
    mapping = QConfigMapping().set_global(QConfig(activation, weight))
    network = quantize_fx.prepare_qat_fx(tiny_network(images).train(), mapping, (images[:2],), backend_config=backend)
    with torch.no_grad():
        network(images)
    network.eval().apply(fake_quantize.disable_observer)
    return traced(network, images, 17)


def fx_converted(images: torch.Tensor, backend: str) -> onnx.ModelProto:
    """FX graph mode's PTQ network, converted to PyTorch's quantised operators."""
    network = quantize_fx.prepare_fx(tiny_network(images), get_default_qconfig_mapping(backend), (images[:2],))
    with torch.no_grad():
        network(images)
    return traced(quantize_fx.convert_fx(network), images, 17)


def x86_quantizer() -> Quantizer:
    """UINT8 activations, INT8 weights per channel."""
    return X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())


def xnnpack_quantizer(per_channel: bool) -> Quantizer:
    """INT8 activations with zero-points, INT8 weights."""
    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=per_channel))


def pt2e_quantized(images: torch.Tensor, quantizer: Quantizer) -> onnx.ModelProto:
    """What torchao's PT2E flow and `torch.onnx.export(dynamo=True)` write."""
    exported = torch.export.export(tiny_network(images), (images[:2],), dynamic_shapes=_any_batch()).module()
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        prepared(images)
    program = torch.onnx.export(
        convert_pt2e(prepared),
        (images[:2],),
        dynamo=True,
        input_names=[IN],
        output_names=[OUT],
        dynamic_shapes=_any_batch(),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program.model_proto


class TensorQuantizer(nn.Module):
    """Symmetric fake quantisation with an `amax` buffer: the calls pytorch-quantization and ModelOpt make.

    Args:
        amax: The largest magnitude, one number or one per channel.
        axis: The channels' axis; None for one scale.
    """

    amax: torch.Tensor

    def __init__(self, amax: torch.Tensor, axis: int | None = None) -> None:
        super().__init__()
        self.register_buffer("amax", amax)
        self.axis = axis

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values on their grid. Scales are FP32, so half-precision values go through FP32 and back."""
        if values.dtype == torch.half:
            return self._fake_quantized(values.float(), self.amax.float()).half()
        return self._fake_quantized(values, self.amax)

    def _fake_quantized(self, values: torch.Tensor, amax: torch.Tensor) -> torch.Tensor:
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, amax.item() / LEVELS, 0, -LEVELS - 1, LEVELS)
        zeros = torch.zeros_like(amax, dtype=torch.int32)
        scales = (amax / LEVELS).data
        return torch.fake_quantize_per_channel_affine(values, scales, zeros, self.axis, -LEVELS - 1, LEVELS)


class QuantizedLayer(nn.Module):
    """A convolution or Linear with a quantiser for its input and one for its weight, like `QuantConv2d`."""

    def __init__(self, layer: nn.Module, input_amax: torch.Tensor) -> None:
        super().__init__()
        self.layer = layer
        weight = layer.weight.detach()
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        others = tuple(number for number in range(weight.ndim) if number != axis)
        self.input_quantizer = TensorQuantizer(input_amax)
        self.weight_quantizer = TensorQuantizer(weight.abs().amax(others), axis)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The layer on quantised values with a quantised weight."""
        values, weight, layer = self.input_quantizer(values), self.weight_quantizer(self.layer.weight), self.layer
        functional = nn.functional
        if isinstance(layer, nn.ConvTranspose2d):
            return functional.conv_transpose2d(values, weight, layer.bias, layer.stride)
        if isinstance(layer, nn.Conv2d):
            return functional.conv2d(
                values, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        return functional.linear(values, weight, layer.bias)


def nvidia_quantized(images: torch.Tensor, half: bool) -> onnx.ModelProto:
    """A network with NVIDIA's quantisers at every convolution and Linear, in FP32 or FP16."""
    network = tiny_network(images, upsampling=True)
    layers = {
        name: layer
        for name, layer in network.named_children()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    }
    largest = _largest_inputs(network, layers, images)
    for name, layer in layers.items():
        setattr(network, name, QuantizedLayer(layer, largest[name]))
    if half:
        return traced(network.half(), images.half(), 19)
    return traced(network, images, 17)


def _largest_inputs(
    network: nn.Module, layers: Mapping[str, nn.Module], images: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The largest magnitude that goes into each layer."""
    found: dict[str, torch.Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, inputs: found.update({name: inputs[0].abs().max()})

    hooks = [layer.register_forward_pre_hook(recorder(name)) for name, layer in layers.items()]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def traced(network: nn.Module, images: torch.Tensor, opset: int) -> onnx.ModelProto:
    """What the tracing exporter writes, the only one that knows PyTorch's fake and quantised operators."""
    file = io.BytesIO()
    torch.onnx.export(
        copy.deepcopy(network),
        (images[:2],),
        file,
        dynamo=False,
        opset_version=opset,
        input_names=[IN],
        output_names=[OUT],
        dynamic_axes={IN: {0: "batch"}, OUT: {0: "batch"}},
    )
    return onnx.load_from_string(file.getvalue())


def _any_batch() -> dict[str, dict[int, torch.export.Dim]]:
    return {IN: {0: torch.export.Dim("batch")}}
