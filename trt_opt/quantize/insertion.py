"""Writes Q/DQ pairs into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import fresh_name, tensor_names
from trt_opt.graph.writer import drop_unread
from trt_opt.quantize.activation_scales import activation_scales
from trt_opt.quantize.number_format import FORMATS, NumberFormat
from trt_opt.quantize.stored_weights import stored_weights
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import ActivationQuantizer, Placement, Reader, WeightQuantizer

ANY_READER = Reader("", 0)
"""Weights read twice in the same form are stored once."""


def with_qdq(
    index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], *, fp16: bool
) -> onnx.ModelProto:
    """A copy of the model with the placement's Q/DQ pairs in float32, weights stored in their formats.

    Args:
        index: The model the placement was made for.
        placement: Where the pairs go.
        ranges: The calibrated ranges.
        fp16: Whether scales must be exact in FP16, because a cast follows.

    Raises:
        StaleError: A range that the placement needs is missing.
    """
    return _Writer(index, ranges, FORMATS[placement.activation_format], fp16=fp16).write(placement)


class _Writer:
    def __init__(
        self, index: GraphIndex, ranges: Mapping[str, TensorRange], activations: NumberFormat, *, fp16: bool
    ) -> None:
        self._index = index
        self._ranges = ranges
        self._activations = activations
        self._fp16 = fp16
        self._model = onnx.ModelProto()
        self._model.CopyFrom(index.model)
        self._taken = tensor_names(self._model.graph)
        self._nodes = {node.name: node for node in self._model.graph.node}
        self._node_names = set(self._nodes)
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._zero_points: dict[tuple[str, tuple[int, ...]], str] = {}
        self._weights_done: dict[WeightQuantizer, str] = {}

    def write(self, placement: Placement) -> onnx.ModelProto:
        scales = activation_scales(placement, self._ranges, fp16=self._fp16)
        pairs: dict[tuple[str, float], str] = {}
        for quantizer in placement.activations:
            scale = scales[quantizer.tensor, quantizer.range_of]
            key = (quantizer.tensor, float(scale))
            if key not in pairs:
                pairs[key] = self._add_pair(quantizer, scale)
            for reader in quantizer.readers:
                self._nodes[reader.node].input[reader.index] = pairs[key]
        for weight in placement.weights:
            if not self._is_stored(weight.reader):
                self._nodes[weight.reader.node].input[weight.reader.index] = self._add_weights(weight)
        self._order_nodes()
        self._drop_unread_constants()
        return self._model

    def _add_pair(self, quantizer: ActivationQuantizer, scale: np.float32) -> str:
        tensor = quantizer.tensor
        scale_name = self._add_initializer(f"{tensor}_scale", np.array(scale, np.float32))
        zero = self._zero_point(self._activations, ())
        quantized = fresh_name(f"{tensor}_quantized", self._taken)
        back = fresh_name(f"{tensor}_dequantized", self._taken)
        pair = [
            self._node("QuantizeLinear", [tensor, scale_name, zero], quantized),
            self._node("DequantizeLinear", [quantized, scale_name, zero], back),
        ]
        self._before.setdefault(self._first_reader(quantizer.tensor), []).extend(pair)
        return back

    def _add_weights(self, weight: WeightQuantizer) -> str:
        key = replace(weight, reader=ANY_READER)
        if key in self._weights_done:
            return self._weights_done[key]
        number_format = FORMATS[weight.number_format]
        values = np.asarray(self._index.constant(weight.tensor), np.float32)
        found = stored_weights(values, weight, fp16=self._fp16)
        stored = fresh_name(f"{weight.tensor}_{number_format.name}", self._taken)
        self._model.graph.initializer.append(number_format.tensor(found.numbers, stored))
        scale_name = self._add_initializer(f"{weight.tensor}_scale", found.scales)
        back = fresh_name(f"{weight.tensor}_dequantized", self._taken)
        inputs = [stored, scale_name, self._zero_point(number_format, found.scales.shape)]
        node = self._node("DequantizeLinear", inputs, back, **found.attributes)
        self._before.setdefault(self._first_reader(weight.tensor), []).append(node)
        self._weights_done[key] = back
        return back

    def _is_stored(self, reader: Reader) -> bool:
        """Whether a correction stored the weights already: they keep their codes and scales."""
        maker = self._index.producer(self._nodes[reader.node].input[reader.index])
        return maker is not None and maker.op_type == "DequantizeLinear"

    def _first_reader(self, tensor: str) -> str:
        return self._index.readers(tensor)[0][0].name

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: int) -> onnx.NodeProto:
        node = helper.make_node(op_type, inputs, [output], name=fresh_name(output, self._node_names))
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        return node

    def _add_initializer(self, base: str, array: NDArray[np.generic]) -> str:
        name = fresh_name(base, self._taken)
        self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _zero_point(self, number_format: NumberFormat, shape: tuple[int, ...]) -> str:
        """The name of a zero-point of this format and shape; one initialiser serves all."""
        key = (number_format.name, shape)
        if key not in self._zero_points:
            name = fresh_name("zero_point", self._taken)
            self._model.graph.initializer.append(number_format.tensor(np.zeros(shape, np.float32), name))
            self._zero_points[key] = name
        return self._zero_points[key]

    def _order_nodes(self) -> None:
        ordered = [item for node in self._model.graph.node for item in (*self._before.get(node.name, ()), node)]
        del self._model.graph.node[:]
        self._model.graph.node.extend(ordered)

    def _drop_unread_constants(self) -> None:
        graph = self._model.graph
        read = {name for node in graph.node for name in node.input} | self._index.captured
        read |= {value.name for value in graph.output}
        for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in read]:
            graph.node.remove(node)
        drop_unread(self._model)
