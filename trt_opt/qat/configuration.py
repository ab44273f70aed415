"""From a placement and its ranges to what a training needs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import graph_inputs
from trt_opt.qat.places import LAYER_KINDS, layers_of, places_of, weight_in_file
from trt_opt.quantize.stage import FloatGraph, quantized_graph
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.placement import ActivationQuantizer, Reader
from trt_opt.values.qat import QatConfiguration, QatInput, QatLayer, QatQuantizer


def configuration_of(
    graph: FloatGraph, table: CalibrationTable, original: onnx.ModelProto, *, model: str, model_sha256: str
) -> QatConfiguration:
    """The placement policy's quantisers with the scales that static quantisation would write.

    Args:
        graph: The float graph with its placement; the method is "static" and FP16 is off, so that scales are not
            rounded.
        table: The calibrated ranges.
        original: The model as given, its nodes named.
        model: The model's file, for the record.
        model_sha256: The hash of that file.

    Raises:
        StaleError: A range is missing.
    """
    scales = _Scales(GraphIndex(quantized_graph(graph, table.ranges).model))
    names = _scale_names(graph.placement.activations, scales)
    quantizers = _merged(graph.placement.activations, names)
    layers = _layers(graph, GraphIndex(original), scales)
    with_weights = {layer.node for layer in layers}
    readers = {reader.node for quantizer in quantizers for reader in quantizer.readers}
    return QatConfiguration(
        model=model,
        model_sha256=model_sha256,
        data=table.data,
        calibrator=table.calibrator,
        inputs=_inputs(original),
        outputs=tuple(value.name for value in original.graph.output),
        activation_scales={
            names[key.tensor, key.range_of]: scales.of(key.readers[0])[0] for key in graph.placement.activations
        },
        activations=quantizers,
        layers=layers,
        places=places_of(graph.index, readers - with_weights),
        float_layers=tuple(layer for layer in graph.placement.layers if layer.precision == "fp32"),
    )


class _Scales:
    """The scales that were written, looked up by who reads what they quantise."""

    def __init__(self, quantized: GraphIndex) -> None:
        self._quantized = quantized

    def of(self, reader: Reader) -> tuple[float, ...]:
        """One scale for an activation, one per channel for weights."""
        dequantize = self._quantized.producer(self._quantized.nodes[reader.node].input[reader.index])
        values = None if dequantize is None else self._quantized.constant(dequantize.input[1])
        return () if values is None else tuple(float(scale) for scale in np.atleast_1d(values))


def _scale_names(quantizers: tuple[ActivationQuantizer, ...], scales: _Scales) -> dict[tuple[str, str], str]:
    """(tensor, range) → its scale's name; two ranges are one where static quantisation writes one pair for both."""
    groups = {quantizer.range_of: quantizer.range_of for quantizer in quantizers}
    for one, other in itertools.combinations(quantizers, 2):
        if one.tensor == other.tensor and scales.of(one.readers[0]) == scales.of(other.readers[0]):
            kept, given_up = groups[one.range_of], groups[other.range_of]
            groups = {name: kept if group == given_up else group for name, group in groups.items()}
    return {(quantizer.tensor, quantizer.range_of): groups[quantizer.range_of] for quantizer in quantizers}


def _merged(
    quantizers: tuple[ActivationQuantizer, ...], names: Mapping[tuple[str, str], str]
) -> tuple[QatQuantizer, ...]:
    """One quantiser for each tensor and scale."""
    readers: dict[tuple[str, str], tuple[Reader, ...]] = {}
    for quantizer in quantizers:
        key = quantizer.tensor, names[quantizer.tensor, quantizer.range_of]
        readers[key] = (*readers.get(key, ()), *quantizer.readers)
    return tuple(QatQuantizer(*key, found) for key, found in readers.items())


def _layers(graph: FloatGraph, original: GraphIndex, scales: _Scales) -> tuple[QatLayer, ...]:
    axes = {weight.reader.node: weight.axis for weight in graph.placement.weights}
    layers = []
    for node in layers_of(graph.index):
        axis = axes.get(node.name)
        shape = graph.index.shape(node.input[1]) or ()
        layers.append(
            QatLayer(
                node=node.name,
                kind=LAYER_KINDS[node.op_type],
                weight=weight_in_file(node, original),
                shape=tuple(size for size in shape if size is not None),
                axis=axis,
                scales=() if axis is None else scales.of(Reader(node.name, 1)),
            )
        )
    return tuple(layers)


def _inputs(model: onnx.ModelProto) -> tuple[QatInput, ...]:
    return tuple(QatInput(spec.name, tuple(spec.shape or ())) for spec in graph_inputs(model))
