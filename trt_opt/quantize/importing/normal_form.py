"""Any quantised model as floats between QuantizeLinear and DequantizeLinear, which one set of rules can go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from trt_opt.errors import TrtOptError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.opset import converted_to_opset
from trt_opt.graph.query import PAIR_OPS, infer_shapes, opset_or_none
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.graph.writer import FREE_INITIALISERS
from trt_opt.quantize.importing import block_operators, data_movement, dynamic_operators, linear_pairs, stored_constants
from trt_opt.quantize.importing.channel_factors import with_factors_in_scales
from trt_opt.quantize.importing.constants import ConstantReader
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import ACTIVATION_TYPES, Held, UnreadableError
from trt_opt.quantize.importing.leftovers import DYNAMIC, QUANTISED, is_linear_operator, leftovers
from trt_opt.quantize.importing.node_reading import integer_attribute
from trt_opt.quantize.importing.qlinear_operators import LINEAR_OPERATORS, linear_operator
from trt_opt.values.changes import Change, Decline

LEAST_OPSET = 13
"""From this opset on DequantizeLinear takes one scale per channel."""

WIDE_TYPES = (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)

_IR_VERSIONS = {LEAST_OPSET: 7, block_operators.BLOCK_OPSET: 10}
"""The IR versions that came with these opsets (onnx's docs/Versioning.md)."""

Rule = Callable[[onnx.NodeProto, FloatGraph], bool]


@dataclass(frozen=True, slots=True, eq=False)
class NormalForm:
    """A quantised model in normal form, as far as that goes.

    Attributes:
        model: The model; the very one that was given where it was in normal form.
        changed: What was done, in graph order; says so where numbers changed by more than float rounding.
        declined: What was left as it was, and why.
        kinds: What was found: "QOperator", "Q/DQ", "dynamic", or "weights stored quantised" alone.
    """

    model: onnx.ModelProto
    changed: tuple[Change, ...]
    declined: tuple[Decline, ...]
    kinds: tuple[str, ...]


_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "Cast": (dynamic_operators.cast_product, linear_pairs.cast),
        "Clip": (linear_pairs.clip,),
        "ConvInteger": (dynamic_operators.integer_product,),
        "DequantizeLinear": (linear_pairs.dequantize,),
        "DynamicQuantizeLinear": (dynamic_operators.dynamic_quantize,),
        "DynamicQuantizeMatMul": (dynamic_operators.dynamic_matmul,),
        "MatMulInteger": (dynamic_operators.integer_product,),
        "MatMulIntegerToFloat": (dynamic_operators.dynamic_matmul,),
        "MatMulNBits": (block_operators.matmul_in_blocks,),
        "Mul": (dynamic_operators.multiply,),
        "QuantizeLinear": (linear_pairs.quantize,),
        "Relu": (linear_pairs.clip,),
        "Reshape": (stored_constants.reshape,),
        "Transpose": (stored_constants.transpose,),
        **dict.fromkeys(LINEAR_OPERATORS, (linear_operator,)),
        **dict.fromkeys(data_movement.LOOKS, (data_movement.look,)),
    }
)

_OTHER_DOMAINS = frozenset({"com.microsoft"})


def normal_form(model: onnx.ModelProto) -> NormalForm:
    """Brings a quantised model into normal form, which computes the same numbers up to float rounding.

    In it ONNX's own QuantizeLinear and DequantizeLinear are all there is of quantisation. An activation's
    QuantizeLinear has a constant scalar scale and zero-point and is read by one DequantizeLinear of the same grid, or
    is a graph output; data movement happens to floats. Weights are integers behind a DequantizeLinear; biases are
    floats. Quantisation to grids found at run time is dropped, for that cannot be had in TensorRT.

    Args:
        model: Any model; never edited. What cannot be brought to normal form stays, and is declined.
    """
    named = with_unique_node_names(model)
    kinds = tuple(_kinds(named))
    if not kinds:
        return NormalForm(model, (), (), ())
    if named.ir_version < FREE_INITIALISERS:
        named = _raised(named)
    graph = FloatGraph(GraphIndex(infer_shapes(named)))
    _hold_integer_inputs(graph)
    for node in named.graph.node:
        _rewrite(node, graph)
    written = graph.finished(named) if graph.changed else named
    folded = with_factors_in_scales(written)
    changed = (*graph.changed, *folded.changed)
    result: onnx.ModelProto | None = _with_channels(folded.model, graph) if changed else None
    known = {decline.node for decline in graph.declined}
    left = [entry for entry in leftovers(named if result is None else result) if entry.node not in known]
    declined = (*graph.declined, *left)
    if result is None:
        return NormalForm(model, (), declined, kinds)
    return NormalForm(result, changed, declined, kinds)


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in a format whose initialisers need not be graph inputs too."""
    raised = onnx.ModelProto()
    raised.CopyFrom(model)
    raised.ir_version = FREE_INITIALISERS
    return raised


def _rewrite(node: onnx.NodeProto, graph: FloatGraph) -> None:
    read = graph.read(node)
    rules = _RULES.get(node.op_type, ()) if node.domain in {"", "ai.onnx"} | _OTHER_DOMAINS else ()
    try:
        if any(rule(read, graph) for rule in (*rules, data_movement.move)):
            return
    except UnreadableError as reason:
        graph.declined.append(Decline(node.name, str(reason)))
    graph.keep(read)


def _hold_integer_inputs(graph: FloatGraph) -> None:
    """Graph inputs of integers are on the grid on which they are read."""
    for name in graph.index.inputs:
        if graph.index.element_type(name) not in ACTIVATION_TYPES:
            continue
        grids = data_movement.asked_grids(name, graph)
        if len(grids) == 1:
            graph.held[name] = Held(grids.pop())
        elif grids:
            graph.declined.append(Decline(name, "the graph input is read on several grids"))


def _with_channels(model: onnx.ModelProto, graph: FloatGraph) -> onnx.ModelProto | None:
    """The model in an opset that has scales per channel, per block, or for 16 bits; None where it cannot be had."""
    pairs = [node for node in model.graph.node if node.op_type in PAIR_OPS]
    wide = {tensor.name for tensor in model.graph.initializer if tensor.data_type in WIDE_TYPES}
    has_blocks = any(integer_attribute(node, "block_size") for node in pairs)
    is_recent = has_blocks or any(wide.intersection(node.input[2:]) for node in pairs)
    least = block_operators.BLOCK_OPSET if is_recent else LEAST_OPSET
    if (opset_or_none(model) or least) >= least:
        return model
    try:
        raised = converted_to_opset(model, least)
    except TrtOptError as error:
        graph.declined.append(Decline(error.where or "model", f"opset {least} is needed: {error.what}"))
        return None
    raised.ir_version = max(raised.ir_version, _IR_VERSIONS[least])
    return raised


def _kinds(model: onnx.ModelProto) -> Iterator[str]:
    nodes = model.graph.node
    found = {node.op_type for node in nodes}
    if any(is_linear_operator(node) for node in nodes):
        yield "QOperator"
    has_activations = "QuantizeLinear" in found and not _quantizes_constants_alone(model)
    if has_activations:
        yield "Q/DQ"
    if found & DYNAMIC:
        yield "dynamic"
    stores = found & {"DequantizeLinear", "MatMulNBits"}
    if stores and not has_activations and found & QUANTISED <= {"QuantizeLinear", *stores}:
        yield "weights stored quantised"
    if any(node.op_type in QUANTISED for outer in nodes for inner in subgraphs_of(outer) for node in inner.node):
        yield "in subgraphs"


def _quantizes_constants_alone(model: onnx.ModelProto) -> bool:
    constant = ConstantReader(GraphIndex(model))
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return bool(quantizers) and all(constant(node.input[0]) is not None for node in quantizers)
