"""Nodes that hand on what they get."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_opt.graph.edit import every_graph, remove_nodes, replace_uses, set_output
from trt_opt.graph.surgeon import constant_values, onnx_dtype
from trt_opt.passes.base import GraphEdit, GraphPass

_FIRST_OPSET_OF_INFERENCE_DROPOUT = 7
_FIRST_OPSET_OF_TRAINING_INPUT = 12


class RemoveIdentities(GraphPass):
    """Removes Identity, Dropout outside training, and Cast to the type a tensor already has.

    What it does: Readers of the node's output read its input instead. Where the output is a graph output, the node
    before takes over its name.

    Why TensorRT wants it: A node between Conv and BatchNormalization, or between Conv and its activation, keeps them
    from being fused, and separates a quantised layer from its Q/DQ pair.

    Example: Conv → Dropout → Relu becomes Conv → Relu.

    When it declines: The node joins a graph input, a constant or a tensor from outside a subgraph straight to a graph
    output, or two graph outputs to one another; Dropout in training mode, or whose mask is read.
    """

    name = "remove_identities"

    def apply(self, edit: GraphEdit) -> None:
        """Goes through all graphs, nested ones too."""
        for graph in every_graph(edit.graph):
            here = {id(node) for node in graph.nodes}
            removed = [node for node in graph.nodes if _hands_on(node, edit) and _bypassed(node, here, edit)]
            for node in removed:
                edit.changed(node, f"{node.op} removed: it changes nothing")
            remove_nodes(graph, removed)


def _hands_on(node: gs.Node, edit: GraphEdit) -> bool:
    if node.domain not in {None, "", "ai.onnx"} or not node.inputs:
        return False
    match node.op:
        case "Identity":
            return True
        case "Dropout":
            reason = _why_dropout_stays(node, edit)
            if reason:
                edit.declined(node, reason)
            return not reason
        case "Cast":
            dtype = node.inputs[0].dtype
            return dtype is not None and onnx_dtype(dtype) == node.attrs.get("to") and _is_certain(node.inputs[0], edit)
        case _:
            return False


def _is_certain(tensor: gs.Tensor, edit: GraphEdit) -> bool:
    """Only types of graph inputs and constants are certain; value_info may be stale."""
    return isinstance(tensor, gs.Constant) or any(tensor is value for value in edit.graph.inputs)


def _why_dropout_stays(node: gs.Node, edit: GraphEdit) -> str:
    if len(node.outputs) > 1 and (node.outputs[1].outputs or edit.is_graph_output(node.outputs[1])):
        return "the mask of this Dropout is read"
    if edit.opset < _FIRST_OPSET_OF_INFERENCE_DROPOUT and not node.attrs.get("is_test", 0):
        return "this Dropout is in training mode (is_test is 0)"
    if edit.opset >= _FIRST_OPSET_OF_TRAINING_INPUT and len(node.inputs) > 2 and not node.inputs[2].is_empty():
        training = constant_values(node.inputs[2])
        if training is None:
            return "whether this Dropout is in training mode is only known at run time"
        if training.any():
            return "this Dropout is in training mode"
    return ""


def _bypassed(node: gs.Node, here: set[int], edit: GraphEdit) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if not edit.is_graph_output(result):
        replace_uses(result, source)
        return True
    producer = source.inputs[0] if len(source.inputs) == 1 else None
    if producer is None or id(producer) not in here or edit.is_graph_output(source):
        edit.declined(node, "it gives a graph output its name")
        return False
    position = next(index for index, tensor in enumerate(producer.outputs) if tensor is source)
    replace_uses(source, result)
    set_output(producer, position, result)
    return True
