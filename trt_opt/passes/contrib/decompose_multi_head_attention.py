"""ONNX Runtime's MultiHeadAttention in standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.contrib.dot_product_attention import (
    MASK_FILTER_VALUE,
    Scoring,
    attended,
    padding_mask,
    split_into_heads,
)
from trt_opt.passes.contrib.sequence_positions import (
    Length,
    added_lengths,
    causal_mask,
    have_same_length,
    length_of,
)
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, operator_of, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape

_QUERY, _KEY, _VALUE, _BIAS, _MASK, _ADDED, _PAST_KEY, _PAST_VALUE = range(8)


class DecomposeMultiHeadAttention(NodePass):
    """Writes ONNX Runtime's MultiHeadAttention out in standard operators.

    What it does: Queries, keys and values get their part of the bias, are laid out by head, and attention is written
    as MatMul, Softmax, MatMul; padding masks become what is added to the scores. Queries, keys and values packed into
    one tensor are taken apart first; keys and values already laid out by head stay so. Those of the past come before
    them.

    Why TensorRT wants it: The operator is ONNX Runtime's own. TensorRT has an importer for it that takes neither masks
    nor a bias, and the builder of TensorRT-RTX 1.7 crashes on what it makes of the rest; so all of them are replaced.

    Example: com.microsoft::MultiHeadAttention(q, k, v, num_heads=2) becomes Reshape, Transpose, MatMul, Softmax, …

    When it declines: The shape of an input is not known, or not the size of a head; past and present in one shared
    buffer; the scores as an output; a bias together with packed inputs or with keys laid out by head; a causal mask
    over keys that may be more than the queries.
    """

    name = "decompose_multi_head_attention"
    operators = frozenset({"com.microsoft::MultiHeadAttention"})
    oldest_opset = 11

    def misread(self, node: gs.Node, edit: GraphEdit) -> bool:
        """Any: the builder ends with a segmentation fault."""
        del edit
        return operator_of(node.op, node.domain) in self.operators

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        _require_plain_form(node, emit)
        dtype = element_type(emit, *node.inputs[:4])
        size = _head_size(node, emit)
        query, key, value = _by_head(node, emit, size)
        before, keys = _lengths(node, emit)
        old_key, old_value = optional_input(node, _PAST_KEY), optional_input(node, _PAST_VALUE)
        if old_key is not None and old_value is not None:
            key = emit("Concat", old_key, key, axis=2)
            value = emit("Concat", old_value, value, axis=2)
        length = length_of(emit, node.inputs[_QUERY], 1)
        causal = bool(node.attrs.get("unidirectional", 0))
        if causal:
            _require_no_more_keys_than_queries(node, emit)
        scoring = Scoring(
            scale=node.attrs.get("scale", 0.0) or 1 / math.sqrt(size),
            dtype=dtype,
            added=_added(node, emit, keys, dtype),
            allowed=causal_mask(emit, length, keys, before) if causal else None,
        )
        return attended(emit, query, key, value, scoring), key, value


def _require_plain_form(node: gs.Node, emit: Emitter) -> None:
    if any(optional_input(node, position) is not None for position in (8, 9)):
        raise DeclinedError("its past and present share a buffer, which a graph cannot say")
    if len(node.outputs) > 3 and is_used(node.outputs[3], emit.edit):
        raise DeclinedError("its scores are read")


def _require_no_more_keys_than_queries(node: gs.Node, emit: Emitter) -> None:
    """ONNX Runtime on the CPU masks all rows but the last one, which sees all keys: causal only if they are as many."""
    key = optional_input(node, _KEY)
    if key is None or key is node.inputs[_QUERY] or optional_input(node, _VALUE) is None:
        return
    axis = 2 if len(known_shape(emit, key)) == 4 else 1
    keys, queries = known_shape(emit, key)[axis], known_shape(emit, node.inputs[_QUERY])[1]
    if keys is not None and queries is not None and keys <= queries:
        return
    if not have_same_length(emit, (key, axis), (node.inputs[_QUERY], 1)):
        raise DeclinedError("it is causal over what may be more keys than queries: fix the lengths of the inputs")


def _head_size(node: gs.Node, emit: Emitter) -> int:
    shape = known_shape(emit, node.inputs[_QUERY])
    size = shape[-1] if len(shape) == 5 or shape[-1] is None else shape[-1] // int(node.attrs["num_heads"])
    if size is None:
        raise DeclinedError("the size of a head is not known")
    return size


def _by_head(node: gs.Node, emit: Emitter, size: int) -> tuple[gs.Tensor, gs.Tensor, gs.Tensor]:
    """Queries, keys and values as [batch, heads, sequence, size]."""
    heads = int(node.attrs["num_heads"])
    query, key, value, bias = (optional_input(node, position) for position in (_QUERY, _KEY, _VALUE, _BIAS))
    if query is None:
        raise DeclinedError("it has no query")
    if bias is not None and (key is None or value is None or len(known_shape(emit, key)) != 3):
        raise DeclinedError("it has a bias for inputs that are packed or laid out by head")
    if key is None:
        return _unpacked(emit, query, 3)
    if value is None:
        return (split_into_heads(emit, query, heads), *_unpacked(emit, key, 2))
    if len(known_shape(emit, key)) == 4:
        return split_into_heads(emit, query, heads), key, value
    parts: list[gs.Tensor] = [query, key, value]
    if bias is not None:
        width = known_shape(emit, bias)[0]
        if width is None:
            raise DeclinedError("the length of its bias is not known")
        biases = emit.split(bias, (heads * size, heads * size, width - 2 * heads * size), 0)
        parts = [emit("Add", part, shift) for part, shift in zip(parts, biases, strict=True)]
    query, key, value = (split_into_heads(emit, part, heads) for part in parts)
    return query, key, value


def _unpacked(emit: Emitter, packed: gs.Tensor, count: int) -> tuple[gs.Tensor, ...]:
    """The tensors packed as [batch, sequence, heads, count, size]."""
    parts = emit.split(packed, (1,) * count, 3)
    return tuple(emit("Transpose", emit.squeeze(part, [3]), perm=[0, 2, 1, 3]) for part in parts)


def _lengths(node: gs.Node, emit: Emitter) -> tuple[Length, Length]:
    """How many keys are of the past, and how many there are in all."""
    past = optional_input(node, _PAST_KEY)
    given = optional_input(node, _KEY)
    key = node.inputs[_QUERY] if given is None else given
    by_head = len(known_shape(emit, key)) == 4
    before: Length = 0 if past is None else length_of(emit, past, 2)
    return before, added_lengths(emit, before, length_of(emit, key, 2 if by_head else 1))


def _added(node: gs.Node, emit: Emitter, keys: Length, dtype: str) -> tuple[gs.Tensor, ...]:
    mask, bias = optional_input(node, _MASK), optional_input(node, _ADDED)
    added = [] if bias is None else [bias]
    if mask is not None:
        scoring = float(node.attrs.get("mask_filter_value", MASK_FILTER_VALUE)), dtype
        added.append(padding_mask(emit, mask, node.inputs[_QUERY], keys, scoring))
    return tuple(added)
