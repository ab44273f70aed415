"""How many layers run in what: by the engine's own word, or by the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import infer_shapes
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.quantize.quantized_models import decisions_of, is_quantized
from trt_opt.values.engine import Manifest
from trt_opt.values.engine_layers import EngineLayer

INT8 = frozenset({"int8", "fp8"})
"""What counts as quantised: what computes in 8 bits."""

FLOAT = frozenset({"fp32", "fp16", "bf16", "int8-weights", "int4-weights"})

REFORMATS = ("reformat", "reorder")
"""What TensorRT calls layers that only change a tensor's type or layout, at the start of their kind, in any case."""


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """Layers by what they compute in.

    Attributes:
        int8: In 8 bits.
        floats: In floating point.
        reformats: That only convert or move data; None where only a builder could tell.
        origin: "engine" is the engine's own word, "graph" what is asked of a builder.
    """

    int8: int
    floats: int
    reformats: int | None
    origin: Literal["engine", "graph"]


def counts_of_engine(manifest: Manifest) -> LayerCounts | None:
    """What an engine's manifest says of its layers; what was asked for where the engine was not asked."""
    if manifest.layers:
        return _counted(manifest.layers)
    counts = Counter(str(layer.precision) for layer in manifest.precision.layers)
    if not counts:
        return None
    return LayerCounts(_sum(counts, INT8), _sum(counts, FLOAT), None, "graph")


def counts_of_graph(model: onnx.ModelProto) -> LayerCounts | None:
    """What a quantised ONNX graph says of its layers; None for others."""
    if not is_quantized(model):
        return None
    index = GraphIndex(infer_shapes(with_unique_node_names(normal_form(model).model)))
    counts = Counter(str(decision.precision) for decision in decisions_of(index))
    return LayerCounts(_sum(counts, INT8), _sum(counts, FLOAT), None, "graph")


def _counted(layers: Iterable[EngineLayer]) -> LayerCounts:
    reformats = 0
    counts: Counter[str] = Counter()
    for layer in layers:
        if layer.kind.lower().startswith(REFORMATS):
            reformats += 1
        else:
            counts[layer.precision] += 1
    return LayerCounts(_sum(counts, INT8), _sum(counts, FLOAT), reformats, "engine")


def _sum(counts: Counter[str], names: Iterable[str]) -> int:
    return sum(counts[name] for name in names)
