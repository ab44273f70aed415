"""What `trt-opt compare` found: models and engines over the same data, how far apart and how fast they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trt_opt.values.accuracy import Comparison, Verdict
from trt_opt.values.engine import FileRecord
from trt_opt.values.machine_state import Environment
from trt_opt.values.samples import DataProvenance
from trt_opt.values.timing import RunnerKind, Timing

MatchedBy = Literal["name", "structure"]
"""How a tensor of one graph was found in the other: by its name, or by what computes it."""


@dataclass(frozen=True, slots=True)
class Side:
    """A model or an engine that took part.

    Attributes:
        name: What it is called in sentences; no two sides share one.
        file: The file.
        precision: "FP32", "FP16", "INT8 + FP16"; empty where nobody knows.
        kind: Which library runs it.
        library: Name and version of the library that ran it: "onnxruntime 1.32.0".
        onnx_bytes: Size of the ONNX file, or of the graph an engine was built from; None where no manifest says.
        engine_bytes: Size of the engine; None for an ONNX file.
        int8_layers: Layers in INT8; None where nobody knows.
        float_layers: Layers in floating point; None likewise.
        reformats: Layers that only convert or move data, which the builder put in; None likewise.
        layers_from: Where the three counts come from: "engine" is the engine's own word, "graph" the ONNX graph that
            was run or built, which no builder has changed yet.
    """

    name: str
    file: FileRecord
    precision: str
    kind: RunnerKind
    library: str
    onnx_bytes: int | None = None
    engine_bytes: int | None = None
    int8_layers: int | None = None
    float_layers: int | None = None
    reformats: int | None = None
    layers_from: Literal["engine", "graph"] | None = None

    @property
    def simulated(self) -> bool:
        """Whether ONNX Runtime ran it, whose speed and rounding say nothing certain of an engine's."""
        return self.kind == "onnxruntime"


@dataclass(frozen=True, slots=True)
class MatchedTensor:
    """A tensor that both graphs compute.

    Attributes:
        name: In the reference.
        partner: In the candidate.
        by: How it was matched.
        node: The candidate's node that makes it.
        operator: That node's type.
        elements: Elements compared, over all samples.
        sqnr_db: Pooled over all samples; None where nothing differs or nothing could be compared.
        identical: Whether every element is equal.
        inputs_sqnr_db: The least SQNR among the matched tensors it is computed from; None where those are exact, or
            there are none.
        drop_db: By how much `sqnr_db` is below `inputs_sqnr_db`; None where either is unknown.
        shapes_differ: Whether the two had different shapes in some sample, so that they were not compared there.
        not_finite: Elements that are NaN or infinite in the candidate only.
    """

    name: str
    partner: str
    by: MatchedBy
    node: str
    operator: str
    elements: int
    sqnr_db: float | None
    identical: bool
    inputs_sqnr_db: float | None = None
    drop_db: float | None = None
    shapes_differ: bool = False
    not_finite: int = 0


@dataclass(frozen=True, slots=True)
class LayerwiseComparison:
    """Where a candidate's graph parts from the reference's.

    Attributes:
        candidate: The candidate's name.
        samples: Samples that ran.
        threshold_db: A tensor below it has parted.
        tensors: The matched tensors, in the order of execution of the candidate.
        unmatched_reference: Float tensors that only the reference has.
        unmatched_candidate: Float tensors that only the candidate has.
        first: The first tensor below the threshold, by its name in the candidate; None where none is.
        largest_drop: The tensor at which the SQNR falls the most against what it is computed from, likewise; None
            where nothing falls.
        finding: In a sentence: where they part, at which node, and whether the error is made there or inherited.
    """

    candidate: str
    samples: int
    threshold_db: float
    tensors: tuple[MatchedTensor, ...]
    unmatched_reference: int
    unmatched_candidate: int
    first: str | None
    largest_drop: str | None
    finding: str


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """One reference and its candidates.

    Attributes:
        tool: "trt-opt 0.1.0".
        measured_at: UTC, ISO 8601.
        sides: The reference, then every candidate.
        comparisons: Side i + 1 against side 0.
        timings: Of the sides that could be timed, in the order of `sides`, by the sides' names; empty without timing.
        environment: The machine while they were timed; None without timing.
        layerwise: One per candidate that is an ONNX graph, where it was asked for.
        findings: The plain sentences: speed and accuracy of every candidate, and what to do about it.
        verdict: The worst of the comparisons.
        reason: Why.
        data: What was fed.
        command: The arguments, for repeating it; empty where it was called from Python.
    """

    tool: str
    measured_at: str
    sides: tuple[Side, ...]
    comparisons: tuple[Comparison, ...]
    timings: tuple[Timing, ...]
    environment: Environment | None
    layerwise: tuple[LayerwiseComparison, ...]
    findings: tuple[str, ...]
    verdict: Verdict
    reason: str
    data: DataProvenance
    command: tuple[str, ...] = ()
