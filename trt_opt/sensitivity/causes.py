"""What each operand contributes to a layer's error, and from that the reason in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import onnx

from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.stage import FloatGraph
from trt_opt.sensitivity.data_pass import Seen, seen_in
from trt_opt.sensitivity.end_to_end import own_errors
from trt_opt.sensitivity.layers import QuantizedLayer, dequantized_weights
from trt_opt.sensitivity.origins import origin_of
from trt_opt.sensitivity.probes import ErrorSums, Probe, probe_errors
from trt_opt.sensitivity.reasons import LayerFacts, reason_for
from trt_opt.sensitivity.statistics import sums_key, weight_statistics
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Sample, Samples

CAUSE_SAMPLES = 8
"""Which operand is to blame shows on a few samples."""

NO_VARIANCES: Mapping[str, float] = MappingProxyType({})


def reasons_of(
    source: FloatGraph,
    layers: Sequence[QuantizedLayer],
    samples: Samples,
    progress: Progress,
    *,
    variances: Mapping[str, float] = NO_VARIANCES,
) -> dict[str, str]:
    """Layer → why INT8 costs what it costs there, in one sentence, from a few of the samples.

    Args:
        source: The float graph.
        layers: Quantised layers of it.
        samples: At most `CAUSE_SAMPLES` of them are run, three times each.
        progress: Told of every sample.
        variances: Output tensor → the variance of a BatchNormalization folded into the layer that writes it:
            `origins.normalised_variances` of the model as it was given.
    """
    few = tuple(EvenlySpread(samples, CAUSE_SAMPLES))
    seen = seen_in(source, layers, few, progress)
    own = own_errors(source, layers, few, progress)
    operands = operand_errors(source, layers, few, progress)
    return {
        layer.node: reason_for(
            facts_of(layer, source, seen, own[layer.node], operands[layer.node], variances=variances)
        )[1]
        for layer in layers
    }


def operand_errors(
    source: FloatGraph, layers: Sequence[QuantizedLayer], samples: Iterable[Sample], progress: Progress
) -> dict[str, dict[int, float]]:
    """Layer → operand → relative error energy at the layer's output with that operand alone quantised."""
    places: list[tuple[str, int]] = []
    probes: list[Probe] = []
    for layer in layers:
        for operand, scale in layer.scales.items():
            places.append((layer.node, operand))
            probes.append(Probe(layer.node, {operand: scale}))
        for operand, weights in dequantized_weights(layer, source).items():
            places.append((layer.node, operand))
            probes.append(Probe(layer.node, constants={operand: weights}))
    found: dict[str, dict[int, float]] = {layer.node: {} for layer in layers}
    for (node, operand), sums in zip(
        places, probe_errors(source.index, probes, samples, progress, stage="operands"), strict=True
    ):
        found[node][operand] = sums.relative
    return found


def facts_of(
    layer: QuantizedLayer,
    source: FloatGraph,
    seen: Seen,
    own: ErrorSums,
    operands: Mapping[int, float],
    *,
    variances: Mapping[str, float],
) -> LayerFacts:
    """Everything a reason is drawn from."""
    index, node = source.index, source.index.nodes[layer.node]
    origins = {entry.tensor: origin_of(entry.tensor, index) for entry in layer.activations.values()}
    activations = tuple(
        seen.activations[sums_key(layer, operand, index)].statistics(operand, entry.tensor, origins[entry.tensor].kind)
        for operand, entry in sorted(layer.activations.items())
    )
    return LayerFacts(
        own=own.relative,
        operands=operands,
        activations=activations,
        weights=weight_statistics(layer, index),
        weight_operands=frozenset(layer.weights),
        origins=origins,
        depthwise=_is_depthwise(node, index),
        variance=variances.get(node.output[0]),
    )


def _is_depthwise(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether every input channel of a convolution goes to output channels of its own."""
    weights = index.shape(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
    return weights is not None and weights[1] == 1 and attribute_of(node, "group", 1) != 1
