"""Copies of a nested graph's nodes, for bodies that are written out as often as they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs

from trt_opt.graph.edit import in_order
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter

_Copies = dict[int, gs.Tensor]
"""id of a tensor of the body → what stands for it in the copy; tensors from outside stand for themselves."""


def body_copy(body: gs.Graph, feed: Sequence[gs.Tensor], emit: Emitter) -> list[gs.Tensor]:
    """Appends a copy of the body's nodes, with tensors and nodes under names of their own.

    Args:
        body: Is not edited.
        feed: What stands for each of its inputs.
        emit: Where the nodes are written.

    Returns:
        What its outputs are in the copy; one that the body only hands on is a tensor of `feed` or from outside.
    """
    copies: _Copies = {id(source): tensor for source, tensor in zip(body.inputs, feed, strict=True)}
    emit.nodes.extend(_copied(node, copies, emit.edit) for node in in_order(body))
    return [copies.get(id(tensor), tensor) for tensor in body.outputs]


def _copied(node: gs.Node, copies: _Copies, edit: GraphEdit) -> gs.Node:
    attributes = {name: _copied_value(value, copies, edit) for name, value in node.attrs.items()}
    return gs.Node(
        op=node.op,
        name=edit.fresh_node_name(node.name) if node.name else "",
        attrs=attributes,
        inputs=[gs.Variable.empty() if tensor.is_empty() else copies.get(id(tensor), tensor) for tensor in node.inputs],
        outputs=[_copied_tensor(tensor, copies, edit) for tensor in node.outputs],
        domain=node.domain,
    )


def _copied_tensor(tensor: gs.Tensor, copies: _Copies, edit: GraphEdit) -> gs.Tensor:
    """A new tensor of the same type; shapes may differ from one copy to the next."""
    if not tensor.name:
        return gs.Variable.empty()
    copies[id(tensor)] = gs.Variable(edit.fresh_name(tensor.name), tensor.dtype)
    return copies[id(tensor)]


def _copied_value(value: Any, copies: Mapping[int, gs.Tensor], edit: GraphEdit) -> Any:
    if not isinstance(value, gs.Graph):
        return value
    inside = dict(copies)
    inputs = [_copied_tensor(tensor, inside, edit) for tensor in value.inputs]
    nodes = [_copied(node, inside, edit) for node in in_order(value)]
    outputs = [inside.get(id(tensor), tensor) for tensor in value.outputs]
    return gs.Graph(
        nodes, inputs, outputs, name=value.name, opset=value.opset, import_domains=list(value.import_domains or ())
    )
