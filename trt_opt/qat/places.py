"""Describes nodes so that they are found in another tracing of the same model, where names and operators differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from types import MappingProxyType

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.rules import COMPUTE_OPS
from trt_opt.values.qat import QatPlace

INPUT = "<input>"
"""Stands for the graph's inputs among the layers above a place."""

NEAREST = 4
"""So many layers above an operand tell it apart; deep in a DenseNet hundreds are above each."""

LAYER_KINDS: Mapping[str, str] = MappingProxyType(
    {"Conv": "Conv", "ConvTranspose": "ConvTranspose", "Gemm": "Linear", "MatMul": "Linear"}
)

PLACE_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "Sum": "Add",
        "GlobalAveragePool": "AveragePool",
        "Flatten": "Reshape",
        "Squeeze": "Reshape",
        "Unsqueeze": "Reshape",
    }
)
"""Operators that exporters choose between for one thing; all others are their own kind."""

_SHAPE_READERS = frozenset({"Shape", "Size"})
_WITH_EQUAL_OPERANDS = frozenset({"Add", "Concat", "Sum"})

Signature = tuple[str, tuple[tuple[str, ...], ...]]


def layers_of(index: GraphIndex) -> tuple[onnx.NodeProto, ...]:
    """The nodes with constant weights, in graph order."""
    return tuple(
        node
        for node in index.model.graph.node
        if node.op_type in COMPUTE_OPS and len(node.input) > 1 and index.is_constant(node.input[1])
    )


def places_of(index: GraphIndex, wanted: Collection[str]) -> tuple[QatPlace, ...]:
    """Describes the nodes named, in graph order.

    Args:
        index: The graph that was quantised, before Q/DQ pairs were written.
        wanted: Names of nodes without weights of their own.
    """
    layers = {node.name: number for number, node in enumerate(layers_of(index), 1)}
    above = _layers_above(index, layers)
    seen: Counter[Signature] = Counter()
    found: list[tuple[str, Signature, tuple[tuple[str, ...], ...], int]] = []
    for node in index.model.graph.node:
        operands = tuple(_nearest(above[name], layers) for name in _operands(node, index))
        signature = PLACE_KINDS.get(node.op_type, node.op_type), tuple(sorted(operands))
        if node.name in wanted:
            found.append((node.name, signature, operands, seen[signature]))
        seen[signature] += 1
    return tuple(
        QatPlace(name, signature[0], operands, seen[signature], position)
        for name, signature, operands, position in found
    )


def weight_in_file(node: onnx.NodeProto, original: GraphIndex) -> str | None:
    """The initialiser that holds a layer's weights in the file as given.

    Args:
        node: The layer in the rewritten graph, whose weights may be folded and renamed.
        original: The model as given, its nodes named.
    """
    layer = original.nodes.get(node.name)
    if layer is None or layer.op_type not in COMPUTE_OPS:
        layer = _layer_behind(node.output[0], original)
    if layer is None or len(layer.input) < 2:
        return None
    name = layer.input[1]
    while (maker := original.producer(name)) is not None and maker.op_type != "Constant" and maker.input:
        name = maker.input[0]
    return name if original.is_constant(name) else None


def _layer_behind(tensor: str, original: GraphIndex) -> onnx.NodeProto | None:
    """The layer that a tensor comes from: a BatchNormalization that was folded away may write it."""
    maker = original.producer(tensor)
    while maker is not None and maker.op_type not in COMPUTE_OPS and maker.input:
        maker = original.producer(maker.input[0])
    return maker


def _operands(node: onnx.NodeProto, index: GraphIndex) -> list[str]:
    """The activations a node reads; all but sums and Concat have one, and sizes or the like behind it."""
    given = node.input if node.op_type in _WITH_EQUAL_OPERANDS else node.input[:1]
    return [name for name in given if name and not index.is_constant(name)]


def _layers_above(index: GraphIndex, layers: Collection[str]) -> Mapping[str, frozenset[str]]:
    """For every tensor the layers it comes from, without passing through one; none for constants and sizes."""
    above: dict[str, frozenset[str]] = defaultdict(frozenset)
    above |= {name: frozenset({INPUT}) for name in index.inputs}
    for node in index.model.graph.node:
        found = frozenset().union(*(above[name] for name in node.input if name))
        if node.name in layers:
            found = frozenset({node.name})
        elif node.op_type in _SHAPE_READERS:
            found = frozenset()
        above |= dict.fromkeys(node.output, found)
    return above


def _nearest(layers: frozenset[str], order: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(layers, key=lambda name: order.get(name, 0))[-NEAREST:])
