"""A graph under construction in which every quantised tensor is known by the floats it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_opt.graph.index import GraphIndex, captured_names
from trt_opt.graph.names import fresh_name, tensor_names
from trt_opt.graph.query import dtype_name, opset_or_none
from trt_opt.graph.tensors import graphs_of
from trt_opt.graph.writer import drop_unread
from trt_opt.quantize.importing.constants import Array, ConstantReader
from trt_opt.quantize.importing.held_integers import (
    ACTIVATION_TYPES,
    ConstantGrid,
    Held,
    RunTimeGrid,
    StoredConstant,
    UnreadableError,
)
from trt_opt.quantize.importing.node_reading import input_of, read_nodes
from trt_opt.values.changes import Change, Decline


@dataclass(slots=True)
class FloatGraph:
    """The new graph. Nodes are only ever added; what nothing reads in the end is left out.

    Attributes:
        index: The source, with inferred types.
        held: Tensors of integers.
        stored: Output of a DequantizeLinear of constants → these.
        changed: What was done.
        declined: What was left alone.
        meanings: What rules of one topic remember of tensors, by tensor.
    """

    index: GraphIndex
    held: dict[str, Held] = field(default_factory=dict)
    stored: dict[str, StoredConstant] = field(default_factory=dict)
    changed: list[Change] = field(default_factory=list)
    declined: list[Decline] = field(default_factory=list)
    meanings: dict[str, object] = field(default_factory=dict)
    constant: ConstantReader = field(init=False)
    opset: int = field(init=False)
    _nodes: list[onnx.NodeProto] = field(default_factory=list)
    _aliases: dict[str, str] = field(default_factory=dict)
    _integers_of: dict[str, str] = field(default_factory=dict)
    _added: list[TensorProto] = field(default_factory=list)
    _shared: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _initializers: frozenset[str] = field(init=False)
    _tensors: set[str] = field(init=False)
    _node_names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.index.model.graph
        self.constant = ConstantReader(self.index)
        self.opset = opset_or_none(self.index.model) or 0
        self._initializers = frozenset(tensor.name for tensor in graph.initializer)
        self._tensors = tensor_names(graph)
        self._node_names = {node.name for inner in graphs_of(graph) for node in inner.node}

    def emit(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str = "",
        attributes: Iterable[onnx.AttributeProto] = (),
        **options: Any,
    ) -> None:
        """Adds a node; without a name it gets a free one."""
        given = name or fresh_name(outputs[0], self._node_names)
        node = helper.make_node(op_type, list(inputs), list(outputs), name=given, **options)
        node.attribute.extend(attributes)
        self._nodes.append(node)

    def made(self, op_type: str, inputs: Sequence[str], base: str, **options: Any) -> str:
        """Adds a node with one output of a free name like `base`; that name."""
        name = self.tensor(base)
        self.emit(op_type, inputs, [name], **options)
        return name

    def tensor(self, base: str) -> str:
        """A tensor name that is still free."""
        return fresh_name(base, self._tensors)

    def array(self, base: str, array: Array) -> str:
        """An initialiser with this value; equal scalars are shared."""
        key = (array.dtype.name, array.tobytes())
        if array.ndim == 0 and key in self._shared:
            return self._shared[key]
        name = self.tensor(base)
        self._added.append(numpy_helper.from_array(array, name))
        if array.ndim == 0:
            self._shared[key] = name
        return name

    def initializer(self, name: str, array: Array) -> None:
        """An initialiser in place of a node of the source that writes the tensor of this name."""
        self._added.append(numpy_helper.from_array(array, name))

    def is_initializer(self, name: str) -> bool:
        """Whether the source stores the tensor as an initialiser, not as a node."""
        return name in self._initializers

    def read(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of a source node that reads what stands for its inputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._aliases.get(name, name) for name in node.input]
        return copy

    def keep(self, node: onnx.NodeProto) -> None:
        """Adds a node as it is, and the integers it reads."""
        for name in (*node.input, *captured_names(node)):
            self.write_integers(name)
        self._nodes.append(node)

    def alias(self, old: str, new: str) -> None:
        """Lets all readers of one tensor read another that holds the same."""
        if old == new:
            return
        if self.index.is_read_elsewhere(old):
            self.write_integers(new)
            self.emit("Identity", [new], [old])
        else:
            self._aliases[old] = new
        if new in self.held:
            self.held[old] = self.held[new]

    def change(self, node: str, what: str) -> None:
        """Notes what was done."""
        self.changed.append(Change(node, what))

    def element(self, tensor: str) -> int | None:
        """The element type; None where it is not known."""
        known = self.held.get(tensor)
        if known is not None:
            return known.grid.element if isinstance(known.grid, ConstantGrid) else TensorProto.UINT8
        return self.index.element_type(tensor)

    def grid(self, scale: str, zero: str, element: int | None) -> ConstantGrid:
        """The grid that two tensors describe.

        Args:
            scale: The tensor.
            zero: The tensor; "" where there is none.
            element: The type of the integers where the zero-point does not tell.

        Raises:
            UnreadableError: They are not constant, are no single numbers, or are of other types.
        """
        step, offset = self.constant(scale), self.constant(zero)
        if step is None or (zero and offset is None):
            raise UnreadableError(f"its {'scale' if step is None else 'zero-point'} is only known at run time")
        if step.size != 1 or (offset is not None and offset.size != 1):
            raise UnreadableError("an activation has one scale per channel")
        number = float(step.reshape(-1)[0])
        if not (np.isfinite(number) and number > 0):
            raise UnreadableError(f"its scale is {number:g}")
        kind = (element or TensorProto.UINT8) if offset is None else helper.np_dtype_to_tensor_dtype(offset.dtype)
        if kind not in ACTIVATION_TYPES:
            raise UnreadableError(f"its activations are {dtype_name(kind).upper()}")
        zero_point = 0 if offset is None else int(offset.reshape(-1)[0])
        return ConstantGrid(number, zero_point, kind, helper.np_dtype_to_tensor_dtype(step.dtype))

    def parameters(self, grid: ConstantGrid, scale: str = "", zero: str = "") -> tuple[str, str]:
        """Initialisers without dimension that hold the grid's scale and zero-point: the given ones if they are that."""
        base = scale or "scale"
        names = []
        for given, free, value in ((scale, f"{base}_scalar", grid.step), (zero, f"{base}_zero_point", grid.offset)):
            fits = self.is_initializer(given) and self.index.shape(given) == ()
            names.append(given if fits else self.array(given or free, value))
        return names[0], names[1]

    def float_of(self, integers: str) -> str:
        """The tensor that holds the floats of a tensor of integers; a DequantizeLinear makes it where there is none."""
        held = self.held[integers]
        if held.float_name is not None:
            return held.float_name
        self.write_integers(integers)
        name = self.float_name(integers)
        self._dequantize(integers, held.grid, name)
        return name

    def float_name(self, integers: str) -> str:
        """What the floats of a tensor are called: as the source calls them, if it does."""
        for node, position in self.index.readers(integers):
            if position == 0 and node.op_type == "DequantizeLinear" and self._reads(node, integers):
                return str(node.output[0])
        return self.tensor(f"{integers}_dequantized")

    def _reads(self, node: onnx.NodeProto, integers: str) -> bool:
        grid = self.held[integers].grid
        zero = node.input[2] if len(node.input) > 2 else ""
        try:
            return isinstance(grid, ConstantGrid) and self.grid(node.input[1], zero, grid.element) == grid
        except UnreadableError:
            return False

    def _dequantize(self, integers: str, grid: ConstantGrid | RunTimeGrid, name: str) -> None:
        reader = self.index.producer(name)
        if reader is not None and isinstance(grid, ConstantGrid):
            parameters = self.parameters(grid, input_of(reader, 1), input_of(reader, 2))
        else:
            parameters = self._parameters_of(integers, grid)
        self.emit("DequantizeLinear", [integers, *parameters], [name], name=reader.name if reader is not None else "")
        self.now_float(integers, name)

    def _parameters_of(self, integers: str, grid: ConstantGrid | RunTimeGrid) -> tuple[str, str]:
        if isinstance(grid, RunTimeGrid):
            return grid.scale, grid.zero_point
        return self.held[integers].parameters or self.parameters(grid)

    def now_float(self, integers: str, name: str) -> None:
        """Notes where the floats of a tensor are found."""
        self.held[integers] = replace(self.held[integers], float_name=name)
        self._integers_of[name] = integers

    def integers_of(self, name: str) -> str | None:
        """The tensor of integers whose floats a tensor holds."""
        return self._integers_of.get(name)

    def write_integers(self, name: str) -> None:
        """Sees to it that a tensor of integers exists under its own name."""
        held = self.held.get(name)
        if held is None or held.is_written:
            return
        source = held.unquantized or held.float_name
        if source is None:
            return
        parameters = self._parameters_of(name, held.grid)
        self.emit("QuantizeLinear", [source, *parameters], [name])
        self.held[name] = replace(held, parameters=parameters, is_written=True)

    def quantize(self, source: str, integers: str, scale: str, zero: str, grid: ConstantGrid) -> None:
        """Adds a QuantizeLinear that writes a tensor of the source."""
        parameters = self.parameters(grid, scale, zero)
        self.emit("QuantizeLinear", [source, *parameters], [integers])
        self.held[integers] = Held(grid, unquantized=source, parameters=parameters)

    def dequantized_constant(self, stored: StoredConstant, base: str, output: str = "", name: str = "") -> str:
        """Adds a DequantizeLinear of constants; the name of its output."""
        target = output or self.tensor(f"{base}_dequantized")
        inputs = [
            self.array(f"{base}_integers", stored.integers),
            self.array(f"{base}_scale", stored.scale),
            self.array(f"{base}_zero_point", stored.zero),
        ]
        attributes = [helper.make_attribute(key, value) for key, value in stored.attributes.items()]
        self.emit("DequantizeLinear", inputs, [target], name, attributes)
        self.stored[target] = stored
        return target

    def finished(self, source: onnx.ModelProto) -> onnx.ModelProto:
        """The new model: the source with these nodes, but for those that nothing reads."""
        for name in self.index.outputs:
            self.write_integers(name)
        model = onnx.ModelProto()
        model.CopyFrom(source)
        del model.graph.node[:]
        model.graph.node.extend(read_nodes(self._nodes, self.index.outputs))
        model.graph.initializer.extend(self._added)
        drop_unread(model)
        return model
