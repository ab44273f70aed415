"""Few channels of a layer's input that are much larger than the others get a small float layer of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.writer import GraphWriter
from trt_opt.improvements.channel_extremes import Floats, channel_extremes
from trt_opt.improvements.improvement import Improved, Subject
from trt_opt.improvements.samples_apart import samples_apart
from trt_opt.quantize.scales import scale_of
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.layers import QuantizedLayer, dequantized_weights, quantized_layers
from trt_opt.sensitivity.probes import ErrorSums, Probe, probe_errors
from trt_opt.values.improvement import Declined, Gain
from trt_opt.values.progress import Progress

LARGEST_SHARE = 0.03
MOST_CHANNELS = 8
"""What is computed in float must stay a small part of the layer."""

FEWEST_CHANNELS = 16
"""Of fewer, one is no small part."""

LEAST_RATIO = 4.0
"""Two of INT8's eight bits."""

LEAST_GAIN_DB = 3.0
"""Half of the error: a layer more has its price."""

SPARED = "it holds the outlier channels that were taken out of {layer!r}, in float"


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A layer whose input has outliers.

    Attributes:
        layer: The layer.
        axis: The channels' axis in the input.
        weight_axis: The input channels' axis in the weights.
        channels: The outliers.
        ranges: max |x| of every channel.
    """

    layer: QuantizedLayer
    axis: int
    weight_axis: int
    channels: NDArray[np.int64]
    ranges: Floats

    @property
    def rest(self) -> float:
        """The range of the other channels."""
        return float(np.delete(self.ranges, self.channels).max())

    @property
    def what(self) -> str:
        """In words, for a report."""
        times = self.ranges.max() / self.rest
        number = self.channels.size
        return f"{number} of {self.ranges.size} channels, up to {times:.0f} times as large as the others, in float"


class IsolateOutlierChannels:
    """Splits y = layer(x) into layer(x without its outlier channels) in INT8 and a small float layer of these alone.

    What it does: Where no layer before can take up a factor per channel (the graph's input, a Sigmoid, a product), a
    few large channels spoil the one scale that INT8 has for all. The layer reads its input times a vector of ones, and
    of zeros for the outliers; these go, by a Gather, through a layer with their columns of the weights alone, and the
    two results are added. In exact arithmetic nothing changes, whatever the input.

    When it declines: More than 3 % of the channels (or 8) would have to go; the layer has groups or fewer than 16
    channels; or its error does not become half.

    Source: the mixed-precision decomposition of Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for
    Transformers at Scale", 2022, with channels chosen once instead of at every run.
    """

    name = "isolate_outlier_channels"
    summary = "computes a layer's few outlier channels in a small float layer beside it"

    def improved(self, subject: Subject, progress: Progress) -> Improved:
        """Tries every dense layer whose input has outlier channels.

        Args:
            subject: The model and its data.
            progress: Told of every sample.

        Returns:
            The changed model, and in `spared` the nodes that have to stay in float.

        Raises:
            DataError: A sample cannot be run.
        """
        source = subject.source
        layers = quantized_layers(source, subject.ranges) if source.placement.activation_format == "int8" else ()
        axes = {layer.node: found for layer in layers if (found := _axes(layer, source.index)) is not None}
        if not axes:
            return Improved(corrections=subject.corrections)
        seen, judged = samples_apart(subject.data)
        tensors = {layer.activations[0].tensor: axes[layer.node][0] for layer in layers if layer.node in axes}
        extremes = channel_extremes(
            source.index,
            {name: (axis,) for name, axis in tensors.items()},
            seen,
            progress,
            stage="find outlier channels",
        )
        candidates = [
            candidate
            for layer in layers
            if layer.node in axes
            and (candidate := _candidate(layer, axes[layer.node], extremes[layer.activations[0].tensor])) is not None
        ]
        trials = _Trials(source, candidates)
        sums = probe_errors(trials.index, trials.probes, judged, progress, stage="try layers without outlier channels")
        return _decided(subject, candidates, sums)


def _axes(layer: QuantizedLayer, index: GraphIndex) -> tuple[int, int] | None:
    """The channels' axis in the input and in the weights; None where the layer is not split."""
    node = index.nodes[layer.node]
    if 0 not in layer.activations or 1 not in layer.weights or _is_masked(node.input[0], index):
        return None
    shape = index.shape(node.input[0])
    if not shape:
        return None
    if node.op_type == "Conv":
        return (1, 1) if attribute_of(node, "group", 1) == 1 else None
    if node.op_type not in ("Gemm", "MatMul") or attribute_of(node, "transA", 0):
        return None
    return len(shape) - 1, 1 if attribute_of(node, "transB", 0) else 0


def _is_masked(tensor: str, index: GraphIndex) -> bool:
    """Whether the tensor's outliers were taken out already."""
    maker = index.producer(tensor)
    constant = index.constant(maker.input[1]) if maker is not None and maker.op_type == "Mul" else None
    return constant is not None and bool(np.isin(constant, (0, 1)).all())


def _candidate(layer: QuantizedLayer, axes: tuple[int, int], extremes: Floats) -> _Candidate | None:
    """The layer with its outliers; None where it has none, or too many."""
    ranges = extremes.reshape(-1)
    most = min(MOST_CHANNELS, max(1, int(LARGEST_SHARE * ranges.size)))
    if ranges.size < FEWEST_CHANNELS:
        return None
    order = np.argsort(-ranges, kind="stable")
    falling = ranges[order]
    numbers = [number for number in range(1, most + 1) if 0 < falling[number] * LEAST_RATIO <= falling[0]]
    if not numbers:
        return None
    # Of several, the one behind which the ranges fall most steeply.
    number = max(numbers, key=lambda number: falling[number - 1] / falling[number])
    return _Candidate(layer, *axes, np.sort(order[:number]), ranges)


class _Trials:
    """The float model with twins of the candidates that lack their outliers; two probes for each candidate."""

    def __init__(self, source: FloatGraph, candidates: list[_Candidate]) -> None:
        writer = GraphWriter(source.model)
        twins = [self._twin(writer, source.index, candidate) for candidate in candidates]
        self.index = GraphIndex(writer.finished())
        self.probes: list[Probe] = []
        there = replace(source, index=self.index)
        for candidate, (node, weights) in zip(candidates, twins, strict=True):
            layer, fp16 = candidate.layer, source.request.fp16
            scale = scale_of(float(candidate.ranges.max()), fp16=fp16)
            self.probes.append(Probe(layer.node, {0: scale}, dequantized_weights(layer, source)))
            emptied = replace(layer, weights={1: replace(layer.weights[1], tensor=weights)})
            scale = scale_of(candidate.rest, fp16=fp16)
            self.probes.append(Probe(node, {0: scale}, dequantized_weights(emptied, there)))

    def _twin(self, writer: GraphWriter, index: GraphIndex, candidate: _Candidate) -> tuple[str, str]:
        node = writer.nodes[candidate.layer.node]
        masked, weights = _masked(writer, index, candidate)
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        output = writer.tensor(f"{node.output[0]}_twin")
        twin.name = writer.made("Identity", [masked], output).name
        twin.output[0], twin.input[0], twin.input[1] = output, masked, weights
        writer.behind(node.name, twin)
        return twin.name, weights


def _decided(subject: Subject, candidates: list[_Candidate], sums: tuple[ErrorSums, ...]) -> Improved:
    gains: list[Gain] = []
    declined: list[Declined] = []
    kept: list[_Candidate] = []
    for candidate, before, after in zip(candidates, sums[::2], sums[1::2], strict=True):
        after.signal = before.signal
        smaller = after.relative * 10 ** (LEAST_GAIN_DB / 10) <= before.relative
        if smaller and before.relative > 0:
            kept.append(candidate)
            gains.append(Gain(candidate.layer.node, candidate.what, before.sqnr_db, after.sqnr_db))
        else:
            why = f"without {candidate.channels.size} outlier channels its error would not become half"
            declined.append(Declined(candidate.layer.node, why))
    if not kept:
        return Improved(corrections=subject.corrections, declined=tuple(declined))
    model, spared = _split(subject.source.index, kept)
    return Improved(model=model, spared=spared, gains=tuple(gains), declined=tuple(declined))


def _split(index: GraphIndex, candidates: list[_Candidate]) -> tuple[onnx.ModelProto, Mapping[str, str]]:
    """The model with all candidates in two parts, and the nodes that stay in float."""
    writer = GraphWriter(index.model)
    spared: dict[str, str] = {}
    for candidate in candidates:
        reason = SPARED.format(layer=candidate.layer.node)
        spared |= dict.fromkeys(_in_two_parts(writer, index, candidate), reason)
    return writer.finished(), spared


def _in_two_parts(writer: GraphWriter, index: GraphIndex, candidate: _Candidate) -> Iterator[str]:
    """Writes one candidate; the names of the small layer and of the sum."""
    node = writer.nodes[candidate.layer.node]
    source, output, old = node.input[0], node.output[0], index.constant(node.input[1])
    masked, weights = _masked(writer, index, candidate)
    picked = writer.tensor(f"{source}_outliers")
    places = writer.constant(f"{source}_outlier_channels", candidate.channels)
    columns = np.take(np.asarray(old), candidate.channels, candidate.weight_axis)
    small = onnx.NodeProto()
    small.CopyFrom(node)
    share, rest = writer.tensor(f"{output}_of_outliers"), writer.tensor(f"{output}_of_others")
    small.name = writer.made("Identity", [picked], share).name
    small.input[:] = [picked, writer.constant(f"{node.input[1]}_of_outliers", columns)]
    small.output[:] = [share]
    node.input[0], node.input[1], node.output[0] = masked, weights, rest
    total = writer.made("Add", [rest, share], output)
    writer.behind(node.name, writer.made("Gather", [source, places], picked, axis=candidate.axis), small, total)
    return iter((small.name, total.name))


def _masked(writer: GraphWriter, index: GraphIndex, candidate: _Candidate) -> tuple[str, str]:
    """Adds the input without its outliers, and the weights with zeros in their place; their names."""
    node = writer.nodes[candidate.layer.node]
    rank = len(index.shape(node.input[0]) or ())
    mask = np.ones(candidate.ranges.size, np.float32)
    mask[candidate.channels] = 0
    masked = writer.tensor(f"{node.input[0]}_of_others")
    vector = writer.constant(f"{node.input[0]}_others", mask.reshape(-1, *[1] * (rank - 1 - candidate.axis)))
    writer.before(node.name, writer.made("Mul", [node.input[0], vector], masked))
    values = np.array(index.constant(node.input[1]), np.float32)
    places: list[slice | NDArray[np.int64]] = [slice(None)] * values.ndim
    places[candidate.weight_axis] = candidate.channels
    values[tuple(places)] = 0
    return masked, writer.constant(f"{node.input[1]}_of_others", values)
