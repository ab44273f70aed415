"""What factors do to the error of the layers that read scaled tensors, measured at these layers' own outputs.

What threshold a calibrator will choose for the scaled tensor is not known before the whole model has been calibrated
again. On both sides the better of two counts: the extreme, and the share of it that the calibrator chose for the tensor
as it is. Without the second, evening out would be credited with what cutting off outliers has done already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.writer import GraphWriter
from trt_opt.improvements.channel_flow import ChannelFlow
from trt_opt.improvements.channel_groups import Group, Reading
from trt_opt.improvements.channel_scaling import scaled_constant
from trt_opt.improvements.channel_unknowns import Floats
from trt_opt.improvements.factor_choice import weight_uses
from trt_opt.quantize.number_format import INT8
from trt_opt.quantize.rules import AVERAGING_OPS
from trt_opt.quantize.scales import scale_of
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import dequantized_weights
from trt_opt.sensitivity.probes import ErrorSums, Probe, probe_errors
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Sample

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Factors that one group may get.

    Attributes:
        group: The group.
        factors: float64 [unknowns].
        what: How they came about, for a report.
    """

    group: Group
    factors: Floats
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A trial's errors.

    Attributes:
        trial: The trial.
        readings: What was measured: averages are left out, which hardly show rounding.
        before: One for each reading, with the model as it is.
        after: The same with the factors; the signal is that of `before`.
    """

    trial: Trial
    readings: tuple[Reading, ...]
    before: tuple[ErrorSums, ...]
    after: tuple[ErrorSums, ...]

    @property
    def gain_db(self) -> float:
        """By how much the relative errors together become smaller; minus infinity where they are no numbers."""
        before, after = (sum(sums.relative for sums in side) for side in (self.before, self.after))
        if not np.isfinite(after) or before == 0.0:
            return float("-inf")
        return float(10 * np.log10(before / after)) if after > 0 and np.isfinite(before) else float("inf")


class TrialRun:
    """Measures trials beside the float model.

    Args:
        flow: The walked graph.
        source: The float graph with its placement.
        extremes: Tensor → max |x| of every channel, for all tensors with a quantiser and those that give them a range.
    """

    def __init__(self, flow: ChannelFlow, source: FloatGraph, extremes: Mapping[str, Floats]) -> None:
        self._flow = flow
        self._source = source
        self._extremes = extremes

    def outcomes(self, trials: Sequence[Trial], samples: Iterable[Sample], progress: Progress) -> list[Outcome]:
        """One outcome for each trial, from one run of the model for each sample."""
        readings = [_measured(trial.group) for trial in trials]
        once = list({id(reading): reading for found in readings for reading in found}.values())
        copies = _Copies(self._flow)
        twins = [[copies.of(reading, trial.factors) for reading in readings[n]] for n, trial in enumerate(trials)]
        index = copies.finished()
        asked = [self._before(reading) for reading in once]
        for trial, found, own in zip(trials, readings, twins, strict=True):
            asked += [
                self._after(index, reading, trial.factors, twin) for reading, twin in zip(found, own, strict=True)
            ]
        probes = [probe for pair in asked for probe in pair]
        sums = probe_errors(index, probes, samples, progress, stage="try factors per channel")
        best = iter([min(pair, key=lambda one: one.relative) for pair in zip(sums[::2], sums[1::2], strict=True)])
        before = {id(reading): next(best) for reading in once}
        return [
            Outcome(trial, found, own, tuple(_with_signal_of(next(best), one) for one in own))
            for trial, found in zip(trials, readings, strict=True)
            for own in [tuple(before[id(reading)] for reading in found)]
        ]

    def _before(self, reading: Reading) -> tuple[Probe, Probe]:
        weights = dequantized_weights(reading.layer, self._source)
        low, high = self._scales(reading, self._extremes[reading.range_of])
        probes = [Probe(reading.layer.node, {reading.position: scale}, weights) for scale in (low, high)]
        return probes[0], probes[1]

    def _after(self, index: GraphIndex, reading: Reading, factors: Floats, copy: _Copy) -> tuple[Probe, Probe]:
        ids = self._flow.unknowns.roots(self._flow.of(reading.range_of))
        low, high = self._scales(reading, self._extremes[reading.range_of] / factors[ids])
        weights: dict[int, Weights] = {}
        if copy.weights:
            stored = {
                position: replace(quantizer, tensor=copy.weights[position])
                for position, quantizer in reading.layer.weights.items()
            }
            there = replace(self._source, index=index)
            weights = dequantized_weights(replace(reading.layer, weights=stored), there)
        return Probe(copy.node, {0: low}, weights), Probe(copy.node, {0: high}, weights)

    def _scales(self, reading: Reading, extremes: Floats) -> tuple[np.float32, np.float32]:
        """For the extreme itself, and for as much of it as the calibrator left of the tensor as it is."""
        largest, fp16 = float(extremes.max(initial=0.0)), self._source.request.fp16
        whole = float(self._extremes[reading.range_of].max(initial=0.0))
        kept = float(reading.layer.scales[reading.position]) * INT8.largest / whole if whole > 0 else 1.0
        return scale_of(largest, fp16=fp16), scale_of(largest * min(kept, 1.0), fp16=fp16)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A layer's twin that reads scaled numbers, and the names of its weights; without any, the scaling undone."""

    node: str
    weights: Mapping[int, str]


class _Copies:
    """The float model with twins of layers in it."""

    def __init__(self, flow: ChannelFlow) -> None:
        self._flow = flow
        self._writer = GraphWriter(flow.index.model)

    def of(self, reading: Reading, factors: Floats) -> _Copy:
        """A twin that reads the tensor divided by its factors, and gives what the layer gives."""
        writer, found = self._writer, factors[reading.ids].astype(np.float32)
        node = writer.nodes[reading.layer.node]
        divided = writer.tensor(f"{reading.tensor}_divided")
        divisor = writer.constant(f"{reading.tensor}_inverse", np.asarray(1 / found, np.float32))
        writer.before(node.name, writer.made("Mul", [reading.tensor, divisor], divided))
        if not reading.layer.weights:
            return self._undone(node, divided, found)
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        output = writer.tensor(f"{node.output[0]}_twin")
        twin.name = writer.made("Identity", [divided], output).name
        del twin.output[1:]
        twin.output[0], twin.input[reading.position] = output, divided
        names = {}
        for position in reading.layer.weights:
            uses = [use for use in weight_uses(self._flow, reading.layer, exponent=1) if use.position == position]
            values = scaled_constant(self._flow, uses, factors) if uses else None
            if values is not None:
                twin.input[position] = writer.constant(f"{output}_weights", values)
            names[position] = twin.input[position]
        writer.behind(node.name, twin)
        return _Copy(twin.name, names)

    def finished(self) -> GraphIndex:
        """The model."""
        return GraphIndex(self._writer.finished())

    def _undone(self, node: onnx.NodeProto, divided: str, factors: Weights) -> _Copy:
        """Times the factors again: a sum's error is that of its operand."""
        writer = self._writer
        back = writer.made(
            "Mul", [divided, writer.constant(f"{divided}_by", factors)], writer.tensor(f"{divided}_undone")
        )
        writer.behind(node.name, back)
        return _Copy(back.name, {})


def _measured(group: Group) -> tuple[Reading, ...]:
    return tuple(reading for reading in group.readings if reading.layer.op_type not in AVERAGING_OPS)


def _with_signal_of(after: ErrorSums, before: ErrorSums) -> ErrorSums:
    return ErrorSums(error=after.error, signal=before.signal)
