"""FP8 post-training quantisation: E4M3FN Q/DQ pairs on the operands of products and convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.insertion import with_qdq
from trt_opt.quantize.methods.method import OpsetNeed
from trt_opt.quantize.methods.policy import policy_placement
from trt_opt.quantize.placement import Scheme
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement

FP8_OPSET = 19
"""QuantizeLinear takes FP8 from opset 19."""

SCHEME = Scheme("fp8", per_channel=False, spreads=False)
"""Weights per tensor: FP8's precision is relative, so a channel of small weights loses nothing beside one of large
ones. On five networks, scales per channel were better by 2 dB at most and worse by 7, and TensorRT-RTX 1.7 adds a
kernel of its own for them. Nothing spreads to sums and pools: accuracy stayed, and there were more nodes."""


class Fp8:
    """Activations and weights in FP8, ranges from data.

    The scale is the largest magnitude seen, divided by 448, whatever the calibrator chose. A threshold below it buys
    INT8 finer steps, but FP8 none: its steps are relative to each number. On five networks the thresholds of entropy
    and MSE gave 4 dB less to 2 dB more than the extreme, and those of a percentile up to 14 dB less.
    """

    name = "fp8"
    needs_data = True

    def label(self, request: PrecisionRequest) -> str:
        """What tables call it."""
        del request
        return "FP8"

    def opset_need(self, request: PrecisionRequest) -> OpsetNeed:
        """FP8 tensors and FP16 scales came with the same opset."""
        del request
        return OpsetNeed(FP8_OPSET, FP8_OPSET)

    def placement(self, index: GraphIndex, request: PrecisionRequest) -> Placement:
        """The placement policy's, on operands alone."""
        return policy_placement(index, request, "FP8", scheme=SCHEME)

    def written(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], request: PrecisionRequest
    ) -> onnx.ModelProto:
        """Q/DQ pairs on activations, weights stored as FP8."""
        return with_qdq(index, placement, with_extremes(ranges), fp16=request.fp16)


def with_extremes(ranges: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
    """The ranges with the largest magnitude seen as every calibrated tensor's threshold."""
    return {name: found if found.amax is None else replace(found, amax=found.extreme) for name, found in ranges.items()}
