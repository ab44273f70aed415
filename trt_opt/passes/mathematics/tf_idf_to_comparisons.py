"""TfIdfVectorizer as comparisons with its pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass

MOST_ELEMENTS = 1 << 24
"""Comparisons of windows with n-grams; above this the pass declines."""


@dataclass(frozen=True)
class _Grams:
    """The n-grams of one length, `[n-grams, length]`, and where each is counted."""

    pool: NDArray[np.int64]
    places: NDArray[np.int64]


class TfIdfToComparisons(NodePass):
    """Replaces TfIdfVectorizer by comparisons and sums.

    What it does: For every length of n-gram, all windows of the sequence (one for each start and number of skips) are
    gathered and compared with all n-grams of that length; the matches of each n-gram are counted, the counts brought to
    their places, cut to 1 for IDF and multiplied with the weights.

    Why TensorRT wants it: It has no TfIdfVectorizer.

    Example: A pool of 2 bigrams over x [N, 3] becomes ReduceSum over the 2 windows of And(x[0…1] == first, x[1…2] ==
    second), a tensor [N, 2].

    When it declines: The pool is of strings; the length of the sequence is not static; more than 16 million comparisons
    are needed; two n-grams are counted at one place.
    """

    name = "tf_idf_to_comparisons"
    operators = frozenset({"TfIdfVectorizer"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source = node.inputs[0]
        shape, dtype = emit.edit.shape(source), emit.edit.dtype(source)
        if dtype not in {"int32", "int64"} or not node.attrs.get("pool_int64s"):
            raise DeclinedError("its pool is of strings, which TensorRT has not: vectorise them before the model")
        if not shape or shape[-1] is None:
            raise DeclinedError("the length of its sequence is not static")
        skips, length = int(node.attrs["max_skip_count"]), shape[-1]
        grams = [(found, _windows(length, found.pool.shape[1], skips)) for found in _grams(node)]
        work = sum(windows.shape[0] * found.pool.shape[0] for found, windows in grams)
        if work * (shape[0] or 1 if len(shape) > 1 else 1) > MOST_ELEMENTS:
            raise DeclinedError("it needs more than 16 million comparisons")
        grams = [(found, windows) for found, windows in grams if windows.size]
        counts = [_counts(emit, source, found, windows, dtype) for found, windows in grams]
        places = np.concatenate([np.zeros(0, np.int64), *(found.places for found, _ in grams)])
        if len(set(places.tolist())) < len(places):
            raise DeclinedError("two of its n-grams are counted at one place")
        return (_weighted(node, emit, _placed(node, emit, source, counts, places)),)


def _grams(node: gs.Node) -> list[_Grams]:
    """Of the lengths that are counted and have n-grams."""
    pool, places = np.asarray(node.attrs["pool_int64s"], np.int64), np.asarray(node.attrs["ngram_indexes"], np.int64)
    starts = [*(int(start) for start in node.attrs["ngram_counts"]), len(pool)]
    lowest, highest = int(node.attrs["min_gram_length"]), int(node.attrs["max_gram_length"])
    grams, number = [], 0
    for length, (start, end) in enumerate(pairwise(starts), start=1):
        count = (end - start) // length
        if count and lowest <= length <= highest:
            chosen = pool[start : start + count * length].reshape(count, length)
            grams.append(_Grams(chosen, places[number : number + count]))
        number += count
    return grams


def _windows(length: int, size: int, skips: int) -> NDArray[np.int64]:
    """The positions `[windows, size]` of every n-gram in a sequence; single ones are not counted once per skip."""
    strides = range(1, 2 if size == 1 else skips + 2)
    found = [
        [start + number * stride for number in range(size)]
        for stride in strides
        for start in range(length - (size - 1) * stride)
    ]
    return np.asarray(found, np.int64).reshape(-1, size)


def _counts(emit: Emitter, source: gs.Tensor, grams: _Grams, windows: NDArray[np.int64], dtype: str) -> gs.Tensor:
    """How often each n-gram occurs: float32 `[…, n-grams]`."""
    matched: gs.Tensor | None = None
    for number in range(windows.shape[1]):
        words = emit.unsqueeze(emit("Gather", source, windows[:, number], axis=-1), [-1])
        equal = emit("Equal", words, grams.pool[:, number].astype(dtype))
        matched = equal if matched is None else emit("And", matched, equal)
    return emit.reduce("ReduceSum", emit.cast(matched, "float32"), [-2], keepdims=False)


def _placed(
    node: gs.Node, emit: Emitter, source: gs.Tensor, counts: list[gs.Variable], places: NDArray[np.int64]
) -> gs.Tensor:
    """The counts in the order of the output, zero where nothing is counted."""
    width = max(int(place) for place in node.attrs["ngram_indexes"]) + 1
    order = np.full(width, len(places), np.int64)
    order[places] = np.arange(len(places))
    if len(places) < width:
        first = emit.cast(emit("Gather", source, np.zeros(1, np.int64), axis=-1), "float32")
        counts = [*counts, emit("Mul", first, np.float32(0))]
    together = counts[0] if len(counts) == 1 else emit("Concat", *counts, axis=-1)
    if np.array_equal(order, np.arange(len(places))):
        return together
    placed: gs.Tensor = emit("Gather", together, order, axis=-1)
    return placed


def _weighted(node: gs.Node, emit: Emitter, counts: gs.Tensor) -> gs.Tensor:
    mode, weights = node.attrs["mode"], node.attrs.get("weights")
    if mode == "IDF":
        counts = emit("Min", counts, np.float32(1))
    if mode == "TF" or not weights:
        return counts
    weighted: gs.Tensor = emit("Mul", counts, np.asarray(weights, np.float32))
    return weighted
