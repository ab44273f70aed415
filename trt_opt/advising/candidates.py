"""Every method tried on one model: its graph written, or the reason why it could not be."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from calibrators import Calibrator
from trt_opt.backends.onnxruntime import check_in_onnxruntime
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.errors import TrtOptError
from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.methods import METHODS
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, QuantizedGraph, float_graph, quantized_graph
from trt_opt.values.accuracy import Comparison
from trt_opt.values.advice import Method
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset
from trt_opt.variants import GraphVariant, accuracies

NO_DATA = "size only: no data"

PLACEHOLDER = TensorRange(-1.0, 1.0, 1.0, 1)
"""Stands in for ranges nobody measured: how many bytes a graph takes does not depend on them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A method to try.

    Attributes:
        method: What it is called in the advice.
        request: The precisions it stands for.
        calibrator: What chooses the ranges, if it has any.
    """

    method: Method
    request: PrecisionRequest
    calibrator: str = "entropy"

    @property
    def weights(self) -> str:
        """What weights-only stores; empty for the others."""
        return self.request.weights if self.method == "weights-only" else ""


ATTEMPTS: tuple[Attempt, ...] = (
    Attempt("fp32", PrecisionRequest()),
    Attempt("fp16", PrecisionRequest(fp16=True)),
    Attempt("static", PrecisionRequest(method="static", fp16=True)),
    Attempt("weights-only", PrecisionRequest(method="weights-only", fp16=True, weights="int8")),
    Attempt("weights-only", PrecisionRequest(method="weights-only", fp16=True, weights="int4")),
    Attempt("fp8", PrecisionRequest(method="fp8", fp16=True)),
)
"""In the order of the table. Full-integer computes as static does, and implicit is the builder's own affair."""


SECOND_ATTEMPTS: tuple[Attempt, ...] = (
    Attempt("static", PrecisionRequest(method="static", fp16=True), "minmax"),
    Attempt("static", PrecisionRequest(method="static", fp16=True), "mse"),
    Attempt("static", PrecisionRequest(method="static", fp16=True), "percentile"),
)
"""Tried where static INT8 is not shown to be accurate enough: no calibrator is the best for every model. FP8 has no
use for them: it takes the extremes."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What became of an attempt.

    Attributes:
        attempt: The attempt.
        label: The precisions in words.
        source: The float graph with the placement; None where the method could not be used.
        written: The graph; None where it could not be written.
        error: Why not.
        comparison: Against the model as given; None where it was not simulated.
        note: What to know about the figures.
    """

    attempt: Attempt
    label: str
    source: FloatGraph | None = None
    written: QuantizedGraph | None = None
    error: TrtOptError | None = None
    comparison: Comparison | None = None
    note: str = ""


def placed(model: onnx.ModelProto, attempts: Sequence[Attempt]) -> list[Candidate]:
    """Decides for every attempt where its quantisers go; a method that cannot be used does not stop the others.

    Args:
        model: The model as rewritten for its target.
        attempts: What to try; methods that this version does not have are left out.
    """
    candidates: list[Candidate] = []
    for attempt in attempts:
        method = attempt.request.method
        if method is not None and method not in METHODS:
            continue
        label = METHODS[method].label(attempt.request) if method is not None else attempt.method.upper()
        try:
            source = float_graph(model, attempt.request)
        except TrtOptError as error:
            candidates.append(Candidate(attempt, label, error=error))
            continue
        candidates.append(Candidate(attempt, source.name, source))
    return candidates


def shared_ranges(
    candidates: Sequence[Candidate], dataset: Dataset, calibrator: Calibrator, progress: Progress
) -> dict[str, TensorRange]:
    """The ranges all candidates need, from one data pass.

    A tensor that only some graphs have, because raising the opset made it, costs another pass over one of these.
    """
    ranges: dict[str, TensorRange] = {}
    sources = [candidate.source for candidate in candidates if candidate.source is not None]
    taps = [source.taps for source in sources]
    # The graph that quantises most goes first: it most likely has every tensor.
    for source in sorted(sources, key=lambda source: -len(source.taps.calibrated)):
        own = tensors_of(source.index)
        calibrated = _missing((name for entry in taps for name in entry.calibrated), own, ranges)
        watched = _missing((name for entry in taps for name in entry.watched), own, {*ranges, *calibrated})
        if calibrated or watched:
            wanted, optimised = Taps(calibrated, watched), not source.came_quantized
            table = calibration_table(source.model, wanted, dataset, calibrator, progress, optimised=optimised)
            ranges |= table.ranges
    return ranges


def tensors_of(index: GraphIndex) -> frozenset[str]:
    """The tensors of a graph that can be looked at while it runs."""
    return frozenset(index.inputs) | {name for node in index.model.graph.node for name in node.output if name}


def written(candidates: Sequence[Candidate], ranges: Mapping[str, TensorRange], progress: Progress) -> list[Candidate]:
    """Writes every graph; one whose ranges are missing is written for its size alone."""
    progress.start("quantize", len(candidates), "graphs")
    results: list[Candidate] = []
    for candidate in candidates:
        results.append(_written(candidate, ranges))
        progress.advance()
    progress.finish()
    return results


def compared(
    original: onnx.ModelProto, candidates: Sequence[Candidate], dataset: Dataset | None, progress: Progress
) -> list[Candidate]:
    """Simulates every graph that was written with ranges of its own, all of them in one data pass if that works."""
    judged = [entry for entry in candidates if entry.written is not None and entry.note != NO_DATA]
    if dataset is None or not judged:
        return list(candidates)
    try:
        found = dict(zip(map(id, judged), _comparisons(original, judged, dataset, progress), strict=True))
    except TrtOptError:
        return [_compared_alone(original, entry, dataset, progress) for entry in candidates]
    return [replace(entry, comparison=found.get(id(entry))) for entry in candidates]


def _compared_alone(original: onnx.ModelProto, candidate: Candidate, dataset: Dataset, progress: Progress) -> Candidate:
    """One candidate by itself, after one of them had spoilt the pass over all."""
    if candidate.written is None or candidate.note == NO_DATA:
        return candidate
    try:
        return replace(candidate, comparison=_comparisons(original, [candidate], dataset, progress)[0])
    except TrtOptError as error:
        return replace(candidate, note=f"not simulated: {error.what}")


def _comparisons(
    original: onnx.ModelProto, candidates: Sequence[Candidate], dataset: Dataset, progress: Progress
) -> tuple[Comparison, ...]:
    # Labels are not unique: several calibrators may have been tried for one method.
    variants = [
        GraphVariant(f"{number}: {entry.label}", entry.written.model, entry.written.ends)
        for number, entry in enumerate(candidates, 1)
        if entry.written is not None
    ]
    return tuple(accuracies(original, variants, dataset, progress).values())


def _written(candidate: Candidate, ranges: Mapping[str, TensorRange]) -> Candidate:
    if candidate.source is None:
        return candidate
    unknown = [name for name in candidate.source.taps.calibrated if name not in ranges]
    try:
        result = quantized_graph(candidate.source, {**ranges, **dict.fromkeys(unknown, PLACEHOLDER)})
        check_in_onnxruntime(result.model, f"the {candidate.label} graph")
    except TrtOptError as error:
        return replace(candidate, error=error)
    return replace(candidate, written=result, note=NO_DATA if unknown else "")


def _missing(names: Iterable[str], own: frozenset[str], seen: Container[str]) -> tuple[str, ...]:
    """The names that a graph has and nobody has seen yet, each once."""
    return tuple(dict.fromkeys(name for name in names if name in own and name not in seen))
