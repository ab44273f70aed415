"""Puts wider integers in the place of those that TensorRT lacks, through a whole graph and those nested in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.graph.edit import every_graph, label, remove_nodes, set_input, set_output
from trt_opt.graph.surgeon import constant_values
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.integers.integer_types import CARRIERS, LACKING, carried
from trt_opt.passes.integers.widening_rules import RULES, Operation, carried_from_cast, why_not
from trt_opt.passes.node_pass import take_over

REFUSED_ON_INT8 = frozenset({"Mod", "Clip"})
"""Operators of the rules that TensorRT refuses on INT8, which it otherwise has."""

_WITH_GRAPHS = frozenset({"If", "Loop", "Scan"})


class IntegerWidening:
    """One walk over a graph.

    Every node that has a rule and touches a type TensorRT lacks is written anew on carried integers; what flows from
    one such node to another never becomes narrow. Where a graph input, a graph output or a node without a rule is at
    the other end there is a Cast. Tensors that only such others touch are left alone.

    Args:
        edit: The graph.
        refused: Nodes that compute on INT8 and have to be widened too; None for those known to be refused.
        ends: The types whose graph inputs and outputs become those of their carriers.
    """

    def __init__(self, edit: GraphEdit, refused: frozenset[str] | None, ends: frozenset[str] = frozenset()) -> None:
        self.edit = edit
        self.refused = refused
        self.ends = ends
        self.graphs = list(every_graph(edit.graph))
        self.homes = {id(made): graph for graph in self.graphs for node in graph.nodes for made in node.outputs}
        self.homes.update((id(tensor), graph) for graph in self.graphs for tensor in graph.inputs)
        main = edit.graph
        self.main_inputs = {id(tensor) for tensor in main.inputs}
        self.main_outputs = {id(tensor) for tensor in main.outputs}
        self.nested_inputs = {id(tensor) for graph in self.graphs[1:] for tensor in graph.inputs}
        self.nested_outputs = {id(tensor) for graph in self.graphs[1:] for tensor in graph.outputs}
        self.twins: dict[int, gs.Tensor] = {}
        self.made: dict[int, list[gs.Node]] = {id(graph): [] for graph in self.graphs}
        self._ruled: dict[int, bool] = {}

    def apply(self) -> None:
        """Does it."""
        work = [(graph, node) for graph in self.graphs for node in graph.nodes if self.ruled(node)]
        changed_inputs = list(self._changed_inputs())
        for tensor in changed_inputs:
            self._widen_in_place(tensor)
        narrowed = [output for _, node in work for output in node.outputs if self._provide(output, node)]
        for graph, node in work:
            if node.op in _WITH_GRAPHS:
                self._rewire(node)
            else:
                self._rewrite(graph, node)
        for output in narrowed:
            self._narrow(output)
        gone = {id(node) for _, node in work if node.op not in _WITH_GRAPHS}
        for graph in self.graphs:
            remove_nodes(graph, [node for node in graph.nodes if id(node) in gone])
            list.extend(graph.nodes, self.made[id(graph)])
        if work or changed_inputs:
            self._drop_unread_casts()

    def ruled(self, node: gs.Node) -> bool:
        """Whether the node is to be computed on carried integers."""
        if id(node) not in self._ruled:
            self._ruled[id(node)] = self._is_ruled(node)
        return self._ruled[id(node)]

    def lacking(self, tensor: gs.Tensor) -> bool:
        """Whether TensorRT lacks the tensor's type."""
        return bool(tensor.name) and self.edit.dtype(tensor) in LACKING

    def touches(self, node: gs.Node) -> bool:
        """Whether the node reads or writes a type TensorRT lacks."""
        return any(self.lacking(tensor) for tensor in (*node.inputs, *node.outputs))

    def _is_ruled(self, node: gs.Node) -> bool:
        if node.op in _WITH_GRAPHS and not node.domain:
            return self.touches(node)
        if node.op == "Constant" or why_not(
            node, [self.edit.dtype(t) for t in (*node.inputs, *node.outputs) if t.name]
        ):
            return False
        if node.op == "Cast":
            return self._is_ruled_cast(node)
        return self.touches(node) or self._is_widened_int8(node)

    def _is_ruled_cast(self, node: gs.Node) -> bool:
        """Casts between a type TensorRT lacks and one it has, at the borders, stay."""
        source, result = node.inputs[0], node.outputs[0]
        if not self.lacking(source):
            return id(result) in self.main_outputs and self.edit.dtype(result) in self.ends
        if self.lacking(result) or self._changes_in_place(source):
            return True
        producer = source.inputs[0] if source.inputs else None
        return producer is not None and (producer.op == "Cast" or self.ruled(producer))

    def _is_widened_int8(self, node: gs.Node) -> bool:
        if not any(tensor.name and self.edit.dtype(tensor) == "int8" for tensor in node.inputs):
            return False
        return (
            node.op in REFUSED_ON_INT8
            if self.refused is None
            else node.name in self.refused and node.op not in {"Cast"}
        )

    def _carried_type(self, tensor: gs.Tensor, node: gs.Node) -> str | None:
        """The type of a tensor that this node reads or writes carried."""
        dtype = self.edit.dtype(tensor) if tensor.name else None
        if dtype in LACKING:
            return dtype
        return dtype if dtype == "int8" and node.op != "BitCast" and self._is_widened_int8(node) else None

    def _changes_in_place(self, tensor: gs.Tensor) -> bool:
        dtype = self.edit.dtype(tensor)
        if id(tensor) in self.main_inputs:
            return dtype in self.ends
        return id(tensor) in self.nested_inputs and dtype in LACKING

    def _changed_inputs(self) -> Iterator[gs.Tensor]:
        for graph in self.graphs:
            yield from (tensor for tensor in graph.inputs if self._changes_in_place(tensor))

    def _widen_in_place(self, tensor: gs.Tensor) -> None:
        """An input of a graph takes the carrier's type; readers without a rule get a Cast."""
        dtype = str(self.edit.dtype(tensor))
        others = [reader for reader in tensor.outputs if not self.ruled(reader)]
        tensor.dtype = np.dtype(CARRIERS[dtype])
        self.twins[id(tensor)] = tensor
        if others:
            emit = Emitter(self.edit, others[0])
            narrow = emit.cast(tensor, dtype)
            for reader in others:
                for position, given in enumerate(reader.inputs):
                    if given is tensor:
                        set_input(reader, position, narrow)
            self.made[id(self.homes[id(tensor)])] += emit.nodes
        if id(tensor) in self.main_inputs:
            self.edit.changed(tensor.name, f"graph input {dtype} is now {CARRIERS[dtype]}")

    def _provide(self, output: gs.Tensor, node: gs.Node) -> bool:
        """Makes the tensor that carries an output; whether the output itself has to be there too."""
        dtype = self._carried_type(output, node)
        if dtype is None:
            return False
        is_end = id(output) in self.main_outputs and dtype not in self.ends
        others = any(not (self.ruled(reader) and self._carried_type(output, reader)) for reader in output.outputs)
        if is_end or others or dtype not in LACKING:
            carrier = gs.Variable(self.edit.fresh_name(f"{output.name}/{CARRIERS[dtype]}"))
            carrier.dtype, carrier.shape = np.dtype(CARRIERS[dtype]), output.shape
            self.twins[id(output)] = carrier
            return is_end or others or id(output) in self.nested_outputs or id(output) in self.main_outputs
        output.dtype = np.dtype(CARRIERS[dtype])
        self.twins[id(output)] = output
        if id(output) in self.main_outputs:
            self.edit.changed(output.name, f"graph output {dtype} is now {CARRIERS[dtype]}")
        return False

    def _narrow(self, output: gs.Tensor) -> None:
        graph = self.homes[id(output)]
        twin = self.twins[id(output)]
        emit = Emitter(self.edit, twin.inputs[0])
        emit.cast(twin, str(self.edit.dtype(output)))
        set_output(emit.nodes[0], 0, output)
        self.made[id(graph)] += emit.nodes

    def _twin(self, tensor: gs.Tensor) -> gs.Tensor:
        """The tensor that carries one of a type that is carried."""
        if id(tensor) not in self.twins:
            self.twins[id(tensor)] = self._new_twin(tensor)
        return self.twins[id(tensor)]

    def _new_twin(self, tensor: gs.Tensor) -> gs.Tensor:
        dtype = str(self.edit.dtype(tensor))
        values = constant_values(tensor)
        if values is not None:
            return gs.Constant(self.edit.fresh_name(f"{tensor.name}/{CARRIERS[dtype]}"), carried(values, dtype))
        producer = tensor.inputs[0] if tensor.inputs else None
        emit = Emitter(self.edit, producer if producer is not None else tensor.outputs[0])
        if producer is not None and producer.op == "Cast" and dtype in LACKING and not self.lacking(producer.inputs[0]):
            found = carried_from_cast(emit, producer.inputs[0], dtype)
        else:
            found = emit.cast(tensor, CARRIERS[dtype])
        home = self.homes.get(id(tensor), self.edit.graph)
        self.made[id(home)] += emit.nodes
        return found if isinstance(found, gs.Tensor) else emit.constant(np.asarray(found))

    def _rewrite(self, graph: gs.Graph, node: gs.Node) -> None:
        emit = Emitter(self.edit, node)
        types = tuple(self._carried_type(tensor, node) for tensor in node.inputs)
        inputs = tuple(
            None if tensor.is_empty() else self._twin(tensor) if dtype else tensor
            for tensor, dtype in zip(node.inputs, types, strict=True)
        )
        made_types = tuple(self._carried_type(tensor, node) for tensor in node.outputs)
        dtype = next(dtype for dtype in (*types, *made_types) if dtype)
        results = RULES[node.op](Operation(node, emit, inputs, types, dtype))
        for output, result, made_type in zip(node.outputs, results, made_types, strict=False):
            if output.name:
                take_over(self.twins[id(output)] if made_type else output, result, emit)
        self.made[id(graph)] += emit.nodes
        self.edit.changed(node, f"{node.op} of {dtype} computed in {CARRIERS[dtype]}")

    def _rewire(self, node: gs.Node) -> None:
        """Of nodes with graphs inside only the types change."""
        for position, tensor in enumerate(list(node.inputs)):
            if self.lacking(tensor):
                set_input(node, position, self._twin(tensor))
        for inner in node.attrs.values():
            if isinstance(inner, gs.Graph):
                for position, tensor in enumerate(list(inner.outputs)):
                    if self.lacking(tensor):
                        list.__setitem__(inner.outputs, position, self._twin(tensor))
        for position, tensor in enumerate(list(node.outputs)):
            if self.lacking(tensor) and self.twins[id(tensor)] is not tensor:
                set_output(node, position, self.twins[id(tensor)])
        self.edit.changed(node, f"{node.op} passes wider integers on")

    def _drop_unread_casts(self) -> None:
        """Casts to a type TensorRT lacks whose readers now read something else."""
        outputs = {id(tensor) for graph in self.graphs for tensor in graph.outputs}
        for graph in self.graphs:
            dead = [
                node
                for node in graph.nodes
                if node.op in {"Cast", "Constant"}
                and self.lacking(node.outputs[0])
                and not node.outputs[0].outputs
                and id(node.outputs[0]) not in outputs
            ]
            remove_nodes(graph, dead)


def untouched_reasons(widening: IntegerWidening, names: frozenset[str] | None) -> Sequence[tuple[gs.Node, str]]:
    """The nodes of ONNX's own operators that touch a type TensorRT lacks and have no rule, and why."""
    found = []
    for graph in widening.graphs:
        for node in graph.nodes:
            known = node.op in {"Constant", "QuantizeLinear", "DequantizeLinear"} | _WITH_GRAPHS
            if known or node.domain not in {None, "", "ai.onnx"} or not widening.touches(node):
                continue
            if names is not None and label(node) not in names:
                continue
            dtypes = [widening.edit.dtype(tensor) for tensor in (*node.inputs, *node.outputs) if tensor.name]
            reason = why_not(node, dtypes)
            if reason:
                found.append((node, reason))
    return found
