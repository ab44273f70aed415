"""Float graph inputs and outputs become integers: bytes go in, bytes come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from trt_opt.datasets.preprocess import Preprocess
from trt_opt.errors import StaleError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import dtype_name, spec_of
from trt_opt.graph.tensors import graphs_of
from trt_opt.graph.writer import GraphWriter
from trt_opt.quantize.end_reading import end_of
from trt_opt.quantize.integer_image import FLOATS, image_input, image_instruction, take_image
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.quantize.scales import scale_of
from trt_opt.values.calibration import TensorRange
from trt_opt.values.integer_ends import IntegerEnd, IntegerEnds
from trt_opt.values.placement import Placement

Ranges = Mapping[str, TensorRange]


def with_ranges_of_ends(placement: Placement, index: GraphIndex, image: Preprocess | None) -> Placement:
    """The placement with the tensors whose ranges integer ends need.

    Args:
        placement: The float model's.
        index: The float model.
        image: The preprocessing, if an image goes in.

    Raises:
        RequestError: An image is asked for, and there is no input for it.
    """
    picture = image_input(index, image) if image is not None else None
    wanted = [name for name in float_inputs(index) if name != picture and _read_directly(name, index, placement)]
    return replace(placement, calibrated=(*placement.calibrated, *wanted, *float_outputs(index)))


def float_inputs(index: GraphIndex) -> tuple[str, ...]:
    """The graph inputs that become integers: float ones that a node reads; what only goes out again stays float."""
    return tuple(
        value.name
        for value in index.model.graph.input
        if value.name in index.inputs
        and _is_float(value)
        and (index.readers(value.name) or value.name in index.captured)
    )


def float_outputs(index: GraphIndex) -> tuple[str, ...]:
    """The graph outputs that become integers: float ones that a node writes."""
    return tuple(
        value.name for value in index.model.graph.output if _is_float(value) and index.producer(value.name) is not None
    )


def with_integer_ends(
    model: onnx.ModelProto, index: GraphIndex, placement: Placement, ranges: Ranges, request: PrecisionRequest
) -> onnx.ModelProto:
    """A copy of the quantised model whose float inputs and outputs are INT8, or a UINT8 image.

    Args:
        model: The float model with the placement's pairs in it, everything else still in float32.
        index: The float model.
        placement: As `with_ranges_of_ends` gave it.
        ranges: The calibrated ranges.
        request: Whether an image goes in, and whether scales must be exact in FP16.

    Raises:
        StaleError: The range of an input or output is missing.
        RequestError: An image is asked for, and there is no input for it.
    """
    return _Ends(model, index, placement, ranges, request).written()


class _Ends:
    """The quantised graph under construction; every end's float tensor goes by another name inside."""

    def __init__(
        self, model: onnx.ModelProto, index: GraphIndex, placement: Placement, ranges: Ranges, request: PrecisionRequest
    ) -> None:
        self._index = index
        self._placement = placement
        self._ranges = ranges
        self._request = request
        self._writer = GraphWriter(model)
        self._graph = self._writer.model.graph
        self._zero = self._writer.constant("zero_point_of_ends", np.array(0, np.int8))

    def written(self) -> onnx.ModelProto:
        inputs, outputs = float_inputs(self._index), float_outputs(self._index)
        inside = {name: self._writer.tensor(f"{name}_float") for name in dict.fromkeys((*inputs, *outputs))}
        self._rename(inside)
        self._pairs = GraphIndex(self._writer.model)
        image = self._request.image
        picture = image_input(self._index, image) if image is not None else None
        for value in self._graph.input:
            if value.name in inputs and value.name == picture and image is not None:
                take_image(self._writer, value, inside[value.name], image)
            elif value.name in inputs:
                self._take_int8(value, inside[value.name])
        for value in self._graph.output:
            if value.name in outputs:
                self._give_int8(value, inside[value.name])
        return self._writer.finished()

    def _rename(self, inside: Mapping[str, str]) -> None:
        """Nodes read and write the float tensors under their new names, in subgraphs too."""
        for graph in graphs_of(self._graph):
            for node in graph.node:
                node.input[:] = [inside.get(name, name) for name in node.input]
                node.output[:] = [inside.get(name, name) for name in node.output]
            for value in graph.output if graph is not self._graph else ():
                value.name = inside.get(value.name, value.name)
        for value in self._graph.value_info:
            value.name = inside.get(value.name, value.name)

    def _take_int8(self, value: onnx.ValueInfoProto, target: str) -> None:
        name, kind = value.name, value.type.tensor_type.elem_type
        value.type.tensor_type.elem_type = TensorProto.INT8
        if name in self._index.outputs:
            self._pass_through(name)
        scale = self._input_scale(name, target)
        written = target if kind == TensorProto.FLOAT else self._writer.tensor(f"{name}_dequantized")
        step = self._writer.constant(f"{name}_scale", np.array(scale, np.float32))
        self._writer.first(self._writer.made("DequantizeLinear", (name, step, self._zero), written))
        if written != target:
            self._writer.first(self._writer.made("Cast", (written,), target, to=kind))
        self._drop_pairs(target, scale)

    def _pass_through(self, name: str) -> None:
        """An input that is an output as well: the same integers come out."""
        for value in self._graph.output:
            if value.name == name:
                value.type.tensor_type.elem_type = TensorProto.INT8

    def _input_scale(self, name: str, target: str) -> np.float32:
        """The step of an input's one grid: that of the layer that has it quantised with its own range.

        Where no INT8 layer has, but a float layer reads it, the grid spans all that was seen. Where only layers that
        share another tensor's grid read it (a MaxPool, a Concat), it is theirs, the coarsest of several.
        """
        own = next((entry for entry in self._placement.activations if entry.tensor == name == entry.range_of), None)
        if own is not None:
            reader = own.readers[0]
            back = self._pairs.producer(self._pairs.nodes[reader.node].input[reader.index])
            if back is not None:
                return self._step(back)
        if _read_directly(name, self._index, self._placement):
            return scale_of(self._range(name).extreme, fp16=self._request.fp16)
        return max(self._step(node) for node in self._quantizers(target))

    def _drop_pairs(self, tensor: str, scale: np.float32) -> None:
        """Takes out the pairs that would put the input on the grid it is on already."""
        for quantizer in self._quantizers(tensor):
            if self._step(quantizer) != scale:
                continue
            for back, _ in self._pairs.readers(quantizer.output[0]):
                for reader, place in self._pairs.readers(back.output[0]):
                    reader.input[place] = tensor
                self._writer.remove(back.name)
            self._writer.remove(quantizer.name)

    def _give_int8(self, value: onnx.ValueInfoProto, source: str) -> None:
        """Quantises an output over all that was seen of it: a clipped answer is a wrong one, several would tie."""
        name, kind = value.name, value.type.tensor_type.elem_type
        value.type.tensor_type.elem_type = TensorProto.INT8
        scale = scale_of(self._range(name).extreme, fp16=self._request.fp16)
        if kind != TensorProto.FLOAT:
            wide = self._writer.tensor(f"{name}_fp32")
            self._writer.last(self._writer.made("Cast", (source,), wide, to=TensorProto.FLOAT))
            source = wide
        step = self._writer.constant(f"{name}_scale", np.array(scale, np.float32))
        self._writer.last(self._writer.made("QuantizeLinear", (source, step, self._zero), name))

    def _quantizers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node, place in self._pairs.readers(tensor) if node.op_type == "QuantizeLinear" and place == 0]

    def _step(self, node: onnx.NodeProto) -> np.float32:
        step: np.float32 = np.asarray(self._pairs.constant(node.input[1]), np.float32).reshape(-1)[0]
        return step

    def _range(self, tensor: str) -> TensorRange:
        found = self._ranges.get(tensor)
        if found is None:
            raise StaleError(
                "the calibration table has no range for this input or output",
                where=tensor,
                hint="calibrate again: the table was made for float inputs and outputs",
            )
        return found


def integer_ends(model: onnx.ModelProto, index: GraphIndex, image: Preprocess | None) -> IntegerEnds | None:
    """What the caller of a model with integer ends has to know, read from the model itself.

    Args:
        model: The finished model, FP16 casts included.
        index: The float model it was made of.
        image: The preprocessing, if an image goes in.

    Returns:
        None where every float input and output of the float model is float still.
    """
    found = GraphIndex(model)
    changed = {value.name for value in (*model.graph.input, *model.graph.output) if not _is_float(value)}
    if not changed & {*float_inputs(index), *float_outputs(index)}:
        return None
    picture = image_input(index, image) if image is not None else None
    inputs = []
    for value in model.graph.input:
        if value.name not in found.inputs:
            continue
        if image is not None and value.name == picture:
            inputs.append(_image_end(value, image))
        else:
            inputs.append(end_of(value, "input", found))
    outputs = [end_of(value, "output", found) for value in model.graph.output]
    return IntegerEnds(tuple(inputs), tuple(outputs))


def _image_end(value: onnx.ValueInfoProto, image: Preprocess) -> IntegerEnd:
    spec = spec_of(value)
    told = image_instruction(image)
    return IntegerEnd(spec.name, "input", spec.dtype, spec.shape, told, layout="NHWC", preprocess=str(image))


def _read_directly(tensor: str, index: GraphIndex, placement: Placement) -> bool:
    """Whether somebody reads the tensor without a Q/DQ pair in between."""
    quantized = {
        (reader.node, reader.index)
        for entry in placement.activations
        if entry.tensor == tensor
        for reader in entry.readers
    }
    readers = {(node.name, place) for node, place in index.readers(tensor)}
    return index.is_read_elsewhere(tensor) or not readers <= quantized


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return dtype_name(value.type.tensor_type.elem_type) in FLOATS
