"""Where two graphs part, in a sentence: at which node, and whether the error is made there."""

from __future__ import annotations

import math

from trt_opt.compare.skeleton import Skeleton
from trt_opt.values.model_comparison import LayerwiseComparison, MatchedTensor

MADE_THERE_DB = 3.0
"""A fall of the SQNR by this much doubles the error: half of it or more is the node's own."""


def finding_of(found: LayerwiseComparison, graph: Skeleton) -> str:
    """The sentence.

    Args:
        found: All but the sentence.
        graph: The candidate's.
    """
    if not found.tensors:
        return "no tensor inside the graphs could be matched, so nothing is known of where they part"
    parted = next((one for one in found.tensors if one.partner == found.first), None)
    if parted is None:
        return _no_parting(found)
    named = "" if parted.name == parted.partner else f" ({parted.partner!r} in the candidate)"
    return (
        f"they part at {_place(parted)}: {parted.name!r}{named} {_state(parted, found)}{_origin(parted, found, graph)}"
    )


def _no_parting(found: LayerwiseComparison) -> str:
    """What is told where every tensor is close enough."""
    differing = [one for one in found.tensors if one.sqnr_db is not None]
    if not differing:
        return f"all {len(found.tensors)} matched tensors are identical"
    lowest = min(differing, key=lambda one: one.sqnr_db or 0.0)
    text = (
        f"none of {len(found.tensors)} matched tensors is below {found.threshold_db:g} dB; the lowest is "
        f"{lowest.name!r} at {_place(lowest)} with {lowest.sqnr_db:.1f} dB"
    )
    return text + _largest(found)


def _place(tensor: MatchedTensor) -> str:
    return f"{tensor.operator} {tensor.node!r}" if tensor.node else "the graph's inputs"


def _state(tensor: MatchedTensor, found: LayerwiseComparison) -> str:
    if tensor.shapes_differ:
        return "has another shape there"
    if tensor.not_finite:
        return f"is NaN or infinite in {tensor.not_finite} of {tensor.elements} elements"
    if tensor.sqnr_db is None:
        return "is all zero in the reference alone"
    if math.isnan(tensor.sqnr_db):
        return "holds NaN or infinity in the reference"
    return f"has {tensor.sqnr_db:.2f} dB, below {found.threshold_db:g} dB"


def _origin(tensor: MatchedTensor, found: LayerwiseComparison, graph: Skeleton) -> str:
    """Whether the error is made at this node, and by what."""
    if tensor.drop_db is not None and tensor.drop_db < MADE_THERE_DB:
        return (
            f"; what it reads has {tensor.inputs_sqnr_db:.1f} dB already, so the error is mostly inherited"
            f"{_largest(found)}"
        )
    before = "is exact" if tensor.inputs_sqnr_db is None else f"has {tensor.inputs_sqnr_db:.1f} dB"
    return f"; what it reads {before}, so the error is made there{_cause(tensor, graph)}"


def _largest(found: LayerwiseComparison) -> str:
    worst = next((one for one in found.tensors if one.partner == found.largest_drop and one.drop_db), None)
    if worst is None or worst.drop_db is None or worst.inputs_sqnr_db is None or worst.sqnr_db is None:
        return ""
    return f"; the SQNR falls the most at {_place(worst)}, from {worst.inputs_sqnr_db:.1f} to {worst.sqnr_db:.1f} dB"


def _cause(tensor: MatchedTensor, graph: Skeleton) -> str:
    """What this node does to numbers that the reference does not."""
    node = graph.index.producer(tensor.partner)
    if node is None:
        return ""
    if node.op_type == "DequantizeLinear":
        return ", by quantising it"
    if node.op_type == "Cast":
        return ", by the cast to half precision"
    if any(graph.is_quantized(name) for name in graph.fixed(node).values()):
        return ", where its weights are quantised"
    return ""
