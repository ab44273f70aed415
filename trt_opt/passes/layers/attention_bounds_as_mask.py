"""Attention over some of the keys, by a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter, Operand
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input

_FIRST_OPSET = 24
_MASK, _PAST_KEY, _PAST_VALUE, _NONPAD_KV_SEQLEN = 3, 4, 5, 6
_WINDOWS = ("left_window_size", "right_window_size")


class AttentionBoundsAsMask(NodePass):
    """Gives Attention a mask in the place of a number of keys, or of a window around each query.

    What it does: `nonpad_kv_seqlen` says how many keys of each sample are no padding, `left_window_size` and
    `right_window_size` how far from its own place a query looks. A mask of booleans leaves out all other keys, and,
    where attention is causal, those after the query. With a number of keys the queries stand at the end of these.
    Queries that no key is left for give zeros, as ONNX wants.

    Why TensorRT wants it: It takes the input and the attributes, and reads none of them.

    Example: Attention(q, k, v, nonpad_kv_seqlen=n) becomes
    Where(n > 0, Attention(q, k, v, attn_mask=[0, 1, 2, …] < n), 0).

    When it declines: There is a mask already, or past keys, or an output but the first is read, or the rank or type of
    the queries is not known; the pass expand_functions takes such nodes.
    """

    name = "attention_bounds_as_mask"
    operators = frozenset({"Attention"})
    oldest_opset = _FIRST_OPSET

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Only what is misread, refused or not."""
        return super().wants(node, edit) and self.misread(node, edit)

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Neither the number of keys nor the windows are ever read."""
        del edit
        has_window = any(int(node.attrs.get(name, -1)) >= 0 for name in _WINDOWS)
        return has_window or optional_input(node, _NONPAD_KV_SEQLEN) is not None

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        others = [optional_input(node, position) for position in (_MASK, _PAST_KEY, _PAST_VALUE)]
        if any(tensor is not None for tensor in others) or any(is_used(one, emit.edit) for one in node.outputs[1:]):
            raise DeclinedError("it has a mask, past keys or more than one output; expand_functions takes it")
        rank, dtype = emit.edit.rank(node.inputs[0]), emit.edit.dtype(node.inputs[0])
        if rank is None or dtype is None:
            raise DeclinedError("the rank or type of its queries is not known")
        mask = _seen_keys(node, emit, rank - 2)
        attributes = {name: value for name, value in node.attrs.items() if name not in {"is_causal", *_WINDOWS}}
        attended = emit("Attention", *node.inputs[:3], mask, **attributes)
        has_keys = emit("Greater", emit.reduce("ReduceMax", emit.cast(mask, "int32"), [3]), np.int32(0))
        if rank == 3:
            has_keys = emit.squeeze(has_keys, [1])
        return (emit("Where", has_keys, attended, emit.constant(0, dtype)),)


def _seen_keys(node: gs.Node, emit: Emitter, axis: int) -> gs.Tensor:
    """Which key each query sees: bool [batch or 1, 1, queries or 1, keys]; `axis` is that of the sequences."""
    queries, keys = node.inputs[:2]
    counts = optional_input(node, _NONPAD_KV_SEQLEN)
    key = emit.reshape(_positions(emit, keys, axis), [1, 1, 1, -1])
    query: gs.Tensor = emit.reshape(_positions(emit, queries, axis), [1, 1, -1, 1])
    limits = []
    if counts is not None:
        counted = emit.reshape(emit.cast(counts, "int64"), [-1, 1, 1, 1])
        query = emit("Add", emit("Sub", query, _length(emit, queries, axis)), counted)
        limits.append(emit("Less", key, counted))
    left, right = (int(node.attrs.get(name, -1)) for name in _WINDOWS)
    if node.attrs.get("is_causal", 0):
        right = 0
    if left >= 0:
        limits.append(emit("GreaterOrEqual", key, emit("Sub", query, np.int64(left))))
    if right >= 0:
        limits.append(emit("LessOrEqual", key, emit("Add", query, np.int64(right))))
    seen = limits[0]
    for limit in limits[1:]:
        seen = emit("And", seen, limit)
    return seen


def _length(emit: Emitter, tensor: gs.Tensor, axis: int) -> Operand:
    """The length of an axis: a number, or, where it is not known, the shape's entry."""
    shape = emit.edit.shape(tensor)
    length = None if shape is None else shape[axis]
    if length is not None:
        return np.int64(length)
    made: gs.Tensor = emit("Gather", emit("Shape", tensor), np.int64(axis))
    return made


def _positions(emit: Emitter, tensor: gs.Tensor, axis: int) -> gs.Tensor:
    """0, 1, 2 … along an axis, int64 [length]."""
    length = _length(emit, tensor, axis)
    if isinstance(length, np.int64):
        return emit.constant(np.arange(int(length)))
    made: gs.Tensor = emit("Range", np.int64(0), length, np.int64(1))
    return made
