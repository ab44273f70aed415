"""Operators written out as the functions that define them."""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Iterator

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from trt_opt.graph.names import tensor_names
from trt_opt.graph.query import all_nodes, node_label
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.graph.types import inferred_types
from trt_opt.passes.base import Pass
from trt_opt.passes.layers.function_bodies import (
    FunctionKey,
    Surroundings,
    domain_of,
    function_key,
    has_body,
    nodes_instead,
)
from trt_opt.passes.node_pass import DeclinedError, operator_of
from trt_opt.values.rewriting import Change, Decline, PassReport
from trt_opt.values.tensors import TensorSpec

LACKED_BY_TENSORRT = frozenset(
    {
        "Bernoulli",
        "CausalConvWithState",
        "CenterCropPad",
        "LinearAttention",
        "NegativeLogLikelihoodLoss",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
        "ai.onnx.preview::FlexAttention",
    }
)
"""Operators with a function body that TensorRT-RTX 1.7 refuses in every form."""

_NONPAD_KV_SEQLEN = 6
"""Position among the inputs of Attention."""

_WINDOWS = frozenset({"left_window_size", "right_window_size"})
"""Attributes of Attention; -1 is no window."""

_NARROW_FLOATS = frozenset({"float16", "bfloat16"})
_CLIPPED_BY_TENSORRT = frozenset({"float16", "bfloat16", "float32", "float64", "int32", "int64"})

_INTEGERS = frozenset({"int32", "int64", "uint32", "uint64"})

_SMALLEST_FUSED_HEAD = 16
"""TensorRT-RTX 1.7 has fused kernels for heads of 16 elements and more (tried: 8, 16, 32 ... 256, for SM86)."""

Types = ChainMap[str, TensorSpec]


class ExpandFunctions(Pass):
    """Writes an operator as the simpler operators that ONNX defines it by.

    What it does: ONNX defines many operators as functions, and a model may bring functions of its own. A call is
    replaced by the nodes of the function, one level deep, with the inputs, outputs and attributes of the call; what is
    only needed for outputs that the call leaves out is left out. Attention with `nonpad_kv_seqlen` or a
    window is always replaced.

    Why TensorRT wants it: It knows the simpler operators only: it has no losses, no LinearAttention, and Attention with
    one output, without softcap, and with a mask or causal but not both. It ignores Attention's
    `nonpad_kv_seqlen` and windows.

    Example: NegativeLogLikelihoodLoss(x, target) becomes GatherElements, Neg and ReduceMean over Unsqueeze(target).

    When it declines: The type of an input, which the function depends on, is not known; the function is written for
    another opset and onnx cannot convert it; it reads an input that the call leaves out.

    Args:
        refused: The names of the nodes that the target refuses; a call of the model's own function also counts as
            refused where a node inside the function is. None replaces what TensorRT is known to lack.
    """

    name = "expand_functions"

    def __init__(self, refused: frozenset[str] | None = None) -> None:
        self.refused = refused

    def on(self, refused: frozenset[str]) -> ExpandFunctions:
        """The same pass for these nodes alone."""
        scoped = copy.copy(self)
        scoped.refused = refused
        return scoped

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Expands calls in all graphs; what the bodies call in turn is left to the next run."""
        around = _surroundings(model)
        if not any(self._may_want(node, around) for node in all_nodes(model)):
            return model, PassReport(self.name)
        edited = ModelProto()
        edited.CopyFrom(model)
        expansion = _Expansion(self, around, iter(inferred_types(model)))
        expansion.graph(edited.graph, ChainMap())
        report = PassReport(self.name, tuple(expansion.changes), tuple(expansion.declines))
        if not report.changed:
            return model, report
        _import_domains(edited, around.opsets)
        _drop_uncalled_functions(edited)
        return edited, report

    def wants(self, node: NodeProto, types: Types, around: Surroundings) -> bool:
        """Whether the node is one of those to be replaced."""
        if self.misread(node):
            return True
        if self.refused is None:
            return _is_lacked(node, types, around, set())
        return has_body(node, around) and (node.name in self.refused or self._fails_inside(node, around, set()))

    @staticmethod
    def misread(node: NodeProto) -> bool:
        """Whether TensorRT takes this node and computes something else: it reads no lengths or windows of Attention."""
        if operator_of(node.op_type, node.domain) != "Attention":
            return False
        has_lengths = len(node.input) > _NONPAD_KV_SEQLEN and bool(node.input[_NONPAD_KV_SEQLEN])
        return has_lengths or any(attribute.name in _WINDOWS and attribute.i >= 0 for attribute in node.attribute)

    def _may_want(self, node: NodeProto, around: Surroundings) -> bool:
        """A quick look that needs no types."""
        return self.misread(node) or (
            has_body(node, around)
            and (self.refused is None or node.name in self.refused or self._fails_inside(node, around, set()))
        )

    def _fails_inside(self, node: NodeProto, around: Surroundings, seen: set[FunctionKey]) -> bool:
        """Whether a node inside the model's own function is refused: TensorRT names that one, not the call."""
        refused = self.refused or frozenset()
        return any(
            inner.name in refused or self._fails_inside(inner, around, seen)
            for inner in _inside(function_key(node), around, seen)
        )


class _Expansion:
    """One run of the pass over a copy of the model."""

    def __init__(self, entry: ExpandFunctions, around: Surroundings, types: Iterator[dict[str, TensorSpec]]) -> None:
        self.entry = entry
        self.around = around
        self.types = types
        self.changes: list[Change] = []
        self.declines: list[Decline] = []

    def graph(self, graph: GraphProto, outer: Types) -> None:
        """Expands in one graph, then in those nested in its nodes; `types` are in the same order."""
        types = outer.new_child(next(self.types))
        nodes: list[NodeProto] = []
        for node in graph.node:
            for nested in subgraphs_of(node):
                self.graph(nested, types)
            nodes += self.nodes_for(node, types) if self.entry.wants(node, types, self.around) else [node]
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)

    def nodes_for(self, node: NodeProto, types: Types) -> list[NodeProto]:
        try:
            nodes = nodes_instead(node, types, self.around)
        except DeclinedError as reason:
            self.declines.append(Decline(node_label(node), str(reason)))
            return [node]
        count = f"{len(nodes)} node" + ("s" if len(nodes) != 1 else "")
        self.changes.append(Change(node_label(node), f"{node.op_type} written out as {count}"))
        return nodes


def _surroundings(model: ModelProto) -> Surroundings:
    functions = {(each.domain, each.name, each.overload): each for each in model.functions}
    names = tensor_names(model.graph)
    names.update(sparse.values.name for sparse in model.graph.sparse_initializer)
    return Surroundings(
        opsets={domain_of(entry.domain): entry.version for entry in model.opset_import},
        functions=functions,
        tensor_names=names,
        node_names={node.name for node in all_nodes(model)},
    )


def _inside(key: FunctionKey, around: Surroundings, seen: set[FunctionKey]) -> Iterator[NodeProto]:
    """The nodes of one of the model's own functions, nested graphs included; each function once."""
    function = around.functions.get(key)
    if function is None or key in seen:
        return
    seen.add(key)
    yield from _nodes_of(function)


def _nodes_of(holder: FunctionProto | GraphProto) -> Iterator[NodeProto]:
    for node in holder.node:
        yield node
        for graph in subgraphs_of(node):
            yield from _nodes_of(graph)


def _is_lacked(node: NodeProto, types: Types, around: Surroundings, seen: set[FunctionKey]) -> bool:
    """Whether TensorRT-RTX 1.7 is known to refuse the node."""
    key = function_key(node)
    if key in around.functions:
        no_types: Types = ChainMap()
        return any(_is_lacked(inner, no_types, around, seen) for inner in _inside(key, around, seen))
    if operator_of(node.op_type, node.domain) in LACKED_BY_TENSORRT:
        return True
    spec = types.get(node.input[0]) if node.input else None
    dtype = None if spec is None else spec.dtype
    match operator_of(node.op_type, node.domain):
        case "Attention":
            return dtype not in _NARROW_FLOATS or not _is_fused_attention(node, spec)
        case "LayerNormalization":
            return sum(map(bool, node.output)) > 1
        case "Clip":
            return dtype is not None and dtype not in _CLIPPED_BY_TENSORRT
        case "Celu":
            return dtype in _NARROW_FLOATS
        case "PRelu":
            return dtype in _INTEGERS
    return False


def _is_fused_attention(node: NodeProto, query: TensorSpec | None) -> bool:
    """Whether TensorRT's fused layer knows all that is asked for, and has a kernel for the size of the heads."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    has_mask = len(node.input) > 3 and bool(node.input[3])
    is_simple = not given.get("softcap") and "softmax_precision" not in given and sum(map(bool, node.output)) == 1
    if not is_simple or any(node.input[4:]) or (has_mask and given.get("is_causal")):
        return False
    width = query.shape[-1] if query is not None and query.shape else None
    if not isinstance(width, int):
        return False
    return width // int(given.get("q_num_heads") or 1) >= _SMALLEST_FUSED_HEAD


def _import_domains(model: ModelProto, opsets: dict[str, int]) -> None:
    known = {domain_of(entry.domain) for entry in model.opset_import}
    for domain, version in opsets.items():
        if domain not in known:
            model.opset_import.add(domain=domain, version=version)


def _drop_uncalled_functions(model: ModelProto) -> None:
    functions = {(each.domain, each.name, each.overload): each for each in model.functions}
    waiting = [function_key(node) for node in all_nodes(model)]
    called: set[FunctionKey] = set()
    while waiting:
        key = waiting.pop()
        if key in functions and key not in called:
            called.add(key)
            waiting += [function_key(node) for node in _nodes_of(functions[key])]
    kept = [functions[key] for key in functions if key in called]
    del model.functions[:]
    model.functions.extend(kept)
