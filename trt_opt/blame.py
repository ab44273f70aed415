"""Which nodes a parser's or a builder's answer is about, and which of a model's nodes no answer is needed for."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx
from onnx import ModelProto, NodeProto

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.query import (
    STANDARD_DOMAINS,
    all_nodes,
    graph_inputs,
    graph_outputs,
    node_label,
    unknown_nodes,
)
from trt_opt.graph.tensors import graphs_of
from trt_opt.graph.twins import twins_of
from trt_opt.graph.types import inferred_types
from trt_opt.passes import REPAIRS
from trt_opt.passes.node_pass import NodePass, operator_of
from trt_opt.values.backend import ParseReport
from trt_opt.values.summary import RefusedNode
from trt_opt.values.tensors import TensorSpec

TYPES_OF_TENSORRT = frozenset(
    {"float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int32", "int64"}
    | {"float8e4m3fn", "float4e2m1", "int4"}
)
"""The element types its networks may have as inputs and outputs (float64 becomes float32)."""

LEFT_TO_THE_BUILDER = frozenset(
    {"Attention", "CastLike", "DequantizeLinear", "If", "Loop", "NonMaxSuppression", "QuantizeLinear", "Scan"}
)
"""The operators whose forms the parser takes but the builder of TensorRT-RTX 1.7 may refuse (measured over onnx's own
test models; docs/measured/census.md)."""

NARROW = ("float8", "float4", "int4")
"""How the names of the types begin that only few layers may read or write."""

READS_TYPE_OR_SHAPE_ONLY = frozenset(
    {"CastLike", "ConstantOfShape", "Dropout", "EyeLike", "OptionalHasElement", "Shape", "Size"}
    | {"Bernoulli", "RandomNormalLike", "RandomUniformLike"}
)
"""Operators that may leave an input unread without computing something else."""

OF_ONNX_RUNTIME_ALONE = "is an operator of ONNX Runtime alone"


def refused(node: NodeProto, reason: str) -> RefusedNode:
    """The node and why it is refused."""
    return RefusedNode(node_label(node), node.op_type, reason)


def untypable_ends(model: ModelProto) -> tuple[RefusedNode, ...]:
    """The graph inputs and outputs of types that TensorRT has not."""
    ends = [(spec, "graph input") for spec in graph_inputs(model)]
    ends += [(spec, "graph output") for spec in graph_outputs(model)]
    return tuple(
        RefusedNode(spec.name, kind, f"TensorRT has no {spec.dtype} for a {kind}")
        for spec, kind in ends
        if spec.dtype not in TYPES_OF_TENSORRT
    )


def foreign_nodes(model: ModelProto) -> tuple[RefusedNode, ...]:
    """ONNX Runtime's own operators, withdrawn ones, and those of other domains that are called like one of ONNX's.

    The parser looks at names alone, and would take some of them for others. Operators ONNX does not know are left to
    it otherwise: they may be plugins.
    """
    local = {(function.domain, function.name) for function in model.functions}
    namesakes = (
        node
        for node in all_nodes(model)
        if node.domain not in STANDARD_DOMAINS
        and not node.domain.startswith("com.microsoft")
        and (node.domain, node.op_type) not in local
        and onnx.defs.has(node.op_type)
    )
    runtimes = (node for node in all_nodes(model) if node.domain.startswith("com.microsoft"))
    withdrawn = (node for node in unknown_nodes(model) if operator_of(node.op_type, node.domain) in _REPLACEABLE)
    return (
        *(refused(node, f"{node.domain}::{node.op_type} {OF_ONNX_RUNTIME_ALONE}") for node in runtimes),
        *(
            refused(node, f"{node.domain}::{node.op_type} would be taken for ONNX's {node.op_type}")
            for node in namesakes
        ),
        *(refused(node, f"ONNX has no {node.op_type} in the model's opset") for node in withdrawn),
    )


_REPLACEABLE = frozenset(
    operator for entry in REPAIRS.values() if isinstance(entry, NodePass) for operator in entry.operators
)


def refused_by_parser(model: ModelProto, parsed: ParseReport) -> tuple[RefusedNode, ...]:
    """The nodes the parser names, all like them, and all whose operator it does not know."""
    if not parsed.refused:
        return ()
    entries = [named for entry in parsed.refused for named in _with_nodes(model, entry)]
    reasons = {entry.node: entry for entry in reversed(entries)}
    named = twins_of(model, list(reasons))
    untyped = _nodes_of_lacking_types(model)
    first = entries[0]
    found = list(reasons.values())
    for node in all_nodes(model):
        if node.name in reasons:
            continue
        if node.name in named:
            found.append(refused(node, first.reason))
        elif node.op_type in parsed.unknown_operators and node.domain in STANDARD_DOMAINS:
            found.append(refused(node, f"there is no importer for {node.op_type}"))
        elif node.name in untyped:
            found.append(refused(node, f"TensorRT has no {untyped[node.name]}"))
    return tuple(found)


def _nodes_of_lacking_types(model: ModelProto) -> dict[str, str]:
    """The nodes that read or write tensors of types TensorRT has not: node → type."""
    types = inferred_types(model)
    found = {}
    for graph, known in zip(graphs_of(model.graph), types, strict=True):
        lacking = {name: spec.dtype for name, spec in known.items() if spec.dtype not in TYPES_OF_TENSORRT}
        for node in graph.node:
            touched = [lacking[name] for name in (*node.input, *node.output) if name in lacking]
            found.update({node.name: touched[0]} if touched else {})
    return found


def _with_nodes(model: ModelProto, entry: RefusedNode) -> list[RefusedNode]:
    """The entry; where the parser tells the operator alone, one for every node of it."""
    if entry.node or not entry.op_type:
        return [entry]
    return [refused(node, entry.reason) for node in all_nodes(model) if node.op_type == entry.op_type] or [entry]


def misread_by_parser(model: ModelProto, parsed: ParseReport) -> tuple[RefusedNode, ...]:
    """The nodes at which the parser's network and ONNX part: other output shapes, inputs it never reads."""
    known = inferred_types(model)[0]
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for output in parsed.outputs:
        expected = known.get(output.name)
        if expected is not None and not _same_shape(expected, output) and output.name in producers:
            told = f"TensorRT would give {output.name!r} the shape {output.shape}, ONNX says {expected.shape}"
            found.append(refused(producers[output.name], told))
    for name in _unread_inputs(parsed.warnings):
        readers = [node for node in all_nodes(model) if name in node.input]
        found += [
            refused(node, f"TensorRT does not read its input {name!r}")
            for node in readers
            if node.op_type not in READS_TYPE_OR_SHAPE_ONLY
        ]
    return tuple(found)


def refused_by_builder(model: ModelProto, error: UnsupportedModelError) -> tuple[RefusedNode, ...]:
    """The nodes the builder's message names; else all nodes that are left to it; else an entry without a node."""
    reason = error.nodes[0][2] if error.nodes else error.what
    nodes = list(all_nodes(model))
    words = set(re.findall(r"[^\s\[\]{}()'`,;]+", reason)) | {word.rstrip(".:") for word in reason.split()}
    named = [node for node in nodes if node.name in words]
    blamed = twins_of(model, [node.name for node in named])
    guilty = [node for node in nodes if node.name in blamed] or suspects(model)
    return tuple(refused(node, reason) for node in guilty) or (RefusedNode("", "", reason),)


def is_left_to_the_builder(model: ModelProto) -> bool:
    """Whether the model holds operators the parser takes in forms that the builder may refuse."""
    return bool(suspects(model))


def suspects(model: ModelProto) -> list[NodeProto]:
    """The nodes whose operators or types are left to the builder."""
    found = [node for node in all_nodes(model) if _may_be_refused(node)]
    narrow = {name for types in inferred_types(model) for name, spec in types.items() if spec.dtype.startswith(NARROW)}
    known = {id(node) for node in found}
    touching = [node for node in all_nodes(model) if narrow & {*node.input, *node.output} and id(node) not in known]
    return [*found, *touching]


def _may_be_refused(node: NodeProto) -> bool:
    return node.op_type in LEFT_TO_THE_BUILDER and node.domain in STANDARD_DOMAINS


def _same_shape(expected: TensorSpec, found: TensorSpec) -> bool:
    if expected.shape is None or found.shape is None:
        return True
    if len(expected.shape) != len(found.shape):
        return False
    pairs = zip(expected.shape, found.shape, strict=True)
    return all(isinstance(one, str) or isinstance(other, str) or one == other for one, other in pairs)


def _unread_inputs(warnings: Iterable[str]) -> tuple[str, ...]:
    marker = "Unused Input: "
    return tuple(text.split(marker, 1)[1].strip() for text in warnings if marker in text)
