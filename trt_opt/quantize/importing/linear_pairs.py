"""QuantizeLinear and DequantizeLinear themselves: their parameters, pairs that say nothing, casts beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from trt_opt.graph.index import attribute_of
from trt_opt.quantize.importing.constants import integer_limits
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import ConstantGrid, Held, RunTimeGrid, UnreadableError
from trt_opt.quantize.importing.node_reading import input_of, integer_attribute
from trt_opt.quantize.importing.stored_constants import dequantize_constant


def quantize(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A QuantizeLinear of an activation: written with explicit scalars, or left out where its input is on the grid."""
    if graph.constant(input_of(node, 0)) is not None:
        return False
    told = integer_attribute(node, "output_dtype") or TensorProto.UINT8
    grid = graph.grid(input_of(node, 1), input_of(node, 2), told)
    output = node.output[0]
    before = graph.integers_of(node.input[0])
    if before is not None and graph.held[before].grid == grid and not graph.index.is_read_elsewhere(output):
        graph.alias(output, before)
        graph.change(node.name, "its input is on its grid already: left out")
        return True
    parameters = graph.parameters(grid, input_of(node, 1), input_of(node, 2))
    _write(node, graph, parameters, "output_dtype")
    graph.held[output] = Held(grid, unquantized=node.input[0], parameters=parameters)
    return True


def dequantize(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A DequantizeLinear: of constants, of an activation, or of one whose grid is found at run time."""
    source = input_of(node, 0)
    integers = graph.constant(source)
    if integers is not None:
        return dequantize_constant(node, integers, graph)
    held = graph.held.get(source)
    if held is not None and isinstance(held.grid, RunTimeGrid):
        return _dequantize_dynamic(node, held, graph)
    grid = graph.grid(input_of(node, 1), input_of(node, 2), graph.element(source))
    if held is not None and held.grid != grid:
        raise UnreadableError("it reads integers of another grid")
    if held is not None and held.float_name is not None:
        _read_once(node, held.float_name, graph)
        return True
    if held is not None and not held.is_written:
        graph.write_integers(source)
        graph.change(node.name, "a QuantizeLinear before it")
    _write(node, graph, graph.parameters(grid, input_of(node, 1), input_of(node, 2)))
    if held is not None:
        graph.now_float(source, node.output[0])
    return True


def cast(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A Cast to the type that its input has, beside a QuantizeLinear or DequantizeLinear: left out."""
    source, output = input_of(node, 0), node.output[0]
    if graph.element(source) != integer_attribute(node, "to"):
        return False
    maker = graph.index.producer(source)
    is_behind = maker is not None and maker.op_type == "DequantizeLinear"
    is_before = any(reader.op_type == "QuantizeLinear" for reader, _ in graph.index.readers(output))
    if not (source in graph.held or is_behind or is_before) or graph.index.is_read_elsewhere(output):
        return False
    graph.alias(output, source)
    if source in graph.stored:
        graph.stored[output] = graph.stored[source]
    graph.change(node.name, "casts to the type it reads: left out")
    return True


def clip(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """A Clip or Relu of integers: before their QuantizeLinear instead, or left out where it takes off nothing."""
    held = graph.held.get(input_of(node, 0))
    if held is None or not isinstance(held.grid, ConstantGrid):
        return False
    low, high = _bounds(node, graph)
    limits = integer_limits(np.dtype(helper.tensor_dtype_to_np_dtype(held.grid.element))) or (0, 0)
    narrow = held.grid.element == TensorProto.INT8 and held.grid.zero_point == 0 and (low, high) == (-127, 127)
    output = node.output[0]
    if narrow or (low <= limits[0] and high >= limits[1]):
        why = (
            "clips INT8 to -127 … 127: left out, which moves numbers by one step at most" if narrow else "clips nothing"
        )
        graph.alias(output, node.input[0])
        graph.change(node.name, why)
        return True
    if low > high:
        raise UnreadableError("its bounds are not in order")
    source = held.unquantized or graph.float_of(node.input[0])
    bounds = [
        graph.array(f"{output}_{end}", held.grid.float_of(min(max(bound, limits[0]), limits[1])))
        for end, bound in (("lowest", low), ("highest", high))
    ]
    clipped = graph.tensor(f"{output}_unquantized")
    graph.emit("Clip", [source, *bounds], [clipped], name=node.name)
    graph.held[output] = replace(held, float_name=None, unquantized=clipped, is_written=False)
    graph.change(node.name, "clips the floats instead of the integers")
    return True


def _bounds(node: onnx.NodeProto, graph: FloatGraph) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0, np.inf
    ends = []
    for position, free in ((1, -np.inf), (2, np.inf)):
        bound = graph.constant(input_of(node, position))
        if input_of(node, position) and (bound is None or bound.size != 1):
            raise UnreadableError("its bounds are only known at run time")
        ends.append(free if bound is None else float(bound.reshape(-1)[0]))
    return ends[0], ends[1]


def _dequantize_dynamic(node: onnx.NodeProto, held: Held, graph: FloatGraph) -> bool:
    """What is quantised as it runs and dequantised again is the float itself, but for the rounding."""
    grid = held.grid
    if not isinstance(grid, RunTimeGrid) or (input_of(node, 1), input_of(node, 2)) != (grid.scale, grid.zero_point):
        return False
    graph.alias(node.output[0], graph.float_of(node.input[0]))
    graph.change(node.name, "the rounding to a grid found at run time is dropped")
    return True


def _read_once(node: onnx.NodeProto, float_name: str, graph: FloatGraph) -> None:
    """Several DequantizeLinear of one tensor are one."""
    if float_name != node.output[0]:
        graph.alias(node.output[0], float_name)
        graph.change(node.name, "another dequantises the same integers: left out")


def _write(node: onnx.NodeProto, graph: FloatGraph, parameters: tuple[str, str], dropped: str = "") -> None:
    """Adds the node with these parameters, in ONNX's own domain."""
    ours = onnx.NodeProto()
    ours.CopyFrom(node)
    if node.domain:
        ours.ClearField("domain")
    ours.input[1:] = parameters
    kept = [attribute for attribute in node.attribute if attribute.name != dropped]
    if dropped and attribute_of(node, dropped):
        del ours.attribute[:]
        ours.attribute.extend(kept)
    if ours != node:
        graph.change(
            node.name, "its scale and zero-point are written as constants" if not node.domain else "ONNX's own"
        )
    graph.keep(ours)
