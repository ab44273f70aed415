"""Weights and biases changed for the sake of the quantised layer that holds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.writer import GraphWriter

BIAS_OPERANDS: Mapping[str, int] = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""Which input of an operator is its bias."""

UNCORRECTED = "_uncorrected"
"""Ends the name of what a layer gives before its correction is added."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What takes the place of a layer's constants where the layer is quantised; a layer in float keeps its own.

    Attributes:
        weights: float32, of the weights' shape: numbers that lie on the grid which their scales give, so that rounding
            leaves them; None keeps the layer's own.
        bias: float32, one per output channel, added to what the layer computes.
    """

    weights: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None


def with_corrections(index: GraphIndex, corrections: Mapping[str, Correction], nodes: Collection[str]) -> GraphIndex:
    """The graph with the corrections of those layers that are quantised; the graph itself where there are none.

    Constants that other layers read too are not touched: the corrected layer gets its own.

    Args:
        index: The float graph.
        corrections: Layer → what changes in it.
        nodes: The layers that are quantised.
    """
    wanted = {name: found for name, found in corrections.items() if name in nodes}
    if not wanted:
        return index
    writer = GraphWriter(index.model)
    for name, found in wanted.items():
        node = writer.nodes[name]
        if found.weights is not None:
            node.input[1] = writer.constant(f"{node.input[1]}_adapted", found.weights)
        if found.bias is not None:
            _add_bias(node, found.bias, index, writer)
    return GraphIndex(_with_types_of(writer.finished(), index))


def _add_bias(node: onnx.NodeProto, bias: NDArray[np.float32], index: GraphIndex, writer: GraphWriter) -> None:
    """Adds to the bias that the layer has, or gives it one; behind a MatMul the sum is a node of its own."""
    position = BIAS_OPERANDS.get(node.op_type)
    given = position is not None and len(node.input) > position and bool(node.input[position])
    own = index.constant(node.input[position]) if position is not None and given else None
    if position is None or (given and own is None) or attribute_of(node, "beta", 1.0) != 1.0:
        _add_behind(node, bias, index, writer)
        return
    total = bias if own is None else np.asarray(own, np.float32) + bias
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = writer.constant(f"{node.name}_bias", np.asarray(total, np.float32))


def _add_behind(node: onnx.NodeProto, bias: NDArray[np.float32], index: GraphIndex, writer: GraphWriter) -> None:
    output = node.output[0]
    weights = index.shape(node.input[1]) or ()
    spatial = len(weights) - 2 if node.op_type in ("Conv", "ConvTranspose") else 0
    node.output[0] = writer.tensor(f"{output}{UNCORRECTED}")
    name = writer.constant(f"{node.name}_bias", bias.reshape(-1, *[1] * spatial))
    writer.behind(node.name, writer.made("Add", [node.output[0], name], output))


def _with_types_of(model: onnx.ModelProto, index: GraphIndex) -> onnx.ModelProto:
    """The edited copy has every type but those of tensors that were renamed; these are their outputs' own."""
    typed = {value.name for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        for name in node.output:
            origin = name.removesuffix(UNCORRECTED)
            kind = index.element_type(origin) if name not in typed and origin != name else None
            if kind is not None:
                shape = index.shape(origin)
                model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return model
