"""DynamicQuantizeLinear in float arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass
from trt_opt.passes.quantised.exact_integers import saturated

_LARGEST = np.asarray(255, np.float32)
_ZERO = np.asarray(0, np.float32)
_ONE = np.asarray(1, np.float32)


class EmulateDynamicQuantizeLinear(NodePass):
    """Replaces DynamicQuantizeLinear by reductions, Div, Round, Clip and Cast.

    What it does: The range of the input, 0 included, is reduced and divided by 255 into the scale; the zero-point is
    -min / scale, rounded half to even and clipped, and stays in FLOAT for the quantisation of the input. The standard
    leaves open what becomes of an input of zeros only; as in ONNX Runtime, its scale is 1.

    Why TensorRT wants it: It has neither the operator nor UINT8 inside a graph.

    Example: y, s, z = DynamicQuantizeLinear(x) becomes s = (Max(ReduceMax(x), 0) - Min(ReduceMin(x), 0)) / 255,
    Z = Clip(Round(-min / s), 0, 255), y = Cast(UINT8, Clip(Round(x / s) + Z, 0, 255)), z = Cast(UINT8, Z).

    When it declines: Never.
    """

    name = "emulate_dynamic_quantize_linear"
    operators = frozenset({"DynamicQuantizeLinear"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        highest = emit("Max", emit.reduce("ReduceMax", source, None, keepdims=False), _ZERO)
        lowest = emit("Min", emit.reduce("ReduceMin", source, None, keepdims=False), _ZERO)
        extent = emit("Sub", highest, lowest)
        step = emit("Where", emit("Equal", extent, _ZERO), _ONE, emit("Div", extent, _LARGEST))
        offset = emit("Clip", emit("Round", emit("Div", emit("Neg", lowest), step)), _ZERO, _LARGEST)
        quantized = saturated(emit("Div", source, step), offset, "uint8", emit)
        return (quantized, step, emit.cast(emit.cast(offset, "int32"), "uint8"))
