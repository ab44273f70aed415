"""Inputs and outputs of a model that came with integer ones: on which grids they are."""

from __future__ import annotations

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import spec_of
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.values.integer_ends import Direction, IntegerEnd, IntegerEnds

EIGHT_BITS = ("int8", "uint8")


def given_ends(model: onnx.ModelProto) -> IntegerEnds | None:
    """What the caller of a quantised model feeds and gets; None where no input or output is on a grid of 8 bits.

    Args:
        model: As it came.
    """
    index = GraphIndex(normal_form(model).model)
    graph = index.model.graph
    inputs = tuple(_end(value, "input", index) for value in graph.input if value.name in index.inputs)
    outputs = tuple(_end(value, "output", index) for value in graph.output)
    if all(end.scale is None for end in (*inputs, *outputs)):
        return None
    return IntegerEnds(inputs, outputs)


def _end(value: onnx.ValueInfoProto, direction: Direction, index: GraphIndex) -> IntegerEnd:
    spec = spec_of(value)
    grid = _grid_at_end(value.name, index) if spec.dtype in EIGHT_BITS else None
    if grid is None:
        told = f"{'feed' if direction == 'input' else 'take'} it as it is, {spec.dtype}"
        return IntegerEnd(spec.name, direction, spec.dtype, spec.shape, told)
    scale, zero = grid
    step = f"{np.float32(scale)!s}"
    limits = np.iinfo(spec.dtype)
    if direction == "input":
        told = f"quantise: round(x / {step}) + ({zero}), clipped to {limits.min} … {limits.max}"
    else:
        told = f"dequantise: {step} * (y - ({zero}))"
    return IntegerEnd(spec.name, direction, spec.dtype, spec.shape, told, scale, zero)


def _grid_at_end(name: str, index: GraphIndex) -> tuple[float, int] | None:
    """Scale and zero-point of the quantiser that writes an output, or of the DequantizeLinear that reads an input."""
    nodes = [node for node, _ in index.readers(name) if node.op_type == "DequantizeLinear"]
    producer = index.producer(name)
    if producer is not None:
        nodes = [producer] if producer.op_type == "QuantizeLinear" else []
    constants = [index.constant(tensor) for tensor in nodes[0].input[1:3]] if nodes else []
    if len(constants) < 2 or any(value is None or value.size != 1 for value in constants):
        return None
    scale, zero = (value.ravel()[0] for value in constants if value is not None)
    return float(scale), int(zero)
