"""Folding y·scale + shift, per output channel, into the Conv, ConvTranspose or Gemm that makes y.

The arithmetic is done in float64 and rounded once, to the type of the weights.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.graph.edit import label, set_input, set_output
from trt_opt.graph.surgeon import constant_values
from trt_opt.passes.base import GraphEdit

LINEAR_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""The operators with a weight and a bias per output channel on axis 1 of their output."""

_FLOATS = frozenset({"float16", "float32", "float64"})

Floats = NDArray[np.float64]


def linear_producer(tensor: gs.Tensor) -> gs.Node | None:
    """The Conv, ConvTranspose or Gemm whose output the tensor is; None where it is anything else."""
    producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if producer is None or producer.op not in LINEAR_OPERATORS or producer.domain not in {None, "", "ai.onnx"}:
        return None
    return producer


def channels(layer: gs.Node) -> int | None:
    """The number of output channels; None where the weight is not a constant."""
    weight = constant_values(layer.inputs[1])
    if weight is None:
        return None
    match layer.op:
        case "Conv":
            return int(weight.shape[0])
        case "ConvTranspose":
            return int(weight.shape[1]) * int(layer.attrs.get("group", 1))
        case _:
            return int(weight.shape[0 if layer.attrs.get("transB", 0) else 1])


def why_not_foldable(layer: gs.Node, edit: GraphEdit) -> str:
    """Why nothing can be folded into this layer, or an empty text."""
    output = layer.outputs[0]
    if edit.is_graph_output(output):
        return f"the output of {layer.op} before it is a graph output"
    if len(output.outputs) != 1:
        return f"the output of {layer.op} before it is read elsewhere too"
    weight = constant_values(layer.inputs[1])
    bias = _bias(layer)
    if weight is None or (bias is None and _has_bias(layer)):
        return f"a weight of {layer.op} before it is not a constant"
    if weight.dtype.name not in _FLOATS:
        return f"the weights of {layer.op} before it are {weight.dtype.name}"
    return ""


def fold(layer: gs.Node, follower: gs.Node, scale: Floats, shift: Floats, edit: GraphEdit) -> bool:
    """Folds `follower`, which computes y·scale + shift, into the layer that computes y; the caller removes it.

    Args:
        layer: A layer that `why_not_foldable` has nothing against.
        follower: The only reader of the layer's output.
        scale: float64 [channels].
        shift: float64 [channels].
        edit: Where the fold or its refusal is noted.

    Returns:
        Whether it was done; False where the new weights would not be finite numbers of the weights' type.
    """
    weight, bias = constant_values(layer.inputs[1]), _bias(layer)
    if weight is None:
        return False
    gain = float(layer.attrs.get("beta", 1.0)) if layer.op == "Gemm" else 1.0
    old_bias = np.zeros(1) if bias is None else bias.astype(np.float64) * gain
    with np.errstate(over="ignore", invalid="ignore"):
        new_weight = (weight.astype(np.float64) * _along_channels(layer, weight, scale)).astype(weight.dtype)
        new_bias = (old_bias * scale + shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        edit.declined(follower, f"the folded weights would not fit {weight.dtype.name}")
        return False
    _set_weight(layer, 1, new_weight, edit)
    _set_weight(layer, 2, new_bias, edit)
    if layer.op == "Gemm":
        layer.attrs["beta"] = 1.0
    edit.changed(follower, f"{follower.op} folded into {layer.op} {label(layer)!r}")
    result = follower.outputs[0]
    # The follower keeps an output nobody reads until it is removed; the layer takes over the one that is read.
    set_output(follower, 0, gs.Variable(edit.fresh_name(f"{result.name}_unread")))
    set_output(layer, 0, result)
    return True


def _has_bias(layer: gs.Node) -> bool:
    return len(layer.inputs) > 2 and not layer.inputs[2].is_empty()


def _bias(layer: gs.Node) -> NDArray[np.generic] | None:
    return constant_values(layer.inputs[2]) if _has_bias(layer) else None


def _along_channels(layer: gs.Node, weight: NDArray[np.generic], scale: Floats) -> Floats:
    """The scale in a shape that multiplies the weight's output channels."""
    match layer.op:
        case "Conv":
            return scale.reshape(-1, *(1,) * (weight.ndim - 1))
        case "ConvTranspose":
            # Weight [C_in, C_out/group, …]: the output channels of group g belong to the g-th share of C_in.
            group = int(layer.attrs.get("group", 1))
            per_input = np.repeat(scale.reshape(group, -1), weight.shape[0] // group, axis=0)
            return per_input.reshape(*per_input.shape, *(1,) * (weight.ndim - 2))
        case _:
            return scale.reshape(-1, 1) if layer.attrs.get("transB", 0) else scale.reshape(1, -1)


def _set_weight(layer: gs.Node, position: int, values: NDArray[np.generic], edit: GraphEdit) -> None:
    """Gives the layer a constant of its own; the old one, which others may read, is left alone."""
    old = layer.inputs[position] if position < len(layer.inputs) else None
    own_name = isinstance(old, gs.Constant) and len(old.outputs) == 1 and not edit.is_graph_output(old)
    base = old.name if old is not None and old.name else f"{layer.outputs[0].name}_bias"
    constant = gs.Constant(base if own_name else edit.fresh_name(f"{base}_folded"), np.ascontiguousarray(values))
    if old is None:
        layer.inputs.append(constant)
    else:
        set_input(layer, position, constant)
