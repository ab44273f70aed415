"""Normalisation over the last axes, written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.operand_facts import COMPUTED_IN_FLOAT32, scalar

_LAYER_NORMALIZATION = 17
"""The opset that brought the operator."""


@dataclass(frozen=True)
class Normalization:
    """What a layer normalisation is asked for.

    Attributes:
        axes: What is normalised over, from the back: (-1,) or (-2, -1).
        epsilon: Added to the variance.
        dtype: The element type of what goes in.
        centred: Whether the mean is taken off; without it, this is RMS normalisation.
    """

    axes: tuple[int, ...]
    epsilon: float
    dtype: str
    centred: bool = True


@dataclass(frozen=True)
class Normalized:
    """The result, and what it was computed with, in float32 for types narrower than that."""

    result: gs.Tensor
    mean: gs.Tensor | None
    inverse_deviation: gs.Tensor | None


def layer_normalized(
    emit: Emitter, source: gs.Tensor, wanted: Normalization, scale: gs.Tensor, bias: gs.Tensor | None
) -> gs.Tensor:
    """Normalised, scaled and shifted; one LayerNormalization where the model's opset has it."""
    if wanted.centred and emit.edit.opset >= _LAYER_NORMALIZATION:
        made: gs.Tensor = emit(
            "LayerNormalization", source, scale, bias, axis=wanted.axes[0], epsilon=float(wanted.epsilon)
        )
        return made
    return normalized_with_statistics(emit, source, wanted, scale, bias).result


def normalized_with_statistics(
    emit: Emitter, source: gs.Tensor, wanted: Normalization, scale: gs.Tensor, bias: gs.Tensor | None
) -> Normalized:
    """The same in single steps, with the mean and the inverse deviation."""
    narrow = wanted.dtype in COMPUTED_IN_FLOAT32
    dtype = "float32" if narrow else wanted.dtype
    wide = emit.cast(source, "float32") if narrow else source
    mean = emit.reduce("ReduceMean", wide, wanted.axes) if wanted.centred else None
    centred = wide if mean is None else emit("Sub", wide, mean)
    variance = emit.reduce("ReduceMean", emit("Mul", centred, centred), wanted.axes)
    deviation = emit("Sqrt", emit("Add", variance, scalar(emit, wanted.epsilon, dtype)))
    inverse = emit("Div", np.ones((), dtype), deviation)
    result = emit("Mul", centred, inverse)
    result = emit("Mul", emit.cast(result, wanted.dtype) if narrow else result, scale)
    if bias is not None:
        result = emit("Add", result, bias)
    return Normalized(result, mean, inverse)


def summed(emit: Emitter, parts: Sequence[gs.Tensor | None]) -> gs.Tensor:
    """The sum of those there are."""
    first, *rest = (part for part in parts if part is not None)
    for part in rest:
        first = emit("Add", first, part)
    return first
