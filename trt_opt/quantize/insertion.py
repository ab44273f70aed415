"""Writes Q/DQ pairs into a graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibrators import amax_per_channel
from trt_opt.errors import StaleError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import fresh_name, tensor_names
from trt_opt.quantize.scales import int8_from_weights, scale_of, scales_of
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import ActivationQuantizer, Placement, WeightQuantizer

SHARE_WITHIN = 0.5
"""A tensor that needs two scales takes the larger for both if the smaller is at least half of it: one bit at most."""


def with_qdq(
    index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], *, fp16: bool
) -> onnx.ModelProto:
    """A copy of the model with the placement's Q/DQ pairs in float32, weights stored as INT8.

    Args:
        index: The model the placement was made for.
        placement: Where the pairs go.
        ranges: The calibrated ranges.
        fp16: Whether scales must be exact in FP16, because a cast follows.

    Raises:
        StaleError: A range that the placement needs is missing.
    """
    return _Writer(index, ranges, fp16).write(placement)


class _Writer:
    def __init__(self, index: GraphIndex, ranges: Mapping[str, TensorRange], fp16: bool) -> None:
        self._index = index
        self._ranges = ranges
        self._fp16 = fp16
        self._model = onnx.ModelProto()
        self._model.CopyFrom(index.model)
        self._taken = tensor_names(self._model.graph)
        self._nodes = {node.name: node for node in self._model.graph.node}
        self._node_names = set(self._nodes)
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._zero_points: dict[int, str] = {}
        self._weights_done: dict[tuple[str, int], str] = {}

    def write(self, placement: Placement) -> onnx.ModelProto:
        scales = self._activation_scales(placement)
        pairs: dict[tuple[str, float], str] = {}
        for quantizer in placement.activations:
            scale = scales[quantizer.tensor, quantizer.range_of]
            key = (quantizer.tensor, float(scale))
            if key not in pairs:
                pairs[key] = self._add_pair(quantizer, scale)
            for reader in quantizer.readers:
                self._nodes[reader.node].input[reader.index] = pairs[key]
        for weight in placement.weights:
            self._nodes[weight.reader.node].input[weight.reader.index] = self._add_weights(weight)
        self._order_nodes()
        self._drop_unread_initializers()
        return self._model

    def _activation_scales(self, placement: Placement) -> dict[tuple[str, str], np.float32]:
        """The scale of every quantiser; where one tensor needs two close ones, its own gives way to the larger.

        Walked from the outputs to the inputs, so that what shares the scale of a later tensor follows it.
        """
        of_range = {name: self._scale(name) for name in placement.ranges_needed}
        rivals: dict[str, list[str]] = {}
        for quantizer in placement.activations:
            rivals.setdefault(quantizer.tensor, []).append(quantizer.range_of)
        for tensor, names in reversed(rivals.items()):
            largest = max(of_range[name] for name in names)
            if tensor in names and of_range[tensor] >= SHARE_WITHIN * largest:
                of_range[tensor] = largest
        return {
            (quantizer.tensor, quantizer.range_of): of_range[quantizer.range_of] for quantizer in placement.activations
        }

    def _scale(self, tensor: str) -> np.float32:
        found = self._ranges.get(tensor)
        if found is None or found.amax is None:
            raise StaleError(
                "the calibration table has no range for this tensor",
                where=tensor,
                hint="calibrate again: the table was made for other layers",
            )
        return scale_of(found.amax, fp16=self._fp16)

    def _add_pair(self, quantizer: ActivationQuantizer, scale: np.float32) -> str:
        tensor = quantizer.tensor
        scale_name = self._add_initializer(f"{tensor}_scale", np.array(scale, np.float32))
        zero = self._zero_point(0)
        quantized = fresh_name(f"{tensor}_quantized", self._taken)
        back = fresh_name(f"{tensor}_dequantized", self._taken)
        pair = [
            self._node("QuantizeLinear", [tensor, scale_name, zero], quantized),
            self._node("DequantizeLinear", [quantized, scale_name, zero], back),
        ]
        self._before.setdefault(self._first_reader(quantizer.tensor), []).extend(pair)
        return back

    def _add_weights(self, weight: WeightQuantizer) -> str:
        key = (weight.tensor, weight.axis)
        if key in self._weights_done:
            return self._weights_done[key]
        values = np.asarray(self._index.constant(weight.tensor), np.float32)
        scales = scales_of(amax_per_channel(values, weight.axis), fp16=self._fp16)
        stored = self._add_initializer(f"{weight.tensor}_int8", int8_from_weights(values, scales, weight.axis))
        scale_name = self._add_initializer(f"{weight.tensor}_scale", scales)
        back = fresh_name(f"{weight.tensor}_dequantized", self._taken)
        inputs = [stored, scale_name, self._zero_point(len(scales))]
        node = self._node("DequantizeLinear", inputs, back, axis=weight.axis)
        self._before.setdefault(self._first_reader(weight.tensor), []).append(node)
        self._weights_done[key] = back
        return back

    def _first_reader(self, tensor: str) -> str:
        return self._index.readers(tensor)[0][0].name

    def _node(self, op_type: str, inputs: list[str], output: str, axis: int | None = None) -> onnx.NodeProto:
        name = fresh_name(output, self._node_names)
        node = helper.make_node(op_type, inputs, [output], name=name)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        return node

    def _add_initializer(self, base: str, array: NDArray[np.generic]) -> str:
        name = fresh_name(base, self._taken)
        self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _zero_point(self, channels: int) -> str:
        """The name of a zero-point of this many channels, 0 for a scalar; one initialiser serves all."""
        if channels not in self._zero_points:
            zeros = np.zeros(channels, np.int8) if channels else np.array(0, np.int8)
            self._zero_points[channels] = self._add_initializer("zero_point", zeros)
        return self._zero_points[channels]

    def _order_nodes(self) -> None:
        ordered = [item for node in self._model.graph.node for item in (*self._before.get(node.name, ()), node)]
        del self._model.graph.node[:]
        self._model.graph.node.extend(ordered)

    def _drop_unread_initializers(self) -> None:
        graph = self._model.graph
        read = {name for node in graph.node for name in node.input} | self._index.captured
        read |= {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
