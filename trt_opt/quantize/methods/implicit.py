"""Implicit quantisation, for TensorRT up to 10: the graph stays float, a calibration cache holds the ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.methods.method import OpsetNeed
from trt_opt.quantize.methods.policy import policy_placement
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement
from trt_opt.values.precision import LayerDecision

ANY_OPSET = 1
"""Nothing is written into the graph."""


class Implicit:
    """Every float tensor's range for TensorRT's builder, which chooses by its own timing what runs in INT8.

    TensorRT 8.5-10 runs a layer in INT8 only if it knows the ranges of its inputs and of its outputs (developer guide,
    "Setting Per-Tensor Dynamic Range"), so all are calibrated, not those of the placement policy alone.
    """

    name = "implicit"
    needs_data = True

    def label(self, request: PrecisionRequest) -> str:
        """What tables call it."""
        del request
        return "implicit INT8"

    def opset_need(self, request: PrecisionRequest) -> OpsetNeed:
        """Any will do."""
        del request
        return OpsetNeed(ANY_OPSET, ANY_OPSET)

    def placement(self, index: GraphIndex, request: PrecisionRequest) -> Placement:
        """No pairs; the ranges of all float tensors, and the layers that the policy would give to INT8."""
        policy = policy_placement(index, request, "INT8")
        return Placement(layers=tuple(_offered(layer) for layer in policy.layers), calibrated=float_tensors(index))

    def written(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], request: PrecisionRequest
    ) -> onnx.ModelProto:
        """The float model as it is."""
        del placement, ranges, request
        return index.model


def float_tensors(index: GraphIndex) -> tuple[str, ...]:
    """Every float32 tensor that is computed or fed, in graph order; constants have their range in themselves."""
    graph = index.model.graph
    fed = [value.name for value in graph.input if value.name in index.inputs]
    made = [name for node in graph.node for name in node.output if name]
    return tuple(
        name
        for name in (*fed, *made)
        if index.element_type(name) == onnx.TensorProto.FLOAT and not index.is_constant(name)
    )


def _offered(layer: LayerDecision) -> LayerDecision:
    if layer.precision != "int8":
        return layer
    return replace(layer, reason=f"{layer.reason}; TensorRT has its ranges and decides by speed")
