"""Multiplication and addition of constants into the layer before them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.graph.edit import every_graph, remove_nodes
from trt_opt.graph.surgeon import constant_values
from trt_opt.passes.base import GraphEdit, GraphPass
from trt_opt.passes.clean_up.channel_affine import Floats, channels, fold, linear_producer, why_not_foldable

_OPERATORS = frozenset({"Mul", "Div", "Add", "Sub"})
_FIRST_OPSET_OF_NUMPY_BROADCASTING = 7


class FoldScaleAndBias(GraphPass):
    """Folds Mul, Div, Add and Sub by a constant per channel into the Conv, ConvTranspose or Gemm before them.

    What it does: Mul and Div scale weights and bias along the output channels, Add and Sub change the bias. A weight
    that others read too is copied, not changed.

    Why TensorRT wants it: Exporters write BatchNormalization and biases as such nodes; like it they sit between an
    INT8 layer and its activation.

    Example: Conv → Mul [1, C, 1, 1] → Add [1, C, 1, 1] becomes Conv.

    When it declines: The layer's output is read elsewhere or is a graph output; its weights are not constants; the
    constant has a value per position or batch, or a rank that changes the shape; division by zero; constant - y and
    constant / y; folded weights that would overflow their type.
    """

    name = "fold_scale_and_bias"

    def apply(self, edit: GraphEdit) -> None:
        """Goes through all graphs, nested ones too."""
        if edit.opset < _FIRST_OPSET_OF_NUMPY_BROADCASTING:
            return
        for graph in every_graph(edit.graph):
            nodes = [node for node in graph.nodes if node.op in _OPERATORS and not node.domain]
            remove_nodes(graph, [node for node in nodes if _folded(node, edit)])


def _folded(node: gs.Node, edit: GraphEdit) -> bool:
    found = _layer_and_constant(node)
    if found is None:
        return False
    layer, values, layer_comes_first = found
    count = channels(layer)
    reason = why_not_foldable(layer, edit)
    if not reason and not layer_comes_first and node.op in {"Sub", "Div"}:
        reason = f"it is {node.op} of a constant by the layer, not the other way round"
    per_channel = None if count is None else _per_channel(layer, values, count)
    if not reason and per_channel is None:
        reason = f"its constant, of shape {list(values.shape)}, is not one value per channel"
    if reason or per_channel is None:
        edit.declined(node, reason)
        return False
    if node.op == "Div" and not per_channel.all():
        edit.declined(node, "it divides by zero")
        return False
    ones, zeros = np.ones_like(per_channel), np.zeros_like(per_channel)
    match node.op:
        case "Mul":
            return fold(layer, node, per_channel, zeros, edit)
        case "Div":
            return fold(layer, node, 1 / per_channel, zeros, edit)
        case "Add":
            return fold(layer, node, ones, per_channel, edit)
        case _:
            return fold(layer, node, ones, -per_channel, edit)


def _layer_and_constant(node: gs.Node) -> tuple[gs.Node, NDArray[np.generic], bool] | None:
    for layer_index in (0, 1):
        layer = linear_producer(node.inputs[layer_index])
        values = constant_values(node.inputs[1 - layer_index])
        if layer is not None and values is not None:
            return layer, values, layer_index == 0
    return None


def _per_channel(layer: gs.Node, values: NDArray[np.generic], count: int) -> Floats | None:
    """The constant as float64 [channels], or None where it varies along anything but the channel axis 1."""
    weight = constant_values(layer.inputs[1])
    rank = 2 if layer.op == "Gemm" or weight is None else weight.ndim
    if values.ndim > rank:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    if shape[1] not in {1, count} or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    per_channel: Floats = np.broadcast_to(values.astype(np.float64).reshape(-1), (count,)).copy()
    return per_channel
