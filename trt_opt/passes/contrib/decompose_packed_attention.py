"""ONNX Runtime's Attention in standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.dot_product_attention import (
    MASK_FILTER_VALUE,
    Scoring,
    attended,
    padding_mask,
    split_into_heads,
)
from trt_opt.passes.contrib.sequence_positions import Length, added_lengths, causal_mask, length_of
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape


class DecomposePackedAttention(NodePass):
    """Writes ONNX Runtime's Attention out in standard operators.

    What it does: One product with the packed weights gives queries, keys and values; they are split, laid out by head,
    and attention is written as MatMul, Softmax, MatMul. Masks of all forms that ONNX Runtime computes on the CPU
    become what is added to the scores: 0, or its filter value. Keys and values of the past come before those of the
    input, and all of them are the second output.

    Why TensorRT wants it: The operator is ONNX Runtime's own and shares nothing but the name with ONNX's Attention, as
    which TensorRT, which pays no heed to domains, reads it. It fuses the written-out form again.

    Example: com.microsoft::Attention(x, w, b, num_heads=2) becomes MatMul, Add, Split, Reshape, Transpose, …, Softmax.

    When it declines: The shape of the input or the packed width of the weights is not known; the rotary form; past
    and present in one shared buffer; the mask forms of Megatron and of packed batches.
    """

    name = "decompose_packed_attention"
    operators = frozenset({"com.microsoft::Attention"})
    oldest_opset = 11

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        if node.attrs.get("do_rotary", 0):
            raise DeclinedError("its rotary form is not written out: export with RotaryEmbedding as a node of its own")
        if node.attrs.get("past_present_share_buffer", 0):
            raise DeclinedError("its past and present share a buffer, which a graph cannot say")
        dtype = element_type(emit, *node.inputs[:3])
        heads = int(node.attrs["num_heads"])
        sizes = _hidden_sizes(node, emit)
        query, key, value = (split_into_heads(emit, part, heads) for part in _projected(node, emit, sizes))
        length = length_of(emit, node.inputs[0], 1)
        past = optional_input(node, 4)
        before: Length = 0
        if past is not None:
            before = length_of(emit, past, 3)
            old_key, old_value = (emit.squeeze(part, [0]) for part in emit.split(past, (1, 1), 0))
            key = emit("Concat", old_key, key, axis=2)
            value = emit("Concat", old_value, value, axis=2)
        keys = added_lengths(emit, before, length)
        scoring = Scoring(
            scale=node.attrs.get("scale", 0.0) or 1 / math.sqrt(sizes[0] // heads),
            dtype=dtype,
            added=_added(node, emit, keys, dtype),
            allowed=causal_mask(emit, length, keys, before) if node.attrs.get("unidirectional", 0) else None,
        )
        result = attended(emit, query, key, value, scoring)
        if len(node.outputs) < 2 or not is_used(node.outputs[1], emit.edit):
            return (result,)
        return result, emit("Concat", emit.unsqueeze(key, [0]), emit.unsqueeze(value, [0]), axis=0)


def _hidden_sizes(node: gs.Node, emit: Emitter) -> tuple[int, int, int]:
    """The widths of queries, keys and values together over all heads."""
    given = [int(size) for size in node.attrs.get("qkv_hidden_sizes", ())]
    if len(given) == 3:
        return given[0], given[1], given[2]
    width = known_shape(emit, node.inputs[1])[-1]
    if width is None:
        raise DeclinedError("the width of its weights is not known")
    return width // 3, width // 3, width // 3


def _projected(node: gs.Node, emit: Emitter, sizes: tuple[int, int, int]) -> Sequence[gs.Tensor]:
    product = emit("MatMul", node.inputs[0], node.inputs[1])
    bias = optional_input(node, 2)
    return emit.split(product if bias is None else emit("Add", product, bias), sizes, 2)


def _added(node: gs.Node, emit: Emitter, keys: Length, dtype: str) -> tuple[gs.Tensor, ...]:
    mask, bias = optional_input(node, 3), optional_input(node, 5)
    added = [] if bias is None else [bias]
    if mask is not None:
        scoring = float(node.attrs.get("mask_filter_value", MASK_FILTER_VALUE)), dtype
        added.append(padding_mask(emit, mask, node.inputs[0], keys, scoring))
    return tuple(added)
