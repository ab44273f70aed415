"""Casts to and from FP8 as quantisation with a scale of 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trt_opt.graph.query import dtype_name
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

FP8 = "float8e4m3fn"

_SCALED = frozenset({"float32", "float16", "bfloat16"})
"""Types that scales may have."""


class Fp8AsQdq(NodePass):
    """Writes Cast and CastLike to and from FLOAT8E4M3FN as QuantizeLinear and DequantizeLinear.

    What it does: A cast to FP8 that saturates is a QuantizeLinear with a scale of 1 and an FP8 zero-point; a cast from
    FP8 is a DequantizeLinear with a scale of 1. Types that scales cannot have go through FLOAT.

    Why TensorRT wants it: It makes and reads FP8 in quantisation only. The target must have FP8: SM89 or later.

    Example: Cast(x, to=FLOAT8E4M3FN) becomes QuantizeLinear(x, 1.0, zero-point 0 of FLOAT8E4M3FN).

    When it declines: saturate=0, which makes numbers beyond 448 NaN where QuantizeLinear in TensorRT saturates; casts
    between FP8 types; the types are not known; opsets below 19, which have no FP8.
    """

    name = "fp8_as_qdq"
    operators = frozenset({"Cast", "CastLike"})
    oldest_opset = 19

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Leaves alone casts that have nothing to do with FP8."""
        return super().wants(node, edit) and FP8 in {edit.dtype(node.inputs[0]), _wanted(node, edit)}

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        given, wanted = emit.edit.dtype(node.inputs[0]), _wanted(node, emit.edit)
        if given is None or wanted is None or given.startswith("float8") == wanted.startswith("float8"):
            raise DeclinedError(f"a cast from {given or 'unknown'} to {wanted or 'unknown'} is no quantisation")
        if wanted == FP8:
            if not node.attrs.get("saturate", 1):
                raise DeclinedError("saturate=0 makes large numbers NaN, and TensorRT can only saturate them")
            return (_quantized(node.inputs[0], given, emit),)
        direct = wanted in _SCALED
        numbers = emit("DequantizeLinear", node.inputs[0], _one(wanted if direct else "float32", emit))
        return (numbers if direct else emit.cast(numbers, wanted),)


def _quantized(source: gs.Tensor, given: str, emit: Emitter) -> gs.Variable:
    direct = given in _SCALED
    numbers = source if direct else emit.cast(source, "float32")
    zero = emit.constant(np.zeros((), onnx.helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)))
    made: gs.Variable = emit("QuantizeLinear", numbers, _one(given if direct else "float32", emit), zero)
    return made


def _one(dtype: str, emit: Emitter) -> gs.Constant:
    named = {"float32": "FLOAT"}.get(dtype, dtype.upper())
    return emit.constant(np.ones((), onnx.helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(named))))


def _wanted(node: gs.Node, edit: GraphEdit) -> str | None:
    return dtype_name(int(node.attrs["to"])) if node.op == "Cast" else edit.dtype(node.inputs[1])
