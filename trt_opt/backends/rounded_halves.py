"""FP16 graphs as ONNX Runtime must run them for their numbers to mean something.

Its CPU has FP16 kernels for few operators: it runs the others in float32 and leaves out the Casts between them, even
with its optimisations off, so that what lies between two nodes is neither rounded to FP16 nor cut off at 65504 (seen
with 1.32: a chain of FP16 convolutions gave numbers that FP16 does not have). Casts that a graph itself holds stay.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_opt.graph.names import fresh_name, tensor_names
from trt_opt.graph.query import infer_shapes
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.graph.writer import FREE_INITIALISERS, drop_unread

TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})


def with_rounded_halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every FP16 node computes in float32, and what it gives is cast to FP16 and back.

    Every tensor keeps its name for its FP16 form. The model itself where it holds no FP16 tensor, or where a node holds
    a graph of its own, which may read any of them.

    Args:
        model: Of any precision; graph inputs and outputs keep their types.
    """
    if any(True for node in model.graph.node for _ in subgraphs_of(node)):
        return model
    halves = _half_tensors(model)
    return _Widener(model, halves).widened() if halves else model


def _half_tensors(model: onnx.ModelProto) -> frozenset[str]:
    graph = infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    constants = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return frozenset(found | constants)


class _Widener:
    """Walks the nodes in order; every FP16 tensor gets a float32 form of the same numbers."""

    def __init__(self, model: onnx.ModelProto, halves: frozenset[str]) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._model.ir_version = max(model.ir_version, FREE_INITIALISERS)
        self._halves = halves
        self._taken = tensor_names(self._model.graph)
        self._names = {node.name for node in self._model.graph.node}
        self._wide: dict[str, str] = {}
        self._ordered: list[onnx.NodeProto] = []

    def widened(self) -> onnx.ModelProto:
        graph = self._model.graph
        for tensor in list(graph.initializer):
            if tensor.name in self._halves:
                self._wide[tensor.name] = name = fresh_name(f"{tensor.name}_wide", self._taken)
                numbers = numpy_helper.to_array(tensor).astype("float32")
                graph.initializer.append(numpy_helper.from_array(numbers, name))
        for value in graph.input:
            if value.name in self._halves and value.name not in self._wide:
                self._widen(value.name)
        for node in graph.node:
            self._rewrite(node)
        del graph.node[:]
        graph.node.extend(self._ordered)
        drop_unread(self._model)
        return self._model

    def _rewrite(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Cast" or not self._halves.intersection((*node.input, *node.output)):
            self._ordered.append(node)
            for output in node.output:
                if output in self._halves:
                    self._widen(output)
            return
        node.input[:] = [self._wide.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16:
                numbers = numpy_helper.to_array(attribute.t).astype("float32")
                attribute.t.CopyFrom(numpy_helper.from_array(numbers, attribute.t.name))
        self._ordered.append(node)
        for position, output in enumerate(node.output):
            if output in self._halves:
                exact = fresh_name(f"{output}_exact", self._taken)
                node.output[position] = exact
                self._cast(exact, output, TensorProto.FLOAT16)
                self._widen(output)

    def _widen(self, tensor: str) -> None:
        self._wide[tensor] = fresh_name(f"{tensor}_wide", self._taken)
        self._cast(tensor, self._wide[tensor], TensorProto.FLOAT)

    def _cast(self, source: str, target: str, to: int) -> None:
        name = fresh_name(f"{target}_cast", self._names)
        self._ordered.append(helper.make_node("Cast", [source], [target], name=name, to=to))
