"""Inserts the INT8 fake-quantisers of `qat.json` into a PyTorch model, so that it learns what TensorRT will compute.

    import qat_insert

    quantized = qat_insert.prepare(model, example_input)     # BatchNormalization folded, fake-quantisers in place
    ...                                                      # train it as before, with a small learning rate
    qat_insert.export(quantized, example_input, "qat.onnx")  # the same scales as Q/DQ; weights stored as INT8

Written by `trt-opt qat` and yours to change. It needs PyTorch 2.8 or later with `onnxscript`, and nothing else.

Activations are symmetric INT8, one scale per tensor, -128 … 127; weights are symmetric, one scale per output channel,
-127 … 127, that follows their largest magnitude. An activation's scale is learnt as `initial * exp2(drift)`, by the
gradient of LSQ (Esser et al., "Learned Step Size Quantization", 2020); tensors that a Concat joins share one.
"""

from __future__ import annotations

import copy
import json
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import fusion, parametrize

ACTIVATION_LIMITS = (-128, 127)
WEIGHT_LIMITS = (-127, 127)
OPSET = 19
INPUT = "<input>"
NEAREST = 4
"""A place is told apart by this many of the layers nearest above each of its operands, as in qat.json."""

LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    "Conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "ConvTranspose": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    "Linear": (nn.Linear,),
}
GLOBAL_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
MODULES: dict[str, tuple[type[nn.Module], ...]] = {
    "MaxPool": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    "AveragePool": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, *GLOBAL_POOLS),
    "Reshape": (nn.Flatten, nn.Unflatten),
    "Pad": (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
    "Resize": (nn.Upsample,),
    "DepthToSpace": (nn.PixelShuffle,),
    "SpaceToDepth": (nn.PixelUnshuffle,),
}
RESHAPES = (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze)
FUNCTIONS: dict[str, tuple[Callable[..., Any] | str, ...]] = {
    "Add": (operator.add, operator.iadd, torch.add, "add", "add_"),
    "Concat": (torch.cat, torch.concat),
    "MaxPool": (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
    "AveragePool": (functional.avg_pool2d, functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
    "Reshape": (*RESHAPES, "flatten", "reshape", "view", "squeeze", "unsqueeze"),
    "Transpose": (torch.transpose, torch.permute, "transpose", "permute"),
    "Pad": (functional.pad,),
    "Resize": (functional.interpolate,),
    "DepthToSpace": (functional.pixel_shuffle,),
    "SpaceToDepth": (functional.pixel_unshuffle,),
}
SHAPE_READERS = (getattr, "size", "dim", "numel")

Layers = dict[str, fx.Node]
"""ONNX node with weights → the call of its module."""

Places = dict[str, tuple[fx.Node, list[int]]]
"""ONNX node without weights → its call, and for each of ONNX's operands the position of the same one there."""


class PlacementError(ValueError):
    """A place of qat.json is not in this model, or the model is not the one that was exported."""


class _Rounded(torch.autograd.Function):
    """x → clip(round(x / scale)) · scale, exactly as ONNX's QuantizeLinear and DequantizeLinear compute it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, limits: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.limits = limits
        return torch.clamp(torch.round(x / scale), *limits) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        low, high = ctx.limits
        steps, (gradient,) = x / scale, gradients
        inside = (steps >= low) & (steps <= high)
        for_scale = None
        if ctx.needs_input_grad[1]:
            error = torch.where(inside, torch.round(steps) - steps, torch.clamp(steps, low, high))
            for_scale = (gradient * error).sum() / math.sqrt(x.numel() * high)
        return gradient * inside, for_scale, None


def _rounded(x: Tensor, scale: Tensor, limits: tuple[int, int]) -> Tensor:
    found: Tensor = _Rounded.apply(x, scale, limits)  # type: ignore[no-untyped-call]
    return found


def _onnx(name: str, operands: Sequence[Tensor], dtype: torch.dtype, shape: Sequence[Any], **attrs: Any) -> Tensor:
    """One ONNX operator, for the exporter."""
    return torch.onnx.ops.symbolic(name, operands, attrs=attrs, dtype=dtype, shape=shape, version=OPSET)


class FakeQuantize(nn.Module):
    """An activation on its INT8 grid. One object stands wherever one scale is shared.

    Args:
        scale: The initial scale.
        learn: Whether training moves it.
    """

    initial: Tensor
    frozen_scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: float, *, learn: bool) -> None:
        super().__init__()
        self.register_buffer("initial", torch.tensor(scale, dtype=torch.float32))
        self.drift = nn.Parameter(torch.zeros(()), requires_grad=learn)
        self.exporting = False

    def scale(self) -> Tensor:
        """The scale as it is now."""
        return self.initial * torch.exp2(self.drift)

    def freeze(self) -> None:
        """Makes the scale a constant, and the module write Q/DQ."""
        self.register_buffer("frozen_scale", self.scale().detach().clone())
        self.register_buffer("zero_point", torch.zeros_like(self.initial, dtype=torch.int8))
        self.exporting = True

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, float32; the same comes out."""
        if not self.exporting:
            return _rounded(x, self.scale(), ACTIVATION_LIMITS)
        grid = (self.frozen_scale, self.zero_point)
        stored = _onnx("QuantizeLinear", (x, *grid), torch.int8, x.shape)
        return _onnx("DequantizeLinear", (stored, *grid), torch.float32, x.shape)


class FakeQuantizeWeight(nn.Module):
    """A parametrisation: weights on an INT8 grid whose 127 is the channel's largest magnitude.

    Args:
        axis: The output-channel axis.
    """

    stored: Tensor
    frozen_scale: Tensor
    zero_point: Tensor

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.exporting = False

    def scale(self, weight: Tensor) -> Tensor:
        """One scale per channel, shaped to broadcast over the weights."""
        others = [axis for axis in range(weight.dim()) if axis != self.axis]
        smallest = torch.finfo(torch.float32).tiny
        return (weight.detach().abs().amax(others, keepdim=True) / WEIGHT_LIMITS[1]).clamp_min(smallest)

    def freeze(self, weight: Tensor) -> None:
        """Makes the weights INT8 constants, and the module write their DequantizeLinear."""
        scale = self.scale(weight)
        steps = torch.clamp(torch.round(weight.detach() / scale), *WEIGHT_LIMITS)
        self.register_buffer("stored", steps.to(torch.int8))
        self.register_buffer("frozen_scale", scale.flatten())
        self.register_buffer("zero_point", torch.zeros_like(self.frozen_scale, dtype=torch.int8))
        self.exporting = True

    def forward(self, weight: Tensor) -> Tensor:
        """The weights, rounded."""
        if not self.exporting:
            return _rounded(weight, self.scale(weight), WEIGHT_LIMITS)
        operands = (self.stored, self.frozen_scale, self.zero_point)
        return _onnx("DequantizeLinear", operands, torch.float32, weight.shape, axis=self.axis)


class GlobalAverage(nn.Module):
    """The mean over all positions, exported as GlobalAveragePool: TensorRT runs that in INT8, a ReduceMean not."""

    def __init__(self) -> None:
        super().__init__()
        self.exporting = False

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, C, …]` to `[N, C, 1, …]`."""
        if self.exporting:
            return _onnx("GlobalAveragePool", (x,), x.dtype, [*x.shape[:2], *[1] * (x.dim() - 2)])
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


def prepare(
    model: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    *,
    configuration: str | Path | None = None,
    learn_scales: bool = True,
    check_weights: bool = True,
) -> fx.GraphModule:
    """A copy of the model with BatchNormalization folded and a fake-quantiser at every place of `qat.json`.

    TensorRT multiplies with weights that BatchNormalization was folded into, so these are the weights that must be on
    the grid: it is folded first, in its evaluation form, and its statistics stay as they were. The copy comes in
    evaluation mode; call `.train()` on it. `functional.dropout` is traced in evaluation mode and stays there.

    Args:
        model: The float model that was exported.
        example_input: What the model is called with; several inputs as a tuple.
        configuration: The file; `qat.json` beside this script if not given.
        learn_scales: Whether activation scales are trained too, or stay as calibrated.
        check_weights: Compare the weights' magnitudes with those in the configuration.

    Raises:
        PlacementError: A place is not found in this model, or the weights are not those that were calibrated.
    """
    plan = json.loads(Path(configuration or Path(__file__).with_name("qat.json")).read_text(encoding="utf-8"))
    traced = _traced(copy.deepcopy(model).eval(), _as_tuple(example_input))
    layers = _layers(traced, plan["layers"])
    quantized = {layers[layer["node"]]: layer for layer in plan["layers"] if layer["scales"]}
    if check_weights:
        _check_weights(traced, quantized)
    _insert(traced, layers, plan, learn=learn_scales)
    for call, layer in quantized.items():
        module = traced.get_submodule(str(call.target))
        if not parametrize.is_parametrized(module, "weight"):
            parametrize.register_parametrization(module, "weight", FakeQuantizeWeight(_axis(layer)))
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    traced.meta["inputs"], traced.meta["outputs"] = plan["inputs"], plan["outputs"]
    return traced.eval()


def parameter_groups(
    model: fx.GraphModule, learning_rate: float, scale_learning_rate: float = 1e-2
) -> list[dict[str, Any]]:
    """For an optimiser such as AdamW: the weights, and the scales, which move in octaves and must not decay.

    Args:
        model: What `prepare` returned.
        learning_rate: Of weights and biases.
        scale_learning_rate: Of the scales' drifts; 0.01 lets Adam move a scale by 0.7 % a step.
    """
    scales = {id(module.drift) for module in model.modules() if isinstance(module, FakeQuantize)}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in scales]
    drifts = [parameter for parameter in model.parameters() if id(parameter) in scales]
    return [
        {"params": weights, "lr": learning_rate},
        {"params": drifts, "lr": scale_learning_rate, "weight_decay": 0.0},
    ]


def export(model: fx.GraphModule, example_input: Tensor | tuple[Tensor, ...], path: str | Path, **options: Any) -> None:
    """Writes the trained model as ONNX with Q/DQ pairs: it computes what the model does in evaluation mode.

    Inputs and outputs are called as in the ONNX file that `trt-opt qat` read, and the same axes are dynamic.

    Args:
        model: What `prepare` returned, trained.
        example_input: What the model is called with.
        path: The file to write.
        options: Passed on to `torch.onnx.export`.
    """
    frozen = copy.deepcopy(model).eval()
    for module in list(frozen.modules()):
        if isinstance(module, FakeQuantize):
            module.freeze()
        elif isinstance(module, GlobalAverage):
            module.exporting = True
        elif isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], FakeQuantizeWeight):
            module[0].freeze(module.original)
    named: dict[str, Any] = {
        "input_names": [entry["name"] for entry in model.meta["inputs"]],
        "output_names": list(model.meta["outputs"]),
        "dynamic_shapes": tuple(_dynamic_axes(entry["shape"]) for entry in model.meta["inputs"]),
        "opset_version": OPSET,
    }
    inputs = _as_tuple(example_input)
    torch.onnx.export(frozen, inputs, str(path), dynamo=True, external_data=False, verbose=False, **named | options)


def _as_tuple(example_input: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return example_input if isinstance(example_input, tuple) else (example_input,)


def _dynamic_axes(shape: Sequence[int | str]) -> dict[int, Any]:
    """The axes without a size; ONNX's name for one is kept."""
    named = {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
    return {axis: name if name.isidentifier() else torch.export.Dim.AUTO for axis, name in named.items()}


def _traced(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The model as a graph of calls with BatchNormalization folded; checked to compute the same."""
    with torch.no_grad():
        expected = model(*inputs)
    try:
        traced = fx.symbolic_trace(model)
    except Exception as error:
        raise PlacementError(f"torch.fx cannot trace the model ({error}); does it branch on values?") from error
    _fold_batch_norms(traced)
    with torch.no_grad():
        if not _close(traced(*inputs), expected):
            raise PlacementError("the model as torch.fx traces it computes something else; does it branch on values?")
    return traced


def _close(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())))
    if isinstance(expected, dict):
        found, expected = list(found.values()), list(expected.values())
    return all(_close(*pair) for pair in zip(found, expected, strict=True))


def _fold_batch_norms(traced: fx.GraphModule) -> None:
    """BatchNormalization right behind a convolution or Linear that nothing else reads goes into its weights."""
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        norm, above = _module(traced, node), node.args[0] if node.args else None
        if not isinstance(norm, _BatchNorm) or not isinstance(above, fx.Node):
            continue
        layer = _module(traced, above)
        folded: nn.Module
        if len(above.users) > 1 or calls.count(above.target) > 1:
            continue
        if isinstance(layer, nn.Linear):
            folded = fusion.fuse_linear_bn_eval(layer, norm)
        elif isinstance(layer, _ConvNd):
            folded = fusion.fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, LAYERS["ConvTranspose"]))
        else:
            continue
        traced.set_submodule(str(above.target), folded)
        node.replace_all_uses_with(above)
        traced.graph.erase_node(node)
    traced.recompile()


def _layers(traced: fx.GraphModule, wanted: Sequence[dict[str, Any]]) -> Layers:
    """Finds every layer: by the name of its weights, by the name of its node, else by order among those alike."""
    free = [node for node in traced.graph.nodes if _layer_kind(traced, node) is not None]
    found: Layers = {}
    for layer in wanted:
        names = _possible_modules(layer)
        match = next((node for node in free if node.target in names and _fits(traced, node, layer)), None)
        if match is not None:
            found[layer["node"]] = match
            free.remove(match)
    left = [layer for layer in wanted if layer["node"] not in found]
    for layer in left:
        alike = [other for other in left if _form(other) == _form(layer)]
        candidates = [node for node in free if _fits(traced, node, layer)]
        if len(candidates) == len(alike):
            found[layer["node"]] = candidates[alike.index(layer)]
        elif layer["scales"]:
            raise PlacementError(
                f"no module was found for {layer['node']!r} ({layer['kind']} with weights {layer['weight']!r} "
                f"of shape {layer['shape']}): {len(candidates)} modules fit {len(alike)} such nodes"
            )
    return found


def _possible_modules(layer: dict[str, Any]) -> set[str]:
    """`block.conv` from weights `block.conv.weight` or `block/conv/weight`, or a node `/block/conv/Conv`."""
    weights = (layer["weight"] or "").replace("/", ".").removesuffix(".weight")
    return {weights, ".".join(layer["node"].strip("/").split("/")[:-1])}


def _form(layer: dict[str, Any]) -> tuple[str, list[int]]:
    return layer["kind"], sorted(size for size in layer["shape"] if size != 1)


def _fits(traced: fx.GraphModule, node: fx.Node, layer: dict[str, Any]) -> bool:
    """Whether kind and sizes agree; ONNX may hold the weights transposed, or with an axis of one more."""
    sizes = sorted(size for size in _weight(traced, node).shape if size != 1)
    return (_layer_kind(traced, node), sizes) == _form(layer)


def _check_weights(traced: fx.GraphModule, quantized: dict[fx.Node, dict[str, Any]]) -> None:
    for call, layer in quantized.items():
        have = FakeQuantizeWeight(_axis(layer)).scale(_weight(traced, call)).flatten().cpu()
        expected = torch.tensor(layer["scales"], dtype=torch.float32)
        if not torch.allclose(have, expected, rtol=1e-2, atol=float(expected.max()) * 1e-4):
            raise PlacementError(
                f"the weights of {call.target!r} are not those of {layer['node']!r} in the ONNX file: pass the model "
                "that was exported, or check_weights=False"
            )


def _insert(traced: fx.GraphModule, layers: Layers, plan: dict[str, Any], *, learn: bool) -> None:
    """Puts one call of a fake-quantiser behind every quantised tensor and lets the readers named read it."""
    places = _places(traced, layers, plan)
    device = next((parameter.device for parameter in traced.parameters()), None)
    names = {scale: f"fake_quantize_{number}" for number, scale in enumerate(plan["activation_scales"])}
    for scale, value in plan["activation_scales"].items():
        traced.add_submodule(names[scale], FakeQuantize(value, learn=learn).to(device))
    # All readers are looked up before any is changed: operands are told apart by where they come from.
    edits = [
        (*_reader(reader, layers, places), names[quantizer["scale"]])
        for quantizer in plan["activations"]
        for reader in quantizer["readers"]
    ]
    calls: dict[tuple[fx.Node, str], fx.Node] = {}
    for node, source, name in edits:
        if (source, name) not in calls:
            with traced.graph.inserting_after(source):
                calls[source, name] = traced.graph.call_module(name, (source,))
        node.replace_input_with(source, calls[source, name])
        if node.target in (operator.iadd, "add_"):  # would write into a tensor that others read too
            node.op, node.target = "call_function", operator.add
        _average_globally(traced, node)


def _reader(reader: dict[str, Any], layers: Layers, places: Places) -> tuple[fx.Node, fx.Node]:
    """The call that reads, and the value that it reads there."""
    if reader["node"] in layers:
        node = layers[reader["node"]]
        return node, _operands(node)[0]
    node, order = places[reader["node"]]
    return node, _operands(node)[order[reader["index"]]]


def _places(traced: fx.GraphModule, layers: Layers, plan: dict[str, Any]) -> Places:
    """Finds nodes without weights: by kind and the layers nearest above each operand, then by order among alike."""
    above = _layers_above(traced, layers)
    rank = {layer["node"]: number for number, layer in enumerate(plan["layers"], 1)} | {INPUT: 0}

    def nearest(node: fx.Node) -> tuple[str, ...]:
        return tuple(sorted(above[node], key=rank.__getitem__)[-NEAREST:])

    alike: dict[tuple[str, list[tuple[str, ...]]] | Any, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        kind, operands = _kind(traced, node), [nearest(operand) for operand in _operands(node)]
        if kind is not None and all(operands):
            alike.setdefault((kind, tuple(sorted(operands))), []).append(node)
    found: Places = {}
    for place in plan["places"]:
        wanted = [tuple(operand) for operand in place["operands"]]
        candidates = alike.get((place["kind"], tuple(sorted(wanted))), [])
        if len(candidates) != place["alike"]:
            raise PlacementError(
                f"no place was found for {place['node']!r}: the ONNX file has {place['alike']} {place['kind']} below "
                f"{wanted}, this model {len(candidates)}; `trt-opt qat --exclude {place['node']}` leaves it in float"
            )
        node = candidates[place["position"]]
        here = [nearest(operand) for operand in _operands(node)]
        found[place["node"]] = node, list(range(len(here))) if here == wanted else [here.index(one) for one in wanted]
    return found


def _layers_above(traced: fx.GraphModule, layers: Layers) -> dict[fx.Node, frozenset[str]]:
    """For every value the layers it comes from, without passing through a layer; none for constants and sizes."""
    names = {node: name for name, node in layers.items()}
    above: dict[fx.Node, frozenset[str]] = {}
    for node in traced.graph.nodes:
        if node in names or node.op == "placeholder":
            above[node] = frozenset({names.get(node, INPUT)})
        elif node.op == "get_attr" or node.target in SHAPE_READERS:
            above[node] = frozenset()
        else:
            above[node] = frozenset().union(*(above[source] for source in node.all_input_nodes))
    return above


def _operands(node: fx.Node) -> list[fx.Node]:
    """The tensors a call reads: all of a Concat, two of a sum, else the first."""
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("tensors"))
    second = node.args[1] if len(node.args) > 1 else node.kwargs.get("other")
    of_sum = (second,) if node.target in FUNCTIONS["Add"] else ()
    given: Iterable[Any] = first if isinstance(first, (list, tuple)) else (first, *of_sum)
    return [operand for operand in given if isinstance(operand, fx.Node)]


def _kind(traced: fx.GraphModule, node: fx.Node) -> str | None:
    module = _module(traced, node)
    if module is not None:
        return next((kind for kind, types in MODULES.items() if isinstance(module, types)), None)
    return next((kind for kind, targets in FUNCTIONS.items() if node.target in targets), None)


def _layer_kind(traced: fx.GraphModule, node: fx.Node) -> str | None:
    module = _module(traced, node)
    return next((kind for kind, types in LAYERS.items() if isinstance(module, types)), None)


def _module(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _weight(traced: fx.GraphModule, node: fx.Node) -> Tensor:
    weight: Any = traced.get_submodule(str(node.target)).weight
    found: Tensor = weight
    return found


def _axis(layer: dict[str, Any]) -> int:
    """PyTorch's output-channel axis, whatever ONNX's is."""
    return 1 if layer["kind"] == "ConvTranspose" else 0


def _average_globally(traced: fx.GraphModule, node: fx.Node) -> None:
    module = _module(traced, node)
    if isinstance(module, GLOBAL_POOLS):
        size = module.output_size
        if set(size if isinstance(size, tuple) else (size,)) == {1}:
            traced.set_submodule(str(node.target), GlobalAverage())
