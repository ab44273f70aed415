"""What a replacement must know of the tensors it reads, or else declines."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError

COMPUTED_IN_FLOAT32 = frozenset({"float16", "bfloat16"})
"""Types whose sums and means ONNX Runtime, and the specification, take in float32."""


def element_type(emit: Emitter, *tensors: gs.Tensor | None) -> str:
    """The element type of the first of these tensors, all of one type, of which it is known.

    Raises:
        DeclinedError: Of none; behind custom operators nothing is known until these are replaced.
    """
    found = (emit.edit.dtype(tensor) for tensor in tensors if tensor is not None)
    dtype = next((name for name in found if name is not None), None)
    if dtype is None:
        raise DeclinedError("the element type of its inputs is not known")
    return dtype


def known_shape(emit: Emitter, tensor: gs.Tensor) -> tuple[int | None, ...]:
    """The shape, None for sizes not known.

    Raises:
        DeclinedError: Even the rank is not known.
    """
    shape = emit.edit.shape(tensor)
    if shape is None:
        raise DeclinedError(f"the rank of {tensor.name!r} is not known")
    return shape


def scalar(emit: Emitter, value: float, dtype: str) -> Operand:
    """The number as a constant of a floating-point type."""
    if dtype == "bfloat16":  # NumPy has no such type
        return emit.cast(emit.constant(value, "float32"), dtype)
    return emit.constant(value, dtype)


def text(value: str | bytes) -> str:
    """A string attribute as text."""
    return value.decode() if isinstance(value, bytes) else value
