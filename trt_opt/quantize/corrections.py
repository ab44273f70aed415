"""Weights and biases changed for the sake of the quantised layer that holds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import SupportsFloat, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.graph.writer import GraphWriter
from trt_opt.quantize.number_format import INT8
from trt_opt.quantize.stored_weights import StoredWeights

BIAS_OPERANDS: Mapping[str, int] = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""Which input of an operator is its bias."""

UNCORRECTED = "_uncorrected"
"""Ends the name of what a layer gives before its correction is added."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What takes the place of a layer's constants where the layer is quantised; a layer in float keeps its own.

    Attributes:
        weights: INT8 codes of the weights' shape with one scale per channel, written as they are. The scales are told
            and not computed again from the weights: rounded up to FP16, or with another code at the largest weight,
            they would not come out the same. None keeps the layer's own.
        bias: float32, one per output channel, added to what the layer computes.
    """

    weights: StoredWeights | None = None
    bias: FloatArray | None = None

    def dequantized_weights(self) -> FloatArray | None:
        """float32, of the weights' shape: codes times scales; None where the layer keeps its own."""
        if self.weights is None:
            return None
        shape = [1] * self.weights.numbers.ndim
        if "axis" in self.weights.attributes:
            shape[self.weights.attributes["axis"]] = -1
        return np.asarray(self.weights.numbers * self.weights.scales.reshape(shape), np.float32)


def with_corrections(index: GraphIndex, corrections: Mapping[str, Correction], nodes: Collection[str]) -> GraphIndex:
    """The graph with the corrections of those layers that are quantised; the graph itself where there are none.

    Constants that other layers read too are not touched: the corrected layer gets its own.

    Args:
        index: The float graph.
        corrections: Layer → what changes in it.
        nodes: The layers that are quantised.
    """
    wanted = {name: found for name, found in corrections.items() if name in nodes}
    if not wanted:
        return index
    writer = GraphWriter(index.model)
    for name, found in wanted.items():
        node = writer.nodes[name]
        if found.weights is not None:
            _store_weights(node, found.weights, writer)
        if found.bias is not None:
            _add_bias(node, found.bias, index, writer)
    return GraphIndex(_with_types_of(writer.finished(), index))


def bias_behind(node: onnx.NodeProto, bias: FloatArray, index: GraphIndex) -> FloatArray:
    """A bias of a layer, one number per output channel, in a shape that broadcasts over what the layer gives."""
    weights = index.shape(node.input[1]) or ()
    spatial = len(weights) - 2 if node.op_type in ("Conv", "ConvTranspose") else 0
    return bias.reshape(-1, *[1] * spatial)


def _store_weights(node: onnx.NodeProto, stored: StoredWeights, writer: GraphWriter) -> None:
    """Gives the layer weights in INT8 behind a DequantizeLinear."""
    tensor = node.input[1]
    codes = writer.tensor(f"{tensor}_{INT8.name}")
    writer.model.graph.initializer.append(INT8.tensor(stored.numbers, codes))
    scales = writer.constant(f"{tensor}_scale", stored.scales)
    zeros = writer.constant("zero_point", np.zeros(stored.scales.shape, np.int8))
    node.input[1] = writer.tensor(f"{tensor}_dequantized")
    inputs = [codes, scales, zeros]
    writer.before(node.name, writer.made("DequantizeLinear", inputs, node.input[1], **stored.attributes))


def _add_bias(node: onnx.NodeProto, bias: FloatArray, index: GraphIndex, writer: GraphWriter) -> None:
    """Adds to a constant that is added already, else gives the layer a bias, else adds behind it."""
    position = BIAS_OPERANDS.get(node.op_type)
    beta = float(cast(SupportsFloat, attribute_of(node, "beta", 1.0)))
    given = position is not None and len(node.input) > position and bool(node.input[position])
    own = index.constant(node.input[position]) if position is not None and given else None
    if position is None or (given and own is None) or beta == 0.0:
        if not _added_to_sum(node, bias, index, writer):
            _add_behind(node, bias, index, writer)
        return
    total = bias / np.float32(beta) if own is None else np.asarray(own, np.float32) + bias / np.float32(beta)
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = writer.constant(f"{node.name}_bias", np.asarray(total, np.float32))


def _added_to_sum(node: onnx.NodeProto, bias: FloatArray, index: GraphIndex, writer: GraphWriter) -> bool:
    """Whether a sum with a constant, the only reader of a product, took the bias: how exporters write a MatMul's."""
    output = node.output[0]
    readers = index.readers(output)
    if node.op_type not in ("MatMul", "Gemm") or len(readers) != 1 or index.is_read_elsewhere(output):
        return False
    reader, position = readers[0]
    own = index.constant(reader.input[1 - position]) if reader.op_type == "Add" and reader.domain == "" else None
    if own is None:
        return False
    total = np.asarray(own, np.float32) + bias
    writer.nodes[reader.name].input[1 - position] = writer.constant(f"{reader.name}_bias", total)
    return True


def _add_behind(node: onnx.NodeProto, bias: FloatArray, index: GraphIndex, writer: GraphWriter) -> None:
    output = node.output[0]
    node.output[0] = writer.tensor(f"{output}{UNCORRECTED}")
    name = writer.constant(f"{node.name}_bias", bias_behind(index.nodes[node.name], bias, index))
    writer.behind(node.name, writer.made("Add", [node.output[0], name], output))


def _with_types_of(model: onnx.ModelProto, index: GraphIndex) -> onnx.ModelProto:
    """The edited copy has every type but those of tensors that are new or renamed; these are their origins' own."""
    typed = {value.name for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    origins = {name: name.removesuffix(UNCORRECTED) for node in model.graph.node for name in node.output}
    for name, origin in origins.items():
        kind = index.element_type(origin) if name not in typed and origin != name else None
        if kind is not None:
            model.graph.value_info.append(helper.make_tensor_value_info(name, kind, index.shape(origin)))
    return model
