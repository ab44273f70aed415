"""Which threshold each activation gets: the one with the least error behind the layers that read it, on data.

No calibrator is the best for every tensor. What a threshold costs shows where the tensor is read, not in the tensor:
weights of zero do not mind clipping, and a Relu removes half of the error. So every candidate of every tensor is put in
front of every layer that reads it, all others in float, and the error behind the layer is summed over a few samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from calibrators import Auto, Entropy, MinMax, Mse, Percentile
from trt_opt.calibrate.ranges import CalibrationPass
from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.methods import METHODS
from trt_opt.quantize.placement import ACTIVATION_OPS
from trt_opt.quantize.scales import scale_of
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.sensitivity.probes import Probe, probe_errors
from trt_opt.values.calibration import CalibrationTable, TensorRange
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset, Samples

SAMPLES = 16
"""On so many samples, evenly spread over the data, candidates are compared."""

PROBES_AT_ONCE = 200
"""In one session: each probe holds its layer's output for a moment."""

TIE = 1e-3
"""A smaller threshold must lessen the error by this share; else the larger one clips less of what is still to come."""


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """One candidate of one tensor in front of one of its readers."""

    tensor: str
    candidate: str
    probe: Probe


def chosen_table(source: FloatGraph, found: CalibrationPass, dataset: Dataset, progress: Progress) -> CalibrationTable:
    """The table with each tensor's threshold chosen among the calibrators' by measured error.

    Tensors that share a scale (what is only moved, inputs of a concatenation) are judged by the layers that read them
    in the end. A tensor that no quantised layer reads keeps what the calibrator "auto" tells from its histogram.

    Args:
        source: The float graph.
        found: What its data pass gave, with the calibrator "auto".
        dataset: The data of that pass.
        progress: Told of every sample.
    """
    placed = _with_pairs(source)
    if placed is None:
        return found.table
    thresholds = {tensor: Auto().thresholds(histogram) for tensor, histogram in found.histograms.items()}
    trials = _trials(placed, found.table.ranges, thresholds)
    errors = _errors_behind(placed.index, trials, EvenlySpread(dataset, SAMPLES), progress)
    chosen = {
        tensor: _least(candidates, errors[tensor]) if tensor in errors else _by_itself(candidates, found.table, tensor)
        for tensor, candidates in thresholds.items()
    }
    ranges = {
        tensor: replace(seen, amax=thresholds[tensor][chosen[tensor]]) if tensor in chosen else seen
        for tensor, seen in found.table.ranges.items()
    }
    return replace(found.table, ranges=ranges, chosen=chosen)


def tables_of_each(found: CalibrationPass) -> Iterator[CalibrationTable]:
    """The table of every single calibrator, with its own defaults, from the histograms of one data pass.

    Args:
        found: What a data pass with the calibrator "auto" gave.
    """
    for calibrator in (MinMax(), Entropy(), Mse(), Percentile()):
        ranges = {
            tensor: replace(found.table.ranges[tensor], amax=calibrator.amax(histogram))
            for tensor, histogram in found.histograms.items()
        }
        ranges = {**found.table.ranges, **ranges}
        yield replace(found.table, calibrator=str(calibrator), ranges=ranges, chosen={})


def _with_pairs(source: FloatGraph) -> FloatGraph | None:
    """The graph with the INT8 pairs that its thresholds are for; None where a threshold decides nothing.

    FP8 scales are extremes. With implicit quantisation TensorRT decides what runs in INT8; the placement policy is the
    best guess at it.
    """
    placement = source.placement
    if placement.activation_format != "int8" or not placement.ranges_needed:
        return None
    if placement.activations:
        return source
    policy = METHODS["static"].placement(source.index, source.request)
    return replace(source, placement=policy)


def _trials(
    source: FloatGraph, ranges: Mapping[str, TensorRange], thresholds: Mapping[str, Mapping[str, float]]
) -> list[_Trial]:
    """Every candidate in front of every layer that reads its tensor; none for a tensor with one candidate."""
    trials = []
    for layer in quantized_layers(source, ranges):
        through = activations_behind(source.index, layer.node)
        for position, quantizer in layer.activations.items():
            candidates = thresholds[quantizer.range_of]
            for name, amax in candidates.items() if len(candidates) > 1 else ():
                scale = scale_of(amax, fp16=source.request.fp16)
                trials.append(_Trial(quantizer.range_of, name, Probe(layer.node, {position: scale}, through=through)))
    return trials


def activations_behind(index: GraphIndex, node: str) -> tuple[str, ...]:
    """The activation functions that alone read what a node writes, in order: an error they remove is none."""
    found: list[str] = []
    while True:
        tensor = next(name for name in index.nodes[found[-1] if found else node].output if name)
        readers = index.readers(tensor)
        alone = {reader.name for reader, _ in readers}
        if len(alone) != 1 or index.is_read_elsewhere(tensor) or readers[0][0].op_type not in ACTIVATION_OPS:
            return tuple(found)
        found.append(readers[0][0].name)


def _errors_behind(
    index: GraphIndex, trials: Sequence[_Trial], samples: Samples, progress: Progress
) -> dict[str, dict[str, float]]:
    """Tensor → candidate → relative error behind its readers, summed over them."""
    found: dict[str, dict[str, float]] = {}
    for first in range(0, len(trials), PROBES_AT_ONCE):
        group = trials[first : first + PROBES_AT_ONCE]
        errors = probe_errors(index, [trial.probe for trial in group], samples, progress, stage="choose ranges")
        for trial, sums in zip(group, errors, strict=True):
            own = found.setdefault(trial.tensor, {})
            own[trial.candidate] = own.get(trial.candidate, 0.0) + sums.relative
    return found


def _least(candidates: Mapping[str, float], errors: Mapping[str, float]) -> str:
    """The candidate with the least error; the candidates come from the largest threshold to the smallest."""
    best, *others = candidates
    for name in others:
        if errors[name] < errors[best] * (1.0 - TIE):
            best = name
    return best


def _by_itself(candidates: Mapping[str, float], table: CalibrationTable, tensor: str) -> str:
    """The candidate that the histogram alone spoke for."""
    amax = table.ranges[tensor].amax
    return next(name for name, threshold in candidates.items() if threshold == amax)
