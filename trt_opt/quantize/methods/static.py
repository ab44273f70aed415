"""Static post-training quantisation: INT8 Q/DQ pairs with scales from calibration data."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.insertion import with_qdq
from trt_opt.quantize.methods.method import OpsetNeed
from trt_opt.quantize.methods.policy import policy_placement
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement

PER_CHANNEL_OPSET = 13
"""DequantizeLinear learnt `axis`, and with it one scale per channel, in opset 13."""

FP16_SCALE_OPSET = 19
"""QuantizeLinear takes FP16 tensors and FP16 scales from opset 19."""


class Static:
    """Activations and weights in INT8, ranges from data."""

    name = "static"
    needs_data = True

    def label(self, request: PrecisionRequest) -> str:
        """What tables call it."""
        del request
        return "INT8"

    def opset_need(self, request: PrecisionRequest) -> OpsetNeed:
        """Per-channel scales are a must; FP16 scales a wish where the graph holds FP16."""
        return OpsetNeed(PER_CHANNEL_OPSET, FP16_SCALE_OPSET if request.fp16 and request.typed else PER_CHANNEL_OPSET)

    def placement(self, index: GraphIndex, request: PrecisionRequest) -> Placement:
        """The placement policy's."""
        return policy_placement(index, request, "INT8")

    def written(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], request: PrecisionRequest
    ) -> onnx.ModelProto:
        """Q/DQ pairs on activations, weights stored as INT8."""
        return with_qdq(index, placement, ranges, fp16=request.fp16)
