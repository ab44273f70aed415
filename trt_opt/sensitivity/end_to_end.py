"""What single layers in INT8, and all up to one, do to the outputs of the whole graph, at a bounded cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import QuantizedLayer, added_bias, dequantized_weights
from trt_opt.sensitivity.output_errors import GraphSums, decibels
from trt_opt.sensitivity.probes import ErrorSums, Probe, probe_errors
from trt_opt.sensitivity.switchboard import Switchboard
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Samples

EACH_PASSES = 6.0
"""How many times all samples may be run for all layers together, whatever the number of layers."""

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Damage:
    """What one layer in INT8 does to the graph's outputs, all others in float.

    Attributes:
        node: The layer.
        output_db: SQNR at the worst output, dB: None without an error there or where it was not measured, minus
            infinity where the output is not finite or its signal is zero.
        energy: Error energy over signal energy at the worst output: 0 without an error, infinity as above, None where
            it was not measured.
        output: The worst output; None where it was not measured.
        samples: On how many samples it was measured; 0 where it was not.
    """

    node: str
    output_db: float | None = None
    energy: float | None = None
    output: str | None = None
    samples: int = 0


def damages(
    source: FloatGraph,
    layers: Sequence[QuantizedLayer],
    samples: Samples,
    progress: Progress,
    *,
    passes: float = EACH_PASSES,
    own: Mapping[str, ErrorSums] | None = None,
) -> tuple[Damage, ...]:
    """Every layer's damage, worst first; what could not be measured comes behind, by the error at its own output.

    The cost is at most `passes` runs of all samples, and one more, whatever the number of layers: layers share that
    many runs evenly. Where that is less than one sample for each, only those with the largest own error are run.

    Args:
        source: The float graph.
        layers: Its quantised layers.
        samples: What to measure on.
        progress: Told of every run.
        passes: How many times all samples may be run.
        own: Layer → its error at its own output, if that is known; else it is measured, by one run of all samples.

    Raises:
        DataError: A sample does not fit the model.
    """
    if own is None:
        own = own_errors(source, layers, samples, progress)
    chosen, count = affordable(layers, len(samples), own, passes)
    sets = {layer.node: frozenset({layer.node}) for layer in chosen}
    with Switchboard(source, chosen) as board:
        sums = switched_errors(board, sets, EvenlySpread(samples, count), progress, stage="layers alone")
    return ranked([damage_from(layer.node, sums.get(layer.node), count) for layer in layers], own)


def own_errors(
    source: FloatGraph, layers: Sequence[QuantizedLayer], samples: Samples, progress: Progress
) -> dict[str, ErrorSums]:
    """Layer → its error at its own output, fed what the float model feeds it, from one run of all samples."""
    probes = [
        Probe(layer.node, layer.scales, dequantized_weights(layer, source), added_bias(layer, source))
        for layer in layers
    ]
    found = probe_errors(source.index, probes, samples, progress, stage="own outputs")
    return {layer.node: sums for layer, sums in zip(layers, found, strict=True)}


def affordable(
    layers: Sequence[QuantizedLayer], samples: int, own: Mapping[str, ErrorSums], passes: float
) -> tuple[tuple[QuantizedLayer, ...], int]:
    """Which layers are run, in graph order, and on how many samples each: at most `passes` · `samples` runs in all."""
    runs = max(1, int(passes * samples))
    if len(layers) <= runs:
        return tuple(layers), min(samples, runs // max(1, len(layers)))
    worst = sorted(layers, key=lambda layer: -own[layer.node].relative)[:runs]
    kept = {layer.node for layer in worst}
    return tuple(layer for layer in layers if layer.node in kept), min(samples, 1)


def switched_errors(
    board: Switchboard,
    sets: Mapping[Key, Collection[str]],
    samples: Samples,
    progress: Progress,
    *,
    stage: str,
) -> dict[Key, GraphSums]:
    """Key → the outputs' errors with that set of layers in INT8; nothing but sums is kept.

    Args:
        board: Has a switch for every layer of the sets.
        sets: Any key → the layers in INT8.
        samples: Each is run once for every set, and once in float.
        progress: Told of every run.
        stage: What it is called.
    """
    sums = {key: GraphSums() for key in sets}
    progress.start(stage, len(samples) * (len(sets) + 1), "runs")
    for sample in samples:
        reference = board.infer(sample.feed, ())
        progress.advance()
        for key, nodes in sets.items():
            sums[key].add(reference, board.infer(sample.feed, nodes))
            progress.advance()
    progress.finish()
    return sums


def damage_from(node: str, sums: GraphSums | None, samples: int) -> Damage:
    """The damage as a value; one that was not measured where there are no sums or no floating-point output."""
    worst = sums.worst() if sums is not None else None
    if worst is None:
        return Damage(node)
    return Damage(node, decibels(worst[1]), worst[1], worst[0], samples)


def ranked(found: Sequence[Damage], own: Mapping[str, ErrorSums]) -> tuple[Damage, ...]:
    """Worst first: by the energy at the output, ties and what was not measured by the error at the own output."""

    def key(damage: Damage) -> tuple[bool, float, float]:
        energy = 0.0 if damage.energy is None or np.isnan(damage.energy) else damage.energy
        return damage.energy is None, -energy, -own[damage.node].relative

    return tuple(sorted(found, key=key))
