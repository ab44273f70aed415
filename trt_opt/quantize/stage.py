"""The quantise stage: what to look at in the data, then the graph with Q/DQ and FP16 written into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.check import check_model
from trt_opt.graph.float_types import with_fp16_io
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.opset import converted_to_opset
from trt_opt.graph.query import infer_shapes, opset
from trt_opt.quantize.fp16_cast import fp16_nodes, with_fp16
from trt_opt.quantize.fp16_risks import extremes, risk_of, tensors_to_watch
from trt_opt.quantize.insertion import with_qdq
from trt_opt.quantize.lint import require_clean
from trt_opt.quantize.placement import placement_of
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement, Taps
from trt_opt.values.precision import LayerDecision, PrecisionPlan

PER_CHANNEL_OPSET = 13
"""DequantizeLinear learnt `axis`, and with it one scale per channel, in opset 13."""

FP16_SCALE_OPSET = 19
"""QuantizeLinear takes FP16 tensors and FP16 scales from opset 19."""

QUANTIZED_OPS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})


@dataclass(frozen=True, slots=True)
class PrecisionRequest:
    """What the user asked for.

    Attributes:
        int8: INT8 where the placement rules say so.
        fp16: FP16 in what is left.
        io_fp16: FP16 graph inputs and outputs too.
        exclude: Nodes to leave in float.
        activation_products: INT8 for MatMuls of two activations too.
    """

    int8: bool = False
    fp16: bool = False
    io_fp16: bool = False
    exclude: tuple[str, ...] = ()
    activation_products: bool = False

    @property
    def name(self) -> str:
        """The request in a word: "INT8 + FP16", "INT8", "FP16" or "FP32"."""
        wanted = [label for label, on in (("INT8", self.int8), ("FP16", self.fp16)) if on]
        return " + ".join(wanted) or "FP32"


@dataclass(frozen=True, slots=True, eq=False)
class FloatGraph:
    """A float model made ready: opset raised, node names unique, types inferred, placement decided."""

    index: GraphIndex
    request: PrecisionRequest
    placement: Placement

    @property
    def model(self) -> onnx.ModelProto:
        """The model itself."""
        return self.index.model

    @property
    def taps(self) -> Taps:
        """What the data pass must see before this graph can be written."""
        calibrated = self.placement.ranges_needed if self.request.int8 else ()
        watched = tensors_to_watch(self.index) if self.request.fp16 else ()
        return Taps(calibrated, tuple(name for name in watched if name not in calibrated))


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedGraph:
    """The graph to build, and the precision of each of the float model's layers."""

    model: onnx.ModelProto
    plan: PrecisionPlan
    warnings: tuple[str, ...] = ()


def float_graph(model: onnx.ModelProto, request: PrecisionRequest) -> FloatGraph:
    """Makes a float model ready and decides where Q/DQ pairs go.

    Args:
        model: A float32 model, rewritten: constants folded, batch normalisations folded.
        request: The precisions asked for.

    Raises:
        UnsupportedModelError: The model is quantised already, has no layer that INT8 helps, or its opset cannot be
            raised far enough.
    """
    _refuse_quantized(model)
    ready = with_unique_node_names(infer_shapes(_with_opset_for(model, request)))
    index = GraphIndex(ready)
    if not request.int8:
        return FloatGraph(index, request, Placement())
    placement = placement_of(index, exclude=request.exclude, activation_products=request.activation_products)
    if not placement.activations:
        raise _nothing_for_int8(placement)
    return FloatGraph(index, request, placement)


def quantized_graph(source: FloatGraph, ranges: Mapping[str, TensorRange]) -> QuantizedGraph:
    """Writes Q/DQ pairs and FP16 into the graph and checks it.

    Args:
        source: The float graph.
        ranges: What the data pass saw at `source.taps`; may be empty for FP16 alone, which then rests on constants.

    Raises:
        StaleError: A calibrated range is missing.
        ModelFileError: The result is not valid ONNX, which is a defect of this package.
    """
    request = source.request
    model = with_qdq(source.index, source.placement, ranges, fp16=request.fp16) if request.int8 else source.model
    layers = {layer.node: layer for layer in _layers(source)}
    kept: dict[str, str] = {}
    if request.fp16:
        kept = _kept_fp32(source.index, ranges)
        index = GraphIndex(infer_shapes(with_fp16_io(model) if request.io_fp16 else model))
        chosen = fp16_nodes(index, kept)
        model = with_fp16(index, kept)
        layers = {name: _with_fp16_decision(layer, name in chosen, kept.get(name)) for name, layer in layers.items()}
    # Strict shape inference refuses some valid models (MeanVarianceNormalization); ONNX Runtime loads each graph later.
    check_model(model, "the quantised model", shapes=False)
    if request.int8:
        require_clean(model)
    return QuantizedGraph(model, PrecisionPlan(tuple(layers.values()), kept), _warnings(source, ranges))


def least_opset(request: PrecisionRequest) -> int | None:
    """The opset that lets the request be written best; None where any will do."""
    if not request.int8:
        return None
    return FP16_SCALE_OPSET if request.fp16 else PER_CHANNEL_OPSET


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model quantises activations already; weights stored in 8 bits alone do not count."""
    return _quantized_node(model) is not None


def _quantized_node(model: onnx.ModelProto) -> onnx.NodeProto | None:
    for node in model.graph.node:
        if node.op_type in QUANTIZED_OPS or node.op_type.startswith("QLinear"):
            found: onnx.NodeProto = node
            return found
    return None


def _refuse_quantized(model: onnx.ModelProto) -> None:
    node = _quantized_node(model)
    if node is not None:
        raise UnsupportedModelError(
            f"{node.op_type}: the model is quantised already",
            where=f"node {node.name or node.output[0]!r}",
            hint="give the float model it was made from",
        )


def _with_opset_for(model: onnx.ModelProto, request: PrecisionRequest) -> onnx.ModelProto:
    """Raises the opset as far as the Q/DQ form needs; FP16 scales are a wish, per-channel scales a must."""
    if not request.int8:
        return model
    wanted = [FP16_SCALE_OPSET, PER_CHANNEL_OPSET] if request.fp16 else [PER_CHANNEL_OPSET]
    have = opset(model)
    failure: UnsupportedModelError | None = None
    for version in wanted:
        if have >= version:
            return model
        try:
            return converted_to_opset(model, version)
        except UnsupportedModelError as error:
            failure = error
    raise UnsupportedModelError(
        f"opset {have} cannot be raised to {PER_CHANNEL_OPSET}, which INT8 needs: {failure.what if failure else ''}",
        where=failure.where if failure else None,
        hint=f"export the model with opset {PER_CHANNEL_OPSET} or later",
    ) from failure


_NESTING = ("If", "Loop", "Scan")
_INSIDE = "holds a graph of its own, which stays in float"


def _nothing_for_int8(placement: Placement) -> UnsupportedModelError:
    reasons = {layer.reason for layer in placement.layers if layer.rule != "not-a-compute-layer"}
    reasons |= {
        f"{layer.node!r} ({layer.op_type}) {_INSIDE}" for layer in placement.layers if layer.op_type in _NESTING
    }
    told = "; ".join(sorted(reasons)[:5]) or "it has no Conv, ConvTranspose, Gemm or MatMul with constant weights"
    return UnsupportedModelError(
        f"no layer of this model can run in INT8: {told}",
        hint="build with --fp16",
        nodes=tuple((layer.node, layer.op_type, layer.reason) for layer in placement.layers),
    )


def _kept_fp32(index: GraphIndex, ranges: Mapping[str, TensorRange]) -> dict[str, str]:
    seen = extremes(index, ranges)
    risks = {node.name: risk_of(node, index, seen, ranges) for node in index.model.graph.node}
    return {name: reason for name, reason in risks.items() if reason is not None}


def _layers(source: FloatGraph) -> tuple[LayerDecision, ...]:
    layers = source.placement.layers or tuple(
        LayerDecision(node.name, node.op_type, "fp32", "as-is", "nothing else was asked for")
        for node in source.model.graph.node
    )
    nodes = source.index.nodes
    return tuple(layer if _has_float(nodes[layer.node], source.index) else _as_other(layer) for layer in layers)


def _has_float(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a floating-point tensor goes in or out; a type inference could not tell counts as one."""
    kinds = {index.element_type(name) for name in (*node.input, *node.output) if name}
    return bool(kinds & {None, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


def _as_other(layer: LayerDecision) -> LayerDecision:
    return replace(layer, precision="other", rule="no-float", reason="it holds no floating-point tensor")


def _with_fp16_decision(layer: LayerDecision, is_fp16: bool, risk: str | None) -> LayerDecision:
    if layer.precision == "int8":
        return layer
    if is_fp16:
        return replace(layer, precision="fp16")
    if layer.precision == "other":
        return layer
    if risk is not None:
        return replace(layer, rule="fp16-risk", reason=risk)
    return replace(layer, rule="no-fp16-form", reason=f"{layer.op_type} has nothing to convert, or no FP16 form")


def _warnings(source: FloatGraph, ranges: Mapping[str, TensorRange]) -> tuple[str, ...]:
    if source.request.fp16 and not ranges:
        return ("FP16 was chosen without data: no tensor's range was seen, only constants were checked for overflow",)
    return ()
