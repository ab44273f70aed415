"""The placement policy as the methods that quantise activations ask for it."""

from __future__ import annotations

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.placement import INT8_SCHEME, Scheme, placement_of
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.values.placement import Placement


def policy_placement(
    index: GraphIndex,
    request: PrecisionRequest,
    precision: str,
    *,
    scheme: Scheme = INT8_SCHEME,
    may_be_empty: bool = False,
) -> Placement:
    """The policy's placement.

    Args:
        index: The float model.
        request: What was asked for.
        precision: What errors call it: "INT8".
        scheme: What activations and weights become.
        may_be_empty: There is something to do for the method even where no layer is quantised.

    Raises:
        RequestError: An excluded node does not exist.
        UnsupportedModelError: No activation can be quantised.
    """
    placement = placement_of(
        index,
        exclude=request.exclude,
        spared=request.spared,
        activation_products=request.activation_products,
        scheme=scheme,
    )
    if not placement.activations and not may_be_empty:
        raise nothing_to_quantize(placement, precision)
    return placement


_NESTING = ("If", "Loop", "Scan")
_INSIDE = "holds a graph of its own, which stays in float"


def nothing_to_quantize(placement: Placement, precision: str) -> UnsupportedModelError:
    """The error for a model of which no layer can be quantised, with the reasons."""
    reasons = {layer.reason for layer in placement.layers if layer.rule != "not-a-compute-layer"}
    reasons |= {
        f"{layer.node!r} ({layer.op_type}) {_INSIDE}" for layer in placement.layers if layer.op_type in _NESTING
    }
    told = "; ".join(sorted(reasons)[:5]) or "it has no Conv, ConvTranspose, Gemm or MatMul with constant weights"
    return UnsupportedModelError(
        f"no layer of this model can run in {precision}: {told}",
        hint="build with --fp16",
        nodes=tuple((layer.node, layer.op_type, layer.reason) for layer in placement.layers),
    )
