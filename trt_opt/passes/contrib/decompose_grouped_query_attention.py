"""ONNX Runtime's GroupQueryAttention in standard operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.dot_product_attention import Scoring, attended, split_into_heads
from trt_opt.passes.contrib.rotation import Rotation, rotated
from trt_opt.passes.contrib.sequence_positions import Length, causal_mask, length_of
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape

_QUERY, _KEY, _VALUE, _PAST_KEY, _PAST_VALUE = range(5)
_COSINES, _SINES, _ADDED = 7, 8, 10
_WRITTEN_OUT = frozenset({0, 1, 2, 3, 4, 5, 6, _COSINES, _SINES, _ADDED})


class DecomposeGroupedQueryAttention(NodePass):
    """Writes ONNX Runtime's GroupQueryAttention without a past out in standard operators.

    What it does: Queries, keys and values, taken apart first where they are packed, are laid out by head and rotated
    where that is asked for; each head of keys and values is repeated for its group of queries; attention is written as
    MatMul, Softmax, MatMul with a causal mask. Without a past every valid query sees valid keys only, so the lengths
    of the sequences are not needed; the rows behind them, which ONNX Runtime leaves undefined, are computed too.

    Why TensorRT wants it: The operator is ONNX Runtime's own. TensorRT has an importer for it that requires a past.

    Example: com.microsoft::GroupQueryAttention(q, k, v, , , lengths, total) becomes Reshape, Transpose, MatMul, …

    When it declines: There is a past (where its end lies is only known at run time); attention that is not causal;
    sinks, smooth softmax, quantised caches, normalised queries, positions of its own, the scores as an output; the
    shapes of the queries are not known.
    """

    name = "decompose_grouped_query_attention"
    operators = frozenset({"com.microsoft::GroupQueryAttention"})
    oldest_opset = 11

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        _require_plain_form(node, emit)
        heads, groups = int(node.attrs["num_heads"]), int(node.attrs["kv_num_heads"])
        size = _head_size(node, emit, heads, groups)
        query, key, value = _by_head(node, emit, (heads, groups, size))
        length = length_of(emit, node.inputs[_QUERY], 1)
        if node.attrs.get("do_rotary", 0):
            rotation = _rotation(node, emit, length, size)
            query, key = rotated(emit, query, rotation), rotated(emit, key, rotation)
        added = optional_input(node, _ADDED)
        scoring = Scoring(
            scale=node.attrs.get("scale", 0.0) or 1 / math.sqrt(size),
            dtype=element_type(emit, *node.inputs[:3]),
            added=() if added is None else (added,),
            allowed=causal_mask(emit, length, length, 0, int(node.attrs.get("local_window_size", -1))),
            softcap=node.attrs.get("softcap", 0.0),
        )
        repeated = [_repeated(emit, tensor, (heads, groups, size)) for tensor in (key, value)]
        return attended(emit, query, repeated[0], repeated[1], scoring), key, value


def _require_plain_form(node: gs.Node, emit: Emitter) -> None:
    for position in (_PAST_KEY, _PAST_VALUE):
        past = optional_input(node, position)
        if past is not None and known_shape(emit, past)[2] != 0:
            raise DeclinedError("it has a past, whose end is only known at run time: export the model without a cache")
    if not node.attrs.get("causal", 1):
        raise DeclinedError("it is not causal, so that the lengths of the sequences, known at run time, matter")
    special = [place for place, tensor in enumerate(node.inputs) if tensor.name and place not in _WRITTEN_OUT]
    if special or node.attrs.get("smooth_softmax", -1) > 0 or node.attrs.get("sliding_window_cache", 0):
        raise DeclinedError("positions, sinks, quantised or windowed caches and normalised queries are not written out")
    if len(node.outputs) > 3 and is_used(node.outputs[3], emit.edit):
        raise DeclinedError("its scores are read")


def _head_size(node: gs.Node, emit: Emitter, heads: int, groups: int) -> int:
    width = known_shape(emit, node.inputs[_QUERY])[-1]
    if width is None:
        raise DeclinedError("the width of its queries is not known")
    return width // (heads if optional_input(node, _KEY) is not None else heads + 2 * groups)


def _by_head(node: gs.Node, emit: Emitter, sizes: tuple[int, int, int]) -> tuple[gs.Tensor, gs.Tensor, gs.Tensor]:
    heads, groups, size = sizes
    query, key, value = node.inputs[:3]
    if optional_input(node, _KEY) is None:
        query, key, value = emit.split(query, (heads * size, groups * size, groups * size), 2)
    return (
        split_into_heads(emit, query, heads),
        split_into_heads(emit, key, groups),
        split_into_heads(emit, value, groups),
    )


def _rotation(node: gs.Node, emit: Emitter, length: Length, size: int) -> Rotation:
    """The rotation by the positions 0, 1, …, which are those of a sequence without a past."""
    half = known_shape(emit, node.inputs[_COSINES])[1]
    if half is None:
        raise DeclinedError("the width of its caches is not known")
    end = np.array([length]) if isinstance(length, int) else length
    cosines, sines = (
        emit("Slice", node.inputs[place], np.array([0]), end, np.array([0])) for place in (_COSINES, _SINES)
    )
    return Rotation(cosines, sines, half, size, bool(node.attrs.get("rotary_interleaved", 0)))


def _repeated(emit: Emitter, tensor: gs.Tensor, sizes: tuple[int, int, int]) -> gs.Tensor:
    """Each of the groups, [batch, groups, sequence, size], as often as it takes to have one for each head."""
    heads, groups, size = sizes
    if heads == groups:
        return tensor
    row = emit.unsqueeze(tensor, [2])
    copies = emit("Concat", *[row] * (heads // groups), axis=2)
    return emit.reshape(copies, [0, heads, -1, size])
