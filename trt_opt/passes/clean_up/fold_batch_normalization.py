"""BatchNormalization into the layer before it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.graph.edit import every_graph, remove_nodes
from trt_opt.graph.surgeon import constant_values
from trt_opt.passes.base import GraphEdit, GraphPass
from trt_opt.passes.clean_up.channel_affine import Floats, channels, fold, linear_producer, why_not_foldable

_DEFAULT_EPSILON = 1e-5
_FIRST_OPSET_OF_INFERENCE_BATCH_NORMALIZATION = 7


class FoldBatchNormalization(GraphPass):
    """Folds BatchNormalization into the Conv, ConvTranspose or Gemm before it.

    What it does: With s = scale / sqrt(var + epsilon), weights are multiplied by s along their output channels and the
    bias becomes s · bias + (B - s · mean). A weight that others read too is copied, not changed.

    Why TensorRT wants it: It fuses the two anyway in floating point; around a quantised convolution a
    BatchNormalization left in the graph sits between the INT8 layer and its activation and stops the fusion. Weight
    scales also have to be those of the weights that are multiplied in the end.

    Example: Conv → BatchNormalization → Relu becomes Conv → Relu.

    When it declines: No Conv, ConvTranspose or Gemm comes right before; its output is read elsewhere or is a graph
    output; a weight or statistic is not a constant; training mode; statistics per element (spatial = 0); folded
    weights that would overflow their type.
    """

    name = "fold_batch_normalization"

    def apply(self, edit: GraphEdit) -> None:
        """Goes through all graphs, nested ones too."""
        for graph in every_graph(edit.graph):
            nodes = [node for node in graph.nodes if node.op == "BatchNormalization" and not node.domain]
            remove_nodes(graph, [node for node in nodes if _folded(node, edit)])


def _folded(node: gs.Node, edit: GraphEdit) -> bool:
    layer = linear_producer(node.inputs[0])
    if layer is None:
        edit.declined(node, "no Conv, ConvTranspose or Gemm comes right before it")
        return False
    reason = _why_not_inference(node, edit.opset) or why_not_foldable(layer, edit)
    if reason:
        edit.declined(node, reason)
        return False
    affine = _affine(node)
    if affine is None or affine[0].shape != (channels(layer),):
        edit.declined(node, "its scale, bias, mean and variance are not constants of one value per channel")
        return False
    return fold(layer, node, *affine, edit)


def _why_not_inference(node: gs.Node, opset: int) -> str:
    if node.attrs.get("training_mode", 0) or any(tensor.name for tensor in node.outputs[1:]):
        return "it is in training mode"
    if opset < _FIRST_OPSET_OF_INFERENCE_BATCH_NORMALIZATION and not node.attrs.get("is_test", 0):
        return "it is in training mode (is_test is 0)"
    if not node.attrs.get("spatial", 1):
        return "its statistics are per element, not per channel (spatial is 0)"
    return ""


def _affine(node: gs.Node) -> tuple[Floats, Floats] | None:
    """Scale and shift per channel; None where they are not constants or not finite."""
    constants = [constant_values(tensor) for tensor in node.inputs[1:5]]
    if any(values is None or values.ndim != 1 for values in constants):
        return None
    weight, bias, mean, variance = (np.asarray(values, np.float64) for values in constants)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = weight / np.sqrt(variance + node.attrs.get("epsilon", _DEFAULT_EPSILON))
    return scale, bias - scale * mean
