"""Rounds each weight up or down as the layer's output wants it, not to the nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.improvements.held_out import channel_errors, probe_of, with_bias
from trt_opt.improvements.improvement import Improved, Subject
from trt_opt.improvements.input_moments import in_portions, input_moments
from trt_opt.improvements.layer_patches import PRODUCTS, weight_rows, weights_from_rows
from trt_opt.improvements.samples_apart import ONE_SAMPLE, Half
from trt_opt.quantize.number_format import INT8
from trt_opt.quantize.stage import Correction, FloatGraph
from trt_opt.quantize.stored_weights import StoredWeights, stored_weights
from trt_opt.sensitivity.layers import QuantizedLayer, quantized_layers
from trt_opt.values.improvement import Declined, Gain
from trt_opt.values.progress import Progress

SWEEPS = 3
"""So often every weight is looked at; on SqueezeNet the sweeps flip 9.5, 3.6 and 1.9 % of the weights."""

BLOCK = 128
"""Columns whose flips are gathered before the gradient of all others follows, in one product of matrices."""

RIDGE = 0.05
"""Share of the mean second moment that is added to each: it keeps few rows from deciding about many weights."""

LARGEST_ROW = 4608
"""Inputs per output channel: a 3x3 convolution over 512 channels. Moments grow with the square, 85 MB at this size."""

SLACK = np.float32(1e-4)
"""A flip must lower the objective by more than what float32 may be wrong by, as a share of the column's own moment."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Rounding:
    """What is rounded: a layer, its weights in float, and in INT8 as they are now."""

    layer: QuantizedLayer
    weights: FloatArray
    nearest: StoredWeights


class RoundAdaptively:
    """Rounds weights up or down so that a layer's output changes least, over inputs sampled from the data.

    Errors of weights that meet correlated inputs cancel, which rounding to nearest knows nothing of. Fitted to every
    other sample, judged on the rest, and kept where the layer's own error became smaller.
    """

    name = "round_adaptively"
    summary = "rounds weights up or down by what it does to the layer's output"

    def improved(self, subject: Subject, progress: Progress) -> Improved:
        """Tries it on every convolution and product with constant weights.

        Raises:
            DataError: A sample cannot be run.
        """
        fit, held_out = Half(subject.data, 0), Half(subject.data, 1)
        layers = [layer for layer in quantized_layers(subject.source, subject.ranges) if 1 in layer.weights]
        reasons = {layer.node: _obstacle(layer, subject) or ("" if len(held_out) else ONE_SAMPLE) for layer in layers}
        declined = [Declined(node, why) for node, why in reasons.items() if why]
        tried = [_rounding(layer, subject.source) for layer in layers if not reasons[layer.node]]
        found = _corrections(tried, subject, fit, progress)
        gains, worse = _judged(tried, found, subject, held_out, progress)
        kept = {gain.node: found[gain.node] for gain in gains}
        return Improved(corrections={**subject.corrections, **kept}, gains=tuple(gains), declined=(*declined, *worse))


def _obstacle(layer: QuantizedLayer, subject: Subject) -> str:
    """Why a layer's weights cannot be rounded this way; nothing where they can."""
    node = subject.source.index.nodes[layer.node]
    if layer.op_type not in PRODUCTS:
        return f"what {layer.op_type} does is not read as a product of matrices"
    if layer.weights[1].number_format != INT8.name or layer.weights[1].axis is None:
        return "its weights are not INT8 with one scale per channel"
    columns = int(weight_rows(node, _weights(layer, subject.source)).shape[2])
    if columns > LARGEST_ROW:
        return f"{columns} inputs per output channel, above {LARGEST_ROW}: their moments would take too much memory"
    return ""


def _weights(layer: QuantizedLayer, source: FloatGraph) -> FloatArray:
    return np.asarray(source.index.constant(layer.weights[1].tensor), np.float32)


def _rounding(layer: QuantizedLayer, source: FloatGraph) -> _Rounding:
    weights = _weights(layer, source)
    return _Rounding(layer, weights, stored_weights(weights, layer.weights[1], fp16=source.request.fp16))


def _corrections(tried: Sequence[_Rounding], subject: Subject, fit: Half, progress: Progress) -> dict[str, Correction]:
    """The layers with weights rounded anew; a correction's bias stays."""
    by_name = {entry.layer.node: entry for entry in tried}
    nodes = subject.source.index.nodes
    sizes = {name: _moments_bytes(weight_rows(nodes[name], entry.weights)) for name, entry in by_name.items()}
    found: dict[str, Correction] = {}
    for portion in in_portions(sizes):
        layers = [by_name[name].layer for name in portion]
        stage = f"{RoundAdaptively.name}: inputs"
        moments = input_moments(subject.source, layers, fit, progress, seed=subject.seed, stage=stage)
        progress.start(f"{RoundAdaptively.name}: weights", len(portion), "layers")
        for name in portion:
            adapted = _adapted(by_name[name], nodes[name], moments.pop(name))
            found[name] = replace(subject.corrections.get(name, Correction()), weights=adapted)
            progress.advance()
        progress.finish()
    return found


def _moments_bytes(rows: FloatArray) -> int:
    groups, _, columns = rows.shape
    return int(4 * groups * columns**2)


def _adapted(entry: _Rounding, node: onnx.NodeProto, moments: FloatArray) -> StoredWeights:
    """The weights with their own scales, and codes that go with these moments, which get a ridge."""
    shape = [1] * entry.weights.ndim
    shape[entry.nearest.attributes["axis"]] = -1
    exact = weight_rows(node, entry.weights / entry.nearest.scales.reshape(shape))
    _add_ridge(moments)
    codes = rounded_codes(exact, moments)
    return replace(entry.nearest, numbers=weights_from_rows(node, codes, entry.weights.shape))


def _add_ridge(moments: FloatArray) -> None:
    """In place: the moments of a large layer fill much of the memory there is for them."""
    every = np.arange(moments.shape[1])
    diagonal = moments[:, every, every]
    moments[:, every, every] = diagonal + np.float32(RIDGE) * diagonal.mean(axis=1, keepdims=True)


def _judged(
    tried: Sequence[_Rounding], found: Mapping[str, Correction], subject: Subject, held_out: Half, progress: Progress
) -> tuple[list[Gain], list[Declined]]:
    """Which layers lost error on samples that nothing was fitted to."""
    layers = [entry.layer for entry in tried]
    old = [subject.corrections.get(layer.node, Correction()) for layer in layers]
    new = [found[layer.node] for layer in layers]
    probes = [
        probe_of(layer, subject.source, correction)
        for layer, correction in zip((*layers, *layers), (*old, *new), strict=True)
    ]
    stage = f"{RoundAdaptively.name}: judging"
    sums = channel_errors(subject.source, (*layers, *layers), probes, held_out, progress, stage=stage)
    gains: list[Gain] = []
    declined: list[Declined] = []
    for number, entry in enumerate(tried):
        before = with_bias(sums[number], old[number].bias)
        after = with_bias(sums[len(tried) + number], new[number].bias)
        if after.relative < before.relative:
            what = _what(entry, old[number].weights or entry.nearest, new[number].weights)
            gains.append(Gain(entry.layer.node, what, before.sqnr_db, after.sqnr_db))
        else:
            declined.append(Declined(entry.layer.node, "its error on held-out samples became no smaller"))
    return gains, declined


def _what(entry: _Rounding, old: StoredWeights, new: StoredWeights | None) -> str:
    changed = 0 if new is None else int(np.count_nonzero(old.numbers != new.numbers))
    return f"{changed} of {entry.weights.size} weights rounded the other way"


def rounded_codes(exact: FloatArray, moments: FloatArray, sweeps: int = SWEEPS) -> FloatArray:
    """Codes next to the exact ones, above or below, for which E·H·Eᵀ is small in each row, E being their differences.

    From the nearest codes on, a code changes sides where that alone lowers the row's sum, column by column (cyclic
    coordinate descent); so no sweep raises it. The objective is that of Nagel et al. 2020, "Up or Down? Adaptive
    Rounding for Post-Training Quantization", equation 5 on; the descent takes the place of their relaxation.

    Args:
        exact: float32 [groups, rows, columns], weights over their scales.
        moments: float32 [groups, columns, columns], H; symmetric, no negative eigenvalue.
        sweeps: How often every code is looked at.
    """
    low, high = INT8.rounded(np.floor(exact)), INT8.rounded(np.ceil(exact))
    codes = INT8.rounded(exact)
    least: FloatArray = np.diagonal(moments, axis1=1, axis2=2)
    columns = exact.shape[2]
    for _ in range(sweeps):
        gradient = np.asarray((codes - exact) @ moments, np.float32)
        flipped = 0
        for first in range(0, columns, BLOCK):
            block = slice(first, min(first + BLOCK, columns))
            steps = _descend(codes, low + high, gradient, moments, least, block)
            flipped += int(np.count_nonzero(steps))
            gradient += steps @ moments[:, block]
        if not flipped:
            break
    return codes


def _descend(
    codes: FloatArray, both: FloatArray, gradient: FloatArray, moments: FloatArray, least: FloatArray, block: slice
) -> FloatArray:
    """Changes the codes of a block of columns in place; float32 [groups, rows, block], the steps taken."""
    inside = moments[:, block, block]
    local = gradient[:, :, block].copy()
    steps: FloatArray = np.zeros_like(local)
    for place, column in enumerate(range(block.start, block.stop)):
        step = both[:, :, column] - 2 * codes[:, :, column]
        change = step * (2 * local[:, :, place] + step * least[:, None, column])
        step = np.where(change < -SLACK * least[:, None, column], step, np.float32(0))
        codes[:, :, column] += step
        steps[:, :, place] = step
        local += step[:, :, None] * inside[:, None, place]
    return steps
