"""What the caller of a model feeds and gets at its integer ends, read from the pairs that stand there."""

from __future__ import annotations

import numpy as np
import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.graph.query import spec_of
from trt_opt.values.integer_ends import Direction, IntegerEnd

EIGHT_BITS = ("int8", "uint8")


def end_of(value: onnx.ValueInfoProto, direction: Direction, index: GraphIndex) -> IntegerEnd:
    """One graph input or output: on its grid of 8 bits, or fed and taken as it is.

    Args:
        value: The input or output.
        direction: Which of the two.
        index: Its graph.
    """
    spec = spec_of(value)
    grid = _grid_at(value.name, index) if spec.dtype in EIGHT_BITS else None
    if grid is None:
        told = f"{'feed' if direction == 'input' else 'take'} it as it is, {spec.dtype}"
        return IntegerEnd(spec.name, direction, spec.dtype, spec.shape, told)
    scale, zero = grid
    step, limits = f"{np.float32(scale)!s}", np.iinfo(spec.dtype)
    if direction == "input":
        shifted = f"round(x / {step}) + ({zero})" if zero else f"round(x / {step})"
        told = f"quantise: {shifted}, clipped to {limits.min} … {limits.max}"
    else:
        told = f"dequantise: {step} * (y - ({zero}))" if zero else f"dequantise: {step} * y"
    return IntegerEnd(spec.name, direction, spec.dtype, spec.shape, told, scale, zero)


def _grid_at(name: str, index: GraphIndex) -> tuple[float, int] | None:
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
