"""Nodes that are alike: what a parser says of one holds for the others."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from trt_opt.graph.tensors import graphs_of, subgraphs_of
from trt_opt.graph.types import inferred_types
from trt_opt.values.tensors import TensorSpec

Likeness = tuple[object, ...]


def twins_of(model: ModelProto, names: Collection[str]) -> frozenset[str]:
    """The names given, and those of all nodes like one of these.

    Two nodes are alike if operator, attributes, the presence of inputs and outputs, and the element types, ranks and
    constness of the inputs are the same. A parser that stops at the first node it refuses need not be asked once for
    each of a thousand.

    Args:
        model: A model whose nodes all have different names.
        names: Nodes.
    """
    wanted = frozenset(names)
    if not wanted:
        return wanted
    operators = {node.op_type for graph in graphs_of(model.graph) for node in graph.node if node.name in wanted}
    likeness = {node.name: alike for node, alike in _likenesses(model, operators)}
    found = {likeness[name] for name in wanted if name in likeness}
    return wanted | {name for name, alike in likeness.items() if alike in found}


def _likenesses(model: ModelProto, operators: set[str]) -> Iterator[tuple[NodeProto, Likeness]]:
    types = inferred_types(model)
    outer = types[0]
    main = {tensor.name for tensor in model.graph.initializer}
    for graph, own in zip(graphs_of(model.graph), types, strict=True):
        known = ChainMap(own, outer)
        constants = main | _constants(graph)
        for node in graph.node:
            if node.op_type in operators and not any(True for _ in subgraphs_of(node)):
                yield node, _likeness(node, known, constants)


def _likeness(node: NodeProto, types: Mapping[str, TensorSpec], constants: set[str]) -> Likeness:
    inputs = []
    for name in node.input:
        spec = types.get(name)
        rank = None if spec is None or spec.shape is None else len(spec.shape)
        inputs.append((bool(name), spec.dtype if spec else None, rank, name in constants))
    attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
    return node.op_type, node.domain, attributes, tuple(inputs), tuple(bool(name) for name in node.output)


def _constants(graph: GraphProto) -> set[str]:
    made = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return made | {tensor.name for tensor in graph.initializer}
