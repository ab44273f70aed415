"""The activation functions that ONNX Runtime fuses into other operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError
from trt_opt.passes.operand_facts import scalar

_PLAIN = frozenset({"Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"})
_PARAMETERS = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
}
_CLIP_LIMITS_AS_INPUT = 11


def activated(emit: Emitter, tensor: gs.Tensor, name: str, parameters: Sequence[float], dtype: str) -> gs.Tensor:
    """The tensor behind the activation function of this name; the tensor itself where the name is empty.

    Args:
        emit: Where the nodes are written.
        tensor: What goes in.
        name: Of the ONNX operator.
        parameters: In the order alpha, beta (for Clip: min, max); those left out have ONNX's defaults.
        dtype: The element type of the tensor.

    Raises:
        DeclinedError: The function is none of those that ONNX Runtime fuses.
    """
    if not name:
        return tensor
    if name in _PLAIN:
        made = emit(name, tensor)
    elif name in _PARAMETERS:
        given: dict[str, Any] = dict(zip(_PARAMETERS[name], map(float, parameters), strict=False))
        made = emit(name, tensor, **given)
    elif name == "Clip" and len(parameters) == 2:
        made = _clipped(emit, tensor, parameters, dtype)
    elif name == "HardSwish":
        gate = emit("HardSigmoid", tensor, alpha=1 / 6, beta=0.5)
        made = emit("Mul", tensor, gate)
    else:
        raise DeclinedError(f"its activation function {name!r} is not known")
    result: gs.Tensor = made
    return result


def _clipped(emit: Emitter, tensor: gs.Tensor, limits: Sequence[float], dtype: str) -> gs.Variable:
    least, most = (float(limit) for limit in limits)
    if emit.edit.opset >= _CLIP_LIMITS_AS_INPUT:
        made = emit("Clip", tensor, scalar(emit, least, dtype), scalar(emit, most, dtype))
    else:
        made = emit("Clip", tensor, min=least, max=most)
    result: gs.Variable = made
    return result
