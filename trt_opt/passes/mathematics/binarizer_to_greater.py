"""Binarizer as a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.standard_opset import ForeignNodePass
from trt_opt.passes.node_pass import DeclinedError


class BinarizerToGreater(ForeignNodePass):
    """Replaces Binarizer by Greater and Cast.

    What it does: 1 where the input is above the threshold, 0 elsewhere, in the input's type. Integers are compared with
    the threshold rounded down, which is the same.

    Why TensorRT wants it: It has no operators of the machine learning domain.

    Example: Binarizer(x, threshold=0.5) becomes Cast(x > 0.5).

    When it declines: The type of its input is not known.
    """

    name = "binarizer_to_greater"
    operators = frozenset({"ai.onnx.ml::Binarizer"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source, threshold = node.inputs[0], float(node.attrs.get("threshold", 0.0))
        dtype = emit.edit.dtype(source)
        if dtype is None:
            raise DeclinedError("the type of its input is not known")
        # Of whole numbers, those above 2.5 are those above 2: rounding down keeps the comparison exact.
        limit = threshold // 1 if dtype.startswith("int") else threshold
        return (emit.cast(emit("Greater", source, emit.constant(limit, dtype)), dtype),)
