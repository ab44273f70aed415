"""What was asked for, held against what the engine became."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trt_opt.values.engine_layers import EngineLayer, PrecisionMismatch
from trt_opt.values.precision import LayerDecision, PrecisionPlan

NOT_COMPUTED = frozenset({"Cast", "Gather", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice"})
"""Operators that move or convert numbers: what they carry is decided by their neighbours."""

COMPARED = ("int8", "fp8", "fp16", "fp32")
"""Decisions of which an engine shows whether they were kept."""


def mismatches(
    plan: PrecisionPlan, layers: Iterable[EngineLayer], *, builder_chooses: bool
) -> tuple[PrecisionMismatch, ...]:
    """The nodes that run in another precision than was asked for, in graph order.

    Nodes that no layer names (folded, or fused without a trace) are left out: of them nothing is known. A node in
    several layers (its reformats, its quantisation) counts with the narrowest precision among them.

    Args:
        plan: What was asked for.
        layers: What the engine says.
        builder_chooses: Whether builder flags left the choice to TensorRT.
    """
    found = _by_node(layers)
    return tuple(
        PrecisionMismatch(layer.node, layer.precision, got.precision, _because(got, builder_chooses=builder_chooses))
        for layer, got in _found(plan, found)
        if got.precision != layer.precision
    )


def _found(plan: PrecisionPlan, found: dict[str, EngineLayer]) -> Iterator[tuple[LayerDecision, EngineLayer]]:
    for layer in plan.layers:
        got = found.get(layer.node)
        if got is None or layer.op_type in NOT_COMPUTED:
            continue
        if layer.precision in COMPARED and got.precision in COMPARED:
            yield layer, got


def _by_node(layers: Iterable[EngineLayer]) -> dict[str, EngineLayer]:
    order = {name: rank for rank, name in enumerate(COMPARED)}
    found: dict[str, EngineLayer] = {}
    for layer in layers:
        for node in layer.nodes:
            known = found.get(node)
            if known is None or order.get(layer.precision, 9) < order.get(known.precision, 9):
                found[node] = layer
    return found


def _because(layer: EngineLayer, *, builder_chooses: bool) -> str:
    inside = f"it runs inside {layer.name!r}" if len(layer.nodes) > 1 else f"it runs as {layer.kind or layer.name}"
    if builder_chooses:
        return f"{inside}: with builder flags TensorRT takes what it timed as fastest"
    return f"{inside}: TensorRT fused it so, or has no other kernel for it"
