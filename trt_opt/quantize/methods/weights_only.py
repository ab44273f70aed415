"""Weights-only quantisation: weights in INT8 or INT4, activations and arithmetic in float; needs no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from trt_opt.errors import RequestError
from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.insertion import with_qdq
from trt_opt.quantize.methods.method import OpsetNeed
from trt_opt.quantize.methods.policy import nothing_to_quantize
from trt_opt.quantize.methods.static import FP16_SCALE_OPSET, PER_CHANNEL_OPSET
from trt_opt.quantize.placement import known_nodes
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.quantize.weight_rules import SMALLEST_BLOCK, WeightFormat, WeightVerdict, weight_verdict_on
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import FormatName, Placement, WeightQuantizer
from trt_opt.values.precision import LayerDecision, Precision

BLOCKED_OPSET = 21
"""INT4 tensors and DequantizeLinear's `block_size` came with opset 21."""

_PRECISIONS: Mapping[FormatName, Precision] = {"int8": "int8-weights", "int4": "int4-weights"}


class WeightsOnly:
    """Weights stored small behind a DequantizeLinear; see `weight_rules` for which, and in what form."""

    name = "weights-only"
    needs_data = False

    def label(self, request: PrecisionRequest) -> str:
        """What tables call it."""
        return f"{request.weights.upper()} weights"

    def opset_need(self, request: PrecisionRequest) -> OpsetNeed:
        """INT4 needs blocks; for INT8, FP16 scales are a wish."""
        if request.weights == "int4":
            return OpsetNeed(BLOCKED_OPSET, BLOCKED_OPSET)
        return OpsetNeed(PER_CHANNEL_OPSET, FP16_SCALE_OPSET if request.fp16 and request.typed else PER_CHANNEL_OPSET)

    def placement(self, index: GraphIndex, request: PrecisionRequest) -> Placement:
        """Which weights are stored how.

        Raises:
            RequestError: The block size is too small, or an excluded node does not exist.
            UnsupportedModelError: No weights are worth it.
        """
        wanted = _wanted(request)
        excluded = known_nodes(index, request.exclude)
        nodes = list(index.model.graph.node)
        verdicts = {node.name: weight_verdict_on(node, index, wanted) for node in nodes}
        for name in excluded:
            if verdicts[name].quantizer is not None:
                verdicts[name] = WeightVerdict("excluded", "excluded by request")
        verdicts = _without_twice_stored(verdicts, index)
        quantizers = [verdicts[node.name].quantizer for node in nodes]
        placement = Placement(
            weights=tuple(quantizer for quantizer in quantizers if quantizer is not None),
            layers=tuple(_decision(node, verdicts[node.name]) for node in nodes),
        )
        if not placement.weights:
            raise nothing_to_quantize(placement, self.label(request))
        return placement

    def written(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], request: PrecisionRequest
    ) -> onnx.ModelProto:
        """The float model with its weights behind DequantizeLinear."""
        return with_qdq(index, placement, ranges, fp16=request.fp16)


def _wanted(request: PrecisionRequest) -> WeightFormat:
    if request.block_size < SMALLEST_BLOCK:
        raise RequestError(
            f"blocks of {request.block_size} weights save nothing: the scales eat it up",
            hint=f"--block-size {SMALLEST_BLOCK} or more; 128 is usual",
        )
    return WeightFormat("int4" if request.weights == "int4" else "int8", request.block_size, 2 if request.fp16 else 4)


def _without_twice_stored(verdicts: Mapping[str, WeightVerdict], index: GraphIndex) -> dict[str, WeightVerdict]:
    """The verdicts less those on weights that another node still reads in float."""
    kept = dict(verdicts)
    for name, verdict in verdicts.items():
        if verdict.quantizer is None:
            continue
        tensor = verdict.quantizer.tensor
        in_float = [
            node.name for node, position in index.readers(tensor) if not _reads(verdicts[node.name].quantizer, position)
        ]
        if in_float:
            reason = f"{in_float[0]!r} reads {tensor!r} in float: storing it twice saves nothing"
            kept[name] = replace(verdict, rule="read-elsewhere", reason=reason, quantizer=None)
    return kept


def _reads(quantizer: WeightQuantizer | None, position: int) -> bool:
    return quantizer is not None and quantizer.reader.index == position


def _decision(node: onnx.NodeProto, verdict: WeightVerdict) -> LayerDecision:
    quantizer = verdict.quantizer
    precision = "fp32" if quantizer is None else _PRECISIONS[quantizer.number_format]
    return LayerDecision(node.name, node.op_type, precision, verdict.rule, verdict.reason)
