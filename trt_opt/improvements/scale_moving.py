"""Moves factors per channel from the nodes that make a tensor to those that read it, where INT8 gains by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from trt_opt.improvements.channel_extremes import channel_extremes
from trt_opt.improvements.channel_flow import ChannelFlow, channel_flow
from trt_opt.improvements.channel_groups import Group, Reading, groups
from trt_opt.improvements.channel_passing import RULES
from trt_opt.improvements.channel_scaling import with_factors
from trt_opt.improvements.channel_unknowns import Floats
from trt_opt.improvements.factor_choice import MIGRATION_STRENGTHS, balanced_factors
from trt_opt.improvements.factor_trials import Outcome, Trial, TrialRun
from trt_opt.improvements.improvement import Improved, Subject
from trt_opt.improvements.samples_apart import samples_apart
from trt_opt.quantize.stage import float_graph
from trt_opt.sensitivity.layers import QuantizedLayer, quantized_layers
from trt_opt.values.improvement import Declined, Gain
from trt_opt.values.progress import Progress

LEAST_GAIN_DB = 0.5
"""Less is not worth a change of the model."""

MOST_COPIED_WEIGHTS = 1 << 25
"""What the trials of one run may copy before another run is made for the rest: 128 MB in float32."""


MOST_ROUNDS = 4
"""Scales moved at one place change the balance at the next; the second round finds little, the fourth nothing."""


def with_moved_scales(subject: Subject, progress: Progress, is_ours: Callable[[Group], bool]) -> Improved:
    """The model with all scales moved that are worth it, in rounds until nothing more is found.

    Args:
        subject: The model and its data.
        progress: Told of every sample.
        is_ours: Which groups are looked at.
    """
    moving = ScaleMoving(subject, progress)
    total = moving.improved(is_ours)
    total = replace(total, declined=(*total.declined, *moving.unmovable()))
    last = total
    for _ in range(MOST_ROUNDS - 1):
        if last.model is None:
            break
        changed = replace(subject, source=float_graph(last.model, subject.source.request))
        last = ScaleMoving(changed, progress).improved(is_ours)
        if last.model is not None:
            total = replace(total, model=last.model, gains=_joined(total.gains, last.gains))
    return total


class ScaleMoving:
    """One round: tries every group of tensors that are scaled together, and moves the scales of those that gain.

    Args:
        subject: The model and its data.
        progress: Told of every sample.
    """

    def __init__(self, subject: Subject, progress: Progress) -> None:
        self._subject = subject
        self._progress = progress
        self._seen, self._judged = samples_apart(subject.data)
        self._flow = channel_flow(subject.source.index, RULES)
        self._extremes: dict[str, Floats] = {}
        self._readings: tuple[Reading, ...] = ()
        is_int8 = subject.source.placement.activation_format == "int8"
        layers = quantized_layers(subject.source, subject.ranges) if is_int8 else ()
        if layers:
            axes = _axes(self._flow, layers)
            self._extremes = channel_extremes(
                subject.source.index, axes, self._seen, progress, stage="find the ranges of channels"
            )
            self._readings = tuple(_readings(self._flow, layers, self._extremes))

    def improved(self, is_ours: Callable[[Group], bool]) -> Improved:
        """The model with the scales moved.

        Args:
            is_ours: Which groups are looked at.
        """
        uneven = [
            group
            for group in groups(self._flow, self._readings)
            if is_ours(group) and any(reading.is_uneven for reading in group.readings)
        ]
        best = self._best(uneven)
        kept = [outcome for outcome in best if outcome.gain_db >= LEAST_GAIN_DB]
        declined = tuple(_without_gain(outcome) for outcome in best if outcome.gain_db < LEAST_GAIN_DB)
        if not kept:
            return Improved(corrections=self._subject.corrections, declined=declined)
        factors = np.prod([outcome.trial.factors for outcome in kept], axis=0)
        gains = tuple(gain for outcome in kept for gain in _gains(outcome))
        return Improved(model=with_factors(self._flow, factors), gains=gains, declined=declined)

    def unmovable(self) -> Iterator[Declined]:
        """The layers whose input has uneven channels, none of which can be scaled."""
        told: set[str] = set()
        for reading in self._readings:
            node = reading.layer.node
            if node in told or not reading.is_uneven or self._flow.unknowns.is_free(reading.ids).any():
                continue
            told.add(node)
            yield Declined(node, f"{reading.tensor!r} stays: {self._flow.unknowns.reason(int(reading.ids.flat[0]))}")

    def _best(self, uneven: Sequence[Group]) -> list[Outcome]:
        """The best outcome of every group that a layer's output tells anything of."""
        run = TrialRun(self._flow, self._subject.source, self._extremes)
        trials = [trial for group in uneven for trial in self._trials(group)]
        outcomes = [
            outcome
            for part in self._parts(trials)
            for outcome in run.outcomes(part, self._judged, self._progress)
            if outcome.readings
        ]
        found: dict[int, Outcome] = {}
        for outcome in outcomes:
            key = id(outcome.trial.group)
            if key not in found or outcome.gain_db > found[key].gain_db:
                found[key] = outcome
        return list(found.values())

    def _trials(self, group: Group) -> Iterator[Trial]:
        tried: set[bytes] = set()
        for strength in MIGRATION_STRENGTHS:
            factors = balanced_factors(self._flow, group, strength)
            moved = factors[factors != 1]
            if moved.size and factors.tobytes() not in tried:
                tried.add(factors.tobytes())
                span = max(moved.max(initial=1.0), 1.0) / min(moved.min(initial=1.0), 1.0)
                what = f"{moved.size} of {group.roots.size} channels scaled, by factors up to {span:g} apart"
                yield Trial(group, factors, what)

    def _parts(self, trials: Sequence[Trial]) -> Iterator[list[Trial]]:
        part: list[Trial] = []
        copied = 0
        for trial in trials:
            size = sum(self._weights(reading.layer) for reading in trial.group.readings)
            if part and copied + size > MOST_COPIED_WEIGHTS:
                yield part
                part, copied = [], 0
            part.append(trial)
            copied += size
        if part:
            yield part

    def _weights(self, layer: QuantizedLayer) -> int:
        shapes = [self._flow.index.shape(quantizer.tensor) or () for quantizer in layer.weights.values()]
        return sum(int(np.prod([size or 1 for size in shape])) for shape in shapes)


def _axes(flow: ChannelFlow, layers: Sequence[QuantizedLayer]) -> Mapping[str, tuple[int, ...]]:
    """Tensor → the axes along which its unknowns change, for every tensor that a scale comes from or goes to."""
    names = {
        name
        for layer in layers
        for quantizer in layer.activations.values()
        for name in (quantizer.tensor, quantizer.range_of)
    }
    return {name: tuple(np.flatnonzero(np.array(flow.of(name).shape) > 1).tolist()) for name in sorted(names)}


def _readings(flow: ChannelFlow, layers: Sequence[QuantizedLayer], extremes: Mapping[str, Floats]) -> Iterator[Reading]:
    for layer in layers:
        for position, quantizer in layer.activations.items():
            ids = flow.unknowns.roots(flow.of(quantizer.tensor))
            yield Reading(layer, position, quantizer.tensor, quantizer.range_of, ids, extremes[quantizer.tensor])


def _gains(outcome: Outcome) -> Iterator[Gain]:
    for reading, before, after in zip(outcome.readings, outcome.before, outcome.after, strict=True):
        yield Gain(reading.layer.node, outcome.trial.what, before.sqnr_db, after.sqnr_db)


def _joined(earlier: tuple[Gain, ...], later: tuple[Gain, ...]) -> tuple[Gain, ...]:
    """One gain for each layer: what it was before all rounds, and what it is after the last."""
    found = {gain.node: gain for gain in earlier}
    for gain in later:
        first = found.get(gain.node, gain)
        found[gain.node] = replace(first, after_db=gain.after_db)
    return tuple(found.values())


def _without_gain(outcome: Outcome) -> Declined:
    first = outcome.readings[0].layer.node
    others = len({reading.layer.node for reading in outcome.readings}) - 1
    more = f" and of the {others} layers that share its scales" if others else ""
    gain = f"{outcome.gain_db:.1f} dB, not by {LEAST_GAIN_DB}"
    return Declined(first, f"its error{more} would become smaller by {gain}")
