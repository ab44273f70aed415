"""QLinearConv and ConvInteger in float arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, optional_input
from trt_opt.passes.quantised.exact_integers import integer_type, requantized, scale, zero_point
from trt_opt.passes.quantised.integer_products import conv, factor


class EmulateQuantizedConv(NodePass):
    """Replaces QLinearConv and ConvInteger by Conv of the same integers in FLOAT.

    What it does: Image and weights are cast to FLOAT and their zero-points subtracted, so that padding is 0; the
    convolution is exact as long as every sum stays below 2^24, so where it might not it is computed over groups of
    input channels that are added in INT32, as is a bias too large. QLinearConv's result is multiplied by
    x_scale x w_scale / y_scale, rounded half to even, shifted, clipped and cast.

    Why TensorRT wants it: It has no convolution of integers but those it finds between DequantizeLinear nodes, and no
    UINT8.

    Example: ConvInteger(x, w, uint8 128) becomes Cast(INT32, Conv(Cast(FLOAT, x) - 128, Cast(FLOAT, w))).

    When it declines: The shape of the weights is not static; one input channel alone sums too many products; ranks or
    types are not known.
    """

    name = "emulate_quantized_conv"
    operators = frozenset({"QLinearConv", "ConvInteger"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        if node.op == "ConvInteger":
            x, w, x_zero, w_zero = node.inputs[0], node.inputs[1], optional_input(node, 2), optional_input(node, 3)
        else:
            x, _, x_zero, w, _, w_zero = node.inputs[:6]
        rank = emit.edit.rank(w)
        if rank is None:
            raise DeclinedError("the rank of its weights is not known")
        spatial = (1,) * (rank - 2)
        image, weights = factor(x, x_zero, (-1,), emit), factor(w, w_zero, (-1, 1, *spatial), emit)
        bias = optional_input(node, 8) if node.op == "QLinearConv" else None
        total = conv(image, weights, bias, node.attrs, emit)
        if node.op == "ConvInteger":
            return (total.as_int32(emit),)
        per_channel = (-1, *spatial)
        scales = tuple(scale(node.inputs[position], per_channel, emit) for position in (1, 4, 6))
        y_zero = node.inputs[7]
        offset = zero_point(y_zero, per_channel, emit)
        return (requantized(total.as_float(emit), scales, offset, integer_type(emit, y_zero), emit),)
