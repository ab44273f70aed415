"""The inputs and outputs of a model, changed where the user asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from trt_opt.errors import RequestError
from trt_opt.graph.query import graph_inputs
from trt_opt.passes.ends.freeze_inputs import FreezeInputs
from trt_opt.passes.ends.frozen_values import frozen_values_from_text
from trt_opt.passes.ends.widen_io import WidenIo
from trt_opt.passes.quantised.fp8_as_qdq import Fp8AsQdq
from trt_opt.passes.vision.non_max_suppression_as_plugin import NonMaxSuppressionAsPlugin
from trt_opt.passes.vision.split_at_nms import has_nms, split_at_nms

MODES = ("keep", "plugin", "split")
"""What may become of NonMaxSuppression."""


@dataclass(frozen=True, slots=True)
class EndsRequest:
    """What may change of a model's inputs and outputs, and of its numbers.

    Attributes:
        freeze_input: Inputs that become constants, as `name=value` or an .npz file.
        widen_io: Whether integer types TensorRT lacks may become int32 and int64 at the ends.
        fp8_as_qdq: Whether casts to and from FLOAT8E4M3FN become Q/DQ pairs.
        nms: "keep", "plugin" or "split".
    """

    freeze_input: Sequence[str] = ()
    widen_io: bool = False
    fp8_as_qdq: bool = False
    nms: str = "keep"

    def __post_init__(self) -> None:
        if self.nms not in MODES:
            raise RequestError(f"there is no --nms {self.nms}", hint=f"one of {', '.join(MODES)}")

    @property
    def passes(self) -> tuple[str, ...]:
        """The names of the passes that are asked for."""
        plugin = (NonMaxSuppressionAsPlugin.name,) if self.nms == "plugin" else ()
        return (Fp8AsQdq.name, *plugin) if self.fp8_as_qdq else plugin


@dataclass(frozen=True, slots=True, eq=False)
class AskedModel:
    """A model as its caller will see it.

    Attributes:
        model: What the engine is made of.
        tail: What follows NonMaxSuppression, for ONNX Runtime: fed with the engine's inputs and outputs; None where
            nothing was split off.
    """

    model: ModelProto
    tail: ModelProto | None = None


def with_asked_ends(model: ModelProto, request: EndsRequest) -> AskedModel:
    """The model with its ends changed as asked for.

    Args:
        model: Is not edited.
        request: What may change.

    Raises:
        RequestError: No such input, or a value that does not fit it.
        UnsupportedModelError: Nothing is left before NonMaxSuppression.
    """
    if request.freeze_input:
        model, _ = FreezeInputs(frozen_values_from_text(request.freeze_input, graph_inputs(model))).run(model)
    if request.widen_io:
        model, _ = WidenIo().run(model)
    if request.nms == "split" and has_nms(model):
        return AskedModel(*split_at_nms(model))
    return AskedModel(model)
