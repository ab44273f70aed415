"""Operators that move integers about, or choose among them: done on the floats these stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

import onnx

from trt_opt.graph.index import GraphIndex, attribute_of
from trt_opt.quantize.importing.constants import dequantized
from trt_opt.quantize.importing.float_graph import FloatGraph
from trt_opt.quantize.importing.held_integers import ConstantGrid, Held, RunTimeGrid, StoredConstant, UnreadableError
from trt_opt.quantize.importing.node_reading import attributes_of, input_of
from trt_opt.quantize.importing.operands import operands_of

MOVES = frozenset(
    {"DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "ReduceMax"}
    | {"ReduceMin", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"}
    | {"Unsqueeze", "Pad", "Resize"}
)
"""What gives only integers out that its first input holds, or the zero-point; a linear Resize some between them."""

JOINS = MappingProxyType({"Concat": None, "Max": None, "Min": None, "Where": (1, 2)})
"""What gives integers of several inputs out: which inputs these are, None for all."""

LOOKS = frozenset({"ArgMax", "ArgMin", "Shape", "Size"})
"""What says something of the integers that is true of the floats as well."""

_TAKES = frozenset({"Gather", "GatherElements", "GatherND"})

_ALL_OUTPUTS = frozenset({"Split"})


def integer_inputs(node: onnx.NodeProto) -> Sequence[int]:
    """Which inputs of the node hold the integers that it moves."""
    if node.domain:
        return ()
    if node.op_type in JOINS:
        positions = JOINS[node.op_type]
        return range(len(node.input)) if positions is None else positions
    return (0,) if node.op_type in MOVES else ()


def integer_outputs(node: onnx.NodeProto) -> Sequence[str]:
    """Which outputs hold integers of its inputs: not the places MaxPool found them at."""
    if not integer_inputs(node):
        return ()
    return tuple(filter(None, node.output)) if node.op_type in _ALL_OUTPUTS else tuple(node.output[:1])


def move(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """Does on floats what the node does on integers; the integers themselves are written where something reads them."""
    positions = integer_inputs(node)
    held = [graph.held.get(input_of(node, at)) for at in positions]
    if not any(held):
        held = [_table(node, graph)]
    known = [entry for entry in held if entry is not None]
    if not known:
        return False
    grid = known[0].grid
    if any(entry.grid != grid for entry in known):
        raise UnreadableError("its inputs are on different grids")
    computes = _computes_between(node, grid)
    inputs = list(node.input)
    ends_here = leads_out(node.output[0], graph.index) and len(positions) == 1 and not computes
    for at, entry in zip(positions, held, strict=True):
        inputs[at] = _moved(node.input[at], entry, grid, graph, unquantized=ends_here)
    if node.op_type == "Pad":
        inputs = _padding(node, inputs, grid, graph)
    rounds_later = computes or (ends_here and known[0].unquantized is not None)
    _write(node, graph, inputs, known[0], unquantized=rounds_later)
    return True


def _computes_between(node: onnx.NodeProto, grid: ConstantGrid | RunTimeGrid) -> bool:
    """Whether what the node gives is rounded to the grid again: a linear Resize.

    ONNX does not say how integers are rounded there: runtimes round or cut off, which is one step at most.
    """
    mode = attribute_of(node, "mode", b"nearest") if node.op_type == "Resize" else b"nearest"
    if mode == b"nearest":
        return False
    if mode != b"linear" or isinstance(grid, RunTimeGrid):
        raise UnreadableError("it computes between integers")
    return True


def look(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """ArgMax and the like of integers: of the floats."""
    held = graph.held.get(input_of(node, 0))
    if held is None or isinstance(held.grid, RunTimeGrid):
        return False
    floats = graph.float_of(node.input[0])
    graph.emit(node.op_type, [floats, *node.input[1:]], node.output, node.name, attributes_of(node))
    graph.change(node.name, "reads the floats instead of the integers")
    return True


def _table(node: onnx.NodeProto, graph: FloatGraph) -> Held | None:
    """Constant integers that the node takes some of, on the grid of those who read these."""
    integers = graph.constant(input_of(node, 0)) if node.op_type in _TAKES and not node.domain else None
    if integers is None:
        return None
    grids = asked_grids(node.output[0], graph)
    if len(grids) != 1:
        return None
    grid = grids.pop()
    stored = StoredConstant(integers, grid.step, grid.offset)
    return Held(grid, float_name=graph.dequantized_constant(stored, node.input[0]))


def asked_grids(tensor: str, graph: FloatGraph) -> set[ConstantGrid]:
    """The grids on which a tensor of integers is read, or what is moved out of it."""
    open_ends, grids = [tensor], set[ConstantGrid]()
    seen: set[str] = set()
    while open_ends:
        name = open_ends.pop()
        if name in seen:
            continue
        seen.add(name)
        for reader, position in graph.index.readers(name):
            if position in integer_inputs(reader):
                open_ends.extend(integer_outputs(reader))
                continue
            for at, scale, zero in operands_of(reader):
                if at == position:
                    grids.update(_grid(input_of(reader, scale), input_of(reader, zero), name, graph))
    return grids


def _grid(scale: str, zero: str, tensor: str, graph: FloatGraph) -> Iterator[ConstantGrid]:
    try:
        yield graph.grid(scale, zero, graph.index.element_type(tensor))
    except UnreadableError:
        # The node that reads it says so itself.
        return


def leads_out(tensor: str, index: GraphIndex) -> bool:
    """Whether integers are only moved about until they are graph outputs."""
    open_ends, found = [tensor], False
    while open_ends:
        name = open_ends.pop()
        readers = index.readers(name)
        found = found or name in index.outputs
        if name in index.captured or not (readers or name in index.outputs):
            return False
        for reader, position in readers:
            if position not in integer_inputs(reader) or reader.op_type in JOINS:
                return False
            open_ends.extend(integer_outputs(reader))
    return found


def _moved(
    name: str, held: Held | None, grid: ConstantGrid | RunTimeGrid, graph: FloatGraph, *, unquantized: bool
) -> str:
    """The floats of one input."""
    if held is not None:
        moved_before = held.unquantized if unquantized else None
        return moved_before or held.float_name or graph.float_of(name)
    if not name:
        return name
    integers = graph.constant(name)
    if integers is None:
        raise UnreadableError("one of its inputs is not quantised")
    if isinstance(grid, RunTimeGrid):
        raise UnreadableError("it joins constants with integers of a grid found at run time")
    return graph.array(f"{name}_dequantized", dequantized(integers, grid.step, grid.offset, 0))


def _padding(node: onnx.NodeProto, inputs: list[str], grid: ConstantGrid | RunTimeGrid, graph: FloatGraph) -> list[str]:
    """The inputs of a Pad with the float that its integer stands for; left out, that is the integer 0."""
    if attribute_of(node, "mode", b"constant") != b"constant":
        return inputs
    if isinstance(grid, RunTimeGrid):
        if input_of(node, 2) == grid.zero_point:
            return [*inputs[:2], *([""] if len(inputs) > 3 else []), *inputs[3:]]
        raise UnreadableError("it pads integers of a grid found at run time")
    value = graph.constant(input_of(node, 2))
    if input_of(node, 2) and value is None:
        raise UnreadableError("what it pads with is only known at run time")
    integer = 0.0 if value is None else float(value.reshape(-1)[0])
    padding = graph.array(f"{node.output[0]}_padding", grid.float_of(integer))
    return [*inputs[:2], padding, *inputs[3:]]


def _write(node: onnx.NodeProto, graph: FloatGraph, inputs: Sequence[str], like: Held, *, unquantized: bool) -> None:
    moved = integer_outputs(node)
    for name in moved:
        graph.held[name] = replace(like, float_name=None, unquantized=None, is_written=False)
    names = {name: graph.tensor(f"{name}_unquantized") if unquantized else graph.float_name(name) for name in moved}
    graph.emit(node.op_type, inputs, [names.get(name, name) for name in node.output], node.name, attributes_of(node))
    for name in moved:
        if unquantized:
            graph.held[name] = replace(graph.held[name], unquantized=names[name])
        else:
            graph.now_float(name, names[name])
    graph.change(node.name, "moves the floats instead of the integers")
