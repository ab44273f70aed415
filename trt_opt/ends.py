"""The inputs and outputs of a model, changed where the user asked for it."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto

from trt_opt.graph.query import graph_inputs
from trt_opt.passes.ends.freeze_inputs import FreezeInputs
from trt_opt.passes.ends.frozen_values import frozen_values_from_text
from trt_opt.passes.ends.widen_io import WidenIo
from trt_opt.passes.quantised.fp8_as_qdq import Fp8AsQdq


def with_asked_ends(model: ModelProto, freeze: Sequence[str], *, widen_io: bool) -> ModelProto:
    """The model as its caller will see it.

    Args:
        model: Is not edited.
        freeze: Inputs that become constants, as `name=value` or an .npz file.
        widen_io: Whether integer types TensorRT lacks may become int32 and int64 at the ends.

    Raises:
        RequestError: No such input, or a value that does not fit it.
    """
    if freeze:
        model, _ = FreezeInputs(frozen_values_from_text(freeze, graph_inputs(model))).run(model)
    if widen_io:
        model, _ = WidenIo().run(model)
    return model


def on_request(*, fp8_as_qdq: bool) -> tuple[str, ...]:
    """The names of the passes that options ask for."""
    return (Fp8AsQdq.name,) if fp8_as_qdq else ()
