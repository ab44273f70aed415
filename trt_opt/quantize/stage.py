"""The quantise stage: what to look at in the data, then the graph with Q/DQ and FP16 written into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.float_types import with_fp16_io
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.opset import converted_to_opset
from trt_opt.graph.query import infer_shapes, opset
from trt_opt.quantize.corrections import Correction, with_corrections
from trt_opt.quantize.exclusion import without_pairs
from trt_opt.quantize.fp16_cast import fp16_nodes, with_fp16
from trt_opt.quantize.fp16_risks import extremes, risk_of, tensors_to_watch
from trt_opt.quantize.integer_ends import integer_ends
from trt_opt.quantize.lint import require_clean
from trt_opt.quantize.methods import METHODS, method_called
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.placement import ACCURACY
from trt_opt.quantize.quantized_models import decisions_of, is_quantized, stores_quantized_weights
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.quantize.validity import require_as_valid
from trt_opt.quantize.weak_form import WeakForm, weak_form
from trt_opt.values.calibration import TensorRange
from trt_opt.values.integer_ends import IntegerEnds
from trt_opt.values.placement import Placement, Taps
from trt_opt.values.precision import QUANTIZED, LayerDecision, PrecisionPlan

NO_CORRECTIONS: Mapping[str, Correction] = MappingProxyType({})

__all__ = [
    "Correction",
    "FloatGraph",
    "PrecisionRequest",
    "QuantizedGraph",
    "float_graph",
    "is_quantized",
    "least_opset",
    "quantized_graph",
]


@dataclass(frozen=True, slots=True, eq=False)
class FloatGraph:
    """A model made ready: opset raised, node names unique, types inferred, placement decided.

    Attributes:
        index: The model. It is float, or was quantised when it came and keeps its Q/DQ pairs.
        request: The precisions asked for.
        placement: Where quantisers go; none for a model that came quantised.
        came_quantized: Whether the Q/DQ pairs are the model's own.
    """

    index: GraphIndex
    request: PrecisionRequest
    placement: Placement
    came_quantized: bool = False

    @property
    def model(self) -> onnx.ModelProto:
        """The model itself."""
        return self.index.model

    @property
    def taps(self) -> Taps:
        """What the data pass must see before this graph can be written."""
        calibrated = self.placement.ranges_needed
        watched = tensors_to_watch(self.index) if self.request.fp16 else ()
        return Taps(calibrated, tuple(name for name in watched if name not in calibrated))

    @property
    def quantized_nodes(self) -> frozenset[str]:
        """The nodes that the placement quantises."""
        return frozenset(layer.node for layer in self.placement.layers if layer.precision in QUANTIZED)

    @property
    def name(self) -> str:
        """The precisions in words: "INT8 + FP16", "INT8", "FP16" or "FP32"."""
        labels = [_quantized_label(self)] if self.came_quantized or self.request.method is not None else []
        return " + ".join([*labels, *(["FP16"] if self.request.fp16 else [])]) or "FP32"


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedGraph:
    """The graph to build, the precision of each of the float model's layers, and its ends where they are integers.

    Attributes:
        model: The graph with every precision written into it; what is simulated, and built where types bind.
        plan: The decision about every layer.
        warnings: What the user should know.
        ends: Its inputs and outputs where they are integers.
        weak: What is built where builder flags decide; None where types do.
    """

    model: onnx.ModelProto
    plan: PrecisionPlan
    warnings: tuple[str, ...] = ()
    ends: IntegerEnds | None = None
    weak: WeakForm | None = None

    @property
    def built(self) -> onnx.ModelProto:
        """What the builder gets."""
        return self.model if self.weak is None else self.weak.model


def float_graph(model: onnx.ModelProto, request: PrecisionRequest) -> FloatGraph:
    """Makes a model ready and decides where quantisers go.

    A model that is quantised already keeps its quantisation, whatever method was asked for.

    Args:
        model: A float32 model, rewritten (constants folded, batch normalisations folded), or an imported quantised one.
        request: The precisions asked for.

    Raises:
        UnsupportedModelError: The model has no layer that the method helps, or its opset cannot be raised far enough.
    """
    came_quantized = is_quantized(model) or (request.method is None and stores_quantized_weights(model))
    if came_quantized:
        request = replace(request, method=None)
        model = without_pairs(with_unique_node_names(model), request.exclude)
    ready = with_unique_node_names(infer_shapes(_with_opset_for(model, request)))
    index = GraphIndex(ready)
    if came_quantized:
        return FloatGraph(index, request, Placement(layers=decisions_of(index)), came_quantized=True)
    if request.method is None:
        return FloatGraph(index, request, Placement())
    return FloatGraph(index, request, method_called(request.method).placement(index, request))


def quantized_graph(
    source: FloatGraph,
    ranges: Mapping[str, TensorRange],
    corrections: Mapping[str, Correction] = NO_CORRECTIONS,
) -> QuantizedGraph:
    """Writes Q/DQ pairs and FP16 into the graph and checks it.

    Args:
        source: The float graph.
        ranges: What the data pass saw at `source.taps`; may be empty for FP16 alone, which then rests on constants.
        corrections: Layer → the constants it has where it is quantised.

    Raises:
        StaleError: A calibrated range is missing.
        ModelFileError: The result is not valid ONNX, which is a defect of this package.
    """
    request, model = source.request, source.model
    if request.method is not None:
        corrected = with_corrections(source.index, corrections, source.quantized_nodes)
        model = METHODS[request.method].written(corrected, source.placement, ranges, request)
    layers = {layer.node: layer for layer in _layers(source)}
    kept: dict[str, str] = {}
    in_float32 = model
    if request.fp16:
        kept = _kept_fp32(source.index, ranges)
        kept |= {name: why for name, why in request.wide.items() if name not in source.quantized_nodes}
        index = GraphIndex(infer_shapes(with_fp16_io(model) if request.io_fp16 else model))
        chosen = fp16_nodes(index, kept)
        model = with_fp16(index, kept)
        layers = {name: _with_fp16_decision(layer, name in chosen, kept.get(name)) for name, layer in layers.items()}
    # Strict shape inference refuses some valid models (MeanVarianceNormalization); ONNX Runtime loads each graph later.
    require_as_valid(model, source.model, "the quantised model", shapes=False)
    if request.method is not None:
        require_clean(model)
    ends = integer_ends(model, source.index, request.image)
    weak = None if request.typed else _weak(in_float32, request, kept)
    return QuantizedGraph(model, PrecisionPlan(tuple(layers.values()), kept), _warnings(source, ranges), ends, weak)


def _weak(in_float32: onnx.ModelProto, request: PrecisionRequest, kept: Mapping[str, str]) -> WeakForm:
    """What a builder with flags gets: no FP16 but at the ends, where it was asked for."""
    half_ends = request.fp16 and request.io_fp16
    ends = with_fp16_io(in_float32) if half_ends else in_float32
    weak = weak_form(ends, fp16=request.fp16, pinned=kept, calibrated=request.method == Implicit.name)
    require_as_valid(weak.model, in_float32, "the graph for a builder with precision flags", shapes=False)
    return weak


def least_opset(request: PrecisionRequest) -> int | None:
    """The opset that lets the request be written best; None where any will do."""
    return None if request.method is None else method_called(request.method).opset_need(request).wanted


def _with_opset_for(model: onnx.ModelProto, request: PrecisionRequest) -> onnx.ModelProto:
    """Raises the opset as far as the method's form needs."""
    if request.method is None:
        return model
    need = method_called(request.method).opset_need(request)
    have = opset(model)
    failure: UnsupportedModelError | None = None
    for version in (need.wanted, need.required):
        if have >= version:
            return model
        try:
            return converted_to_opset(model, version)
        except UnsupportedModelError as error:
            failure = error
    raise UnsupportedModelError(
        f"opset {have} cannot be raised to {need.required}, which {method_called(request.method).label(request)} "
        f"needs: {failure.what if failure else ''}",
        where=failure.where if failure else None,
        hint=f"export the model with opset {need.required} or later",
    ) from failure


def _quantized_label(source: FloatGraph) -> str:
    if source.request.method is not None:
        return METHODS[source.request.method].label(source.request)
    found = [kind for kind in QUANTIZED if any(layer.precision == kind for layer in source.placement.layers)]
    return found[0].upper().replace("-WEIGHTS", " weights") if found else "Q/DQ"


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
    if layer.precision in ("int8", "fp8"):
        return layer
    if layer.precision in QUANTIZED:
        return layer if is_fp16 else replace(layer, reason=f"{layer.reason}; computes in FP32")
    if is_fp16:
        return replace(layer, precision="fp16")
    if layer.precision == "other":
        return layer
    if risk is not None and layer.rule == ACCURACY:
        return layer if risk == layer.reason else replace(layer, reason=f"{layer.reason}; FP32 because {risk}")
    if risk is not None:
        return replace(layer, rule="fp16-risk", reason=risk)
    return replace(layer, rule="no-fp16-form", reason=f"{layer.op_type} has nothing to convert, or no FP16 form")


def _warnings(source: FloatGraph, ranges: Mapping[str, TensorRange]) -> tuple[str, ...]:
    if source.request.fp16 and not ranges:
        return ("FP16 was chosen without data: no tensor's range was seen, only constants were checked for overflow",)
    return ()
