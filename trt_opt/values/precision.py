"""Which layer runs in which precision, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from trt_opt.values.accuracy import Comparison
from trt_opt.values.cache_import import CacheCoverage
from trt_opt.values.importing import ImportReport
from trt_opt.values.samples import DataProvenance
from trt_opt.values.search import SearchReport

Precision = Literal["fp32", "fp16", "int8", "fp8", "int8-weights", "int4-weights", "other"]
"""Where "int8-weights" and "int4-weights" compute in float from weights stored so, and "other" are nodes without a
floating-point tensor: shapes, indices, masks."""

LABELS: Mapping[Precision, str] = MappingProxyType(
    {
        "int8": "INT8",
        "fp8": "FP8",
        "int8-weights": "INT8 weights",
        "int4-weights": "INT4 weights",
        "fp16": "FP16",
        "fp32": "FP32",
        "other": "without floats",
    }
)
"""What people call them."""

QUANTIZED: tuple[Precision, ...] = ("int8", "fp8", "int8-weights", "int4-weights")
"""The precisions that quantisation gives, the strongest first."""


@dataclass(frozen=True, slots=True)
class LayerDecision:
    """The precision chosen for one node.

    Attributes:
        node: The node's name (its first output's name where it has none).
        op_type: The operator.
        precision: What it shall run in.
        rule: The placement rule that decided.
        reason: One sentence for the user.
    """

    node: str
    op_type: str
    precision: Precision
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """All decisions about a graph.

    Attributes:
        layers: One decision per node, in graph order.
        kept_fp32: Node → why it stays FP32 although FP16 was asked for.
    """

    layers: tuple[LayerDecision, ...]
    kept_fp32: Mapping[str, str] = field(default_factory=dict)

    def count(self, precision: Precision) -> int:
        """How many nodes run in this precision."""
        return sum(layer.precision == precision for layer in self.layers)

    @property
    def counts(self) -> str:
        """How many nodes run in what, in words; FP32 and FP16 are named even where there are none."""
        found = {kind: self.count(kind) for kind in LABELS}
        named = ("int8", "fp16", "fp32")
        return ", ".join(f"{count} {LABELS[kind]}" for kind, count in found.items() if count or kind in named)


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """A quantised model file.

    Attributes:
        output: The file.
        beside: What was written beside it: a preprocessing note, a calibration cache.
        plan: The precision of every layer.
        data: What the ranges rest on; None without calibration.
        warnings: What the user should know.
        imported: What became of a model that came quantised; None of another.
        search: How the layers in INT8 were chosen; None where the placement policy's stayed as they were.
        accuracy: The result against the model as given, on evaluation data; None without them.
        cache: What a calibration cache covered of the ranges; None where they come from elsewhere.
    """

    output: str
    plan: PrecisionPlan
    data: DataProvenance | None
    warnings: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    imported: ImportReport | None = None
    search: SearchReport | None = None
    accuracy: Comparison | None = None
    cache: CacheCoverage | None = None
