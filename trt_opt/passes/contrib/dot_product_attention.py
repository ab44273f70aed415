"""Attention over heads, written out the way ONNX Runtime computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.sequence_positions import Length, Positions, have_same_length, positions
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError
from trt_opt.passes.operand_facts import known_shape, scalar

_LOWEST = {"float16": -65504.0, "float32": float(np.finfo(np.float32).min), "bfloat16": -3.3e38}
MASK_FILTER_VALUE = -10000.0
"""What ONNX Runtime adds to the scores of masked keys unless the node says otherwise."""


@dataclass(frozen=True)
class Scoring:
    """How queries and keys become weights.

    Attributes:
        scale: What the products are multiplied by.
        dtype: The element type.
        added: Tensors that broadcast to [batch, heads, queries, keys] and are added to the scores.
        allowed: Boolean [queries, keys]; keys not allowed have no weight at all. None allows all.
        softcap: The scores are kept between plus and minus this, by a tanh; 0 leaves them as they are.
    """

    scale: float
    dtype: str
    added: Sequence[gs.Tensor] = ()
    allowed: Positions | None = None
    softcap: float = 0.0


def attended(emit: Emitter, query: gs.Tensor, key: gs.Tensor, value: gs.Tensor, scoring: Scoring) -> gs.Tensor:
    """Softmax(query · keyᵀ · scale + …) · value of [batch, heads, sequence, size]: [batch, queries, heads · size]."""
    scaled = emit("Mul", query, scalar(emit, scoring.scale, scoring.dtype))
    scores = emit("MatMul", scaled, emit("Transpose", key, perm=[0, 1, 3, 2]))
    if scoring.softcap:
        cap = scalar(emit, scoring.softcap, scoring.dtype)
        scores = emit("Mul", emit("Tanh", emit("Div", scores, cap)), cap)
    for term in scoring.added:
        scores = emit("Add", scores, term)
    if scoring.allowed is not None:
        scores = emit("Where", scoring.allowed, scores, scalar(emit, _LOWEST[scoring.dtype], scoring.dtype))
    mixed = emit("MatMul", emit("Softmax", scores, axis=-1), value)
    return emit.reshape(emit("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, -1])


def split_into_heads(emit: Emitter, tensor: gs.Tensor, heads: int) -> gs.Tensor:
    """[batch, sequence, heads · size] as [batch, heads, sequence, size]."""
    made: gs.Tensor = emit("Transpose", emit.reshape(tensor, [0, 0, heads, -1]), perm=[0, 2, 1, 3])
    return made


def padding_mask(
    emit: Emitter, mask: gs.Tensor, batch: gs.Tensor, keys: Length, scoring: tuple[float, str]
) -> gs.Tensor:
    """What is added to the scores for a mask of ONNX Runtime's.

    Args:
        emit: Where the nodes are written.
        mask: Integers: [batch, keys] or [batch, queries, keys], positive where a key counts; or [batch], how many
            keys count; or [2 · batch], where they end and where they begin.
        batch: A tensor whose first axis is the batch.
        keys: How many keys there are.
        scoring: What is added for keys that do not count, and the element type.

    Raises:
        DeclinedError: The mask is of another form, or it cannot be told of which.
    """
    rank = len(known_shape(emit, mask))
    if rank in {2, 3}:
        counts = emit.unsqueeze(emit("Greater", mask, np.int32(0)), [1, 2] if rank == 2 else [1])
    elif rank == 1:
        counts = _from_lengths(emit, mask, _lists_per_batch(emit, mask, batch), keys)
    else:
        raise DeclinedError(f"its mask of rank {rank} has no counterpart")
    filter_value, dtype = scoring
    made: gs.Tensor = emit("Where", counts, scalar(emit, 0, dtype), scalar(emit, filter_value, dtype))
    return made


def _lists_per_batch(emit: Emitter, mask: gs.Tensor, batch: gs.Tensor) -> int:
    """1 for a mask of ends, 2 for one of ends and beginnings."""
    length, size = known_shape(emit, mask)[0], known_shape(emit, batch)[0]
    if length is None or size is None:
        if have_same_length(emit, (mask, 0), (batch, 0)):
            return 1
        raise DeclinedError(
            "its mask holds lengths, or ends and beginnings, and without the batch size it cannot be told which:"
            " fix the batch size of the inputs"
        )
    if length not in {size, 2 * size}:
        raise DeclinedError(f"its mask of {length} numbers for a batch of {size} has no counterpart")
    return length // size


def _from_lengths(emit: Emitter, mask: gs.Tensor, lists: int, keys: Length) -> gs.Tensor:
    place = positions(emit, keys)
    rows = emit.cast(emit.reshape(mask, [lists, -1, 1, 1, 1]), "int64")
    if lists == 1:
        counts: gs.Tensor = emit("Less", place, emit.squeeze(rows, [0]))
        return counts
    ends, starts = (emit.squeeze(part, [0]) for part in emit.split(rows, (1, 1), 0))
    within: gs.Tensor = emit("And", emit("Less", place, ends), emit("Not", emit("Less", place, starts)))
    return within
