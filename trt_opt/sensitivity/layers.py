"""The quantised layers of a graph, each with what quantisation makes of its operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from trt_opt.quantize.activation_scales import activation_scales
from trt_opt.quantize.corrections import Correction, bias_behind
from trt_opt.quantize.stage import FloatGraph
from trt_opt.quantize.stored_weights import stored_weights
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import ActivationQuantizer, WeightQuantizer

FOLLOWING_RULES = frozenset({"moves-data", "concat"})
"""Their quantisers have the scales of those behind them: what they do to the numbers is done there anyway."""

NO_CORRECTIONS: Mapping[str, Correction] = MappingProxyType({})

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedLayer:
    """A node with quantised operands.

    Attributes:
        node: Its name.
        op_type: Its operator.
        activations: Input position → the Q/DQ pair's quantiser, for operands computed at run time.
        scales: Input position → the pair's scale.
        weights: Input position → how constant weights are stored.
        correction: Other constants that it has in INT8; None where it keeps its own.
    """

    node: str
    op_type: str
    activations: Mapping[int, ActivationQuantizer]
    scales: Mapping[int, np.float32]
    weights: Mapping[int, WeightQuantizer]
    correction: Correction | None = None


def quantized_layers(
    source: FloatGraph, ranges: Mapping[str, TensorRange], corrections: Mapping[str, Correction] = NO_CORRECTIONS
) -> tuple[QuantizedLayer, ...]:
    """The layers whose quantisation has an error of its own, in graph order.

    Layers that only move quantised numbers are left out.

    Args:
        source: A float graph with a placement.
        ranges: The calibrated ranges.
        corrections: Layer → constants it has in INT8.

    Raises:
        StaleError: A range is missing.
    """
    placement = source.placement
    scales = activation_scales(placement, ranges, fp16=source.request.fp16)
    following = {layer.node for layer in placement.layers if layer.rule in FOLLOWING_RULES}
    activations: dict[str, dict[int, ActivationQuantizer]] = {}
    weights: dict[str, dict[int, WeightQuantizer]] = {}
    for quantizer in placement.activations:
        for reader in quantizer.readers:
            activations.setdefault(reader.node, {})[reader.index] = quantizer
    for weight in placement.weights:
        weights.setdefault(weight.reader.node, {})[weight.reader.index] = weight

    def layers() -> Iterator[QuantizedLayer]:
        for node in source.model.graph.node:
            own = activations.get(node.name, {})
            if (own or node.name in weights) and node.name not in following:
                found = {position: scales[entry.tensor, entry.range_of] for position, entry in own.items()}
                stored, correction = weights.get(node.name, {}), corrections.get(node.name)
                yield QuantizedLayer(node.name, node.op_type, own, found, stored, correction)

    return tuple(layers())


def dequantized_weights(layer: QuantizedLayer, source: FloatGraph) -> dict[int, FloatArray]:
    """Input position → the weights as the quantised layer has them: rounded, and turned back into float32."""
    corrected = layer.correction.dequantized_weights() if layer.correction is not None else None
    if corrected is not None:
        return {1: corrected}
    found: dict[int, FloatArray] = {}
    for position, quantizer in layer.weights.items():
        values = np.asarray(source.index.constant(quantizer.tensor), np.float32)
        stored = stored_weights(values, quantizer, fp16=source.request.fp16)
        found[position] = stored.numbers * _for_each(stored.scales, quantizer, values.ndim)
    return found


def added_bias(layer: QuantizedLayer, source: FloatGraph) -> FloatArray | None:
    """What the layer's correction adds to its output, in a shape that broadcasts over it; None without a bias."""
    if layer.correction is None or layer.correction.bias is None:
        return None
    return bias_behind(source.index.nodes[layer.node], layer.correction.bias, source.index)


def _for_each(scales: FloatArray, quantizer: WeightQuantizer, rank: int) -> FloatArray:
    """The scales in a shape that broadcasts over the weights, those of blocks repeated."""
    if quantizer.axis is None:
        return scales
    if quantizer.block_size is not None:
        return np.repeat(scales, quantizer.block_size, quantizer.axis)
    shape = [1] * rank
    shape[quantizer.axis] = -1
    return scales.reshape(shape)
