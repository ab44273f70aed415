"""Layers that stay in float because a tensor they read has no range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trt_opt.cache_import.matching import Match
from trt_opt.errors import StaleError, UnsupportedModelError
from trt_opt.quantize.methods import method_called
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.stage import FloatGraph

NO_RANGE = "no-range"
"""The rule that left these layers in float."""


def without_gaps(graph: FloatGraph, match: Match) -> tuple[FloatGraph, dict[str, tuple[str, ...]]]:
    """The graph with every layer in float that would read a tensor without a range; and tensor → these layers.

    Only what reads the tensor for itself is held back: pools and concatenations follow the layers behind them. With
    implicit quantisation the graph stays as it is, TensorRT does without these ranges.

    Args:
        graph: The graph, every layer placed that the policy allows.
        match: The ranges.

    Raises:
        StaleError: An integer input or output has no range.
        UnsupportedModelError: No layer is left that could run in INT8.
    """
    if graph.request.method == Implicit.name:
        return graph, {name: _offered_readers(graph, name) for name in match.gaps}
    missing: dict[str, tuple[str, ...]] = {}
    spared: dict[str, str] = {}
    placed = graph
    while readers := _readers_without_range(placed, match):
        missing.update(readers)
        spared.update({node: match.reason(tensor) for tensor, nodes in readers.items() for node in nodes})
        placed = _placed(graph, spared)
    lost = [name for name in placed.placement.ranges_needed if match.found(name) is None]
    if lost:
        raise StaleError(
            f"{match.reason(lost[0])}, and --quantization {graph.request.method} needs one",
            hint="--calib-data DATA fills it in; or --quantization static",
        )
    return _told(placed, spared), missing


def _offered_readers(graph: FloatGraph, tensor: str) -> tuple[str, ...]:
    readers = dict.fromkeys(node.name for node, _ in graph.index.readers(tensor))
    return tuple(name for name in readers if name in graph.quantized_nodes)


def _readers_without_range(graph: FloatGraph, match: Match) -> dict[str, tuple[str, ...]]:
    """Tensor without a range → the layers that read it with its own scale."""
    return {
        quantizer.tensor: tuple(dict.fromkeys(reader.node for reader in quantizer.readers))
        for quantizer in graph.placement.activations
        if quantizer.tensor == quantizer.range_of and match.found(quantizer.tensor) is None
    }


def _placed(graph: FloatGraph, spared: Mapping[str, str]) -> FloatGraph:
    request = replace(graph.request, spared={**graph.request.spared, **spared})
    try:
        placement = method_called(request.method or "").placement(graph.index, request)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            "the calibration cache leaves no layer that could run in INT8",
            hint="--calib-data DATA fills in what it lacks",
            nodes=error.nodes,
        ) from error
    return replace(graph, request=request, placement=placement)


def _told(graph: FloatGraph, spared: Mapping[str, str]) -> FloatGraph:
    """The graph whose plan names the rule: it was no measurement that spared these layers."""
    layers = tuple(replace(layer, rule=NO_RANGE) if layer.node in spared else layer for layer in graph.placement.layers)
    return replace(graph, placement=replace(graph.placement, layers=layers))
