"""Nodes with more dimensions than TensorRT has."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, NodeProto

from trt_opt.graph.query import node_label
from trt_opt.graph.tensors import graphs_of
from trt_opt.graph.types import inferred_types
from trt_opt.values.summary import RefusedNode

LARGEST_RANK = 8
"""nvinfer1::Dims::MAX_DIMS."""

_TAKES_A_SHAPE = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
"""Operator → the position of the input that is the shape of its result."""


def nodes_beyond_rank(model: ModelProto) -> tuple[RefusedNode, ...]:
    """The nodes, nested ones too, that read or make a tensor of more than 8 dimensions.

    TensorRT's parser does not refuse all of them: Reshape and Expand to a constant shape of 12 elements and more end
    the process (TensorRT-RTX 1.7), so it must not be asked about such a model.
    """
    found: list[RefusedNode] = []
    lengths: dict[str, int] = {}
    for graph, types in zip(graphs_of(model.graph), inferred_types(model), strict=True):
        ranks = {name: len(spec.shape) for name, spec in types.items() if spec.shape is not None}
        lengths |= _lengths_of_constants(graph)
        for node in graph.node:
            rank = max((ranks.get(name, 0) for name in (*node.input, *node.output)), default=0)
            rank = max(rank, _rank_asked_for(node, lengths))
            if rank > LARGEST_RANK:
                reason = f"a tensor of {rank} dimensions; TensorRT has at most {LARGEST_RANK}"
                found.append(RefusedNode(node_label(node), node.op_type, reason))
    return tuple(found)


def _rank_asked_for(node: NodeProto, lengths: Mapping[str, int]) -> int:
    position = _TAKES_A_SHAPE.get(node.op_type)
    if position is None or node.domain not in {"", "ai.onnx"} or position >= len(node.input):
        return 0
    return lengths.get(node.input[position], 0)


def _lengths_of_constants(graph: GraphProto) -> dict[str, int]:
    """How many elements the one-dimensional constants of a graph have."""
    found = {tensor.name: int(tensor.dims[0]) for tensor in graph.initializer if len(tensor.dims) == 1}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                dims = attribute.t.dims if attribute.name == "value" else [len(attribute.ints)]
                found.update({node.output[0]: int(dims[0])} if len(dims) == 1 else {})
    return found
