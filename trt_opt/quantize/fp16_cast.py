"""Writes FP16 into a graph: constants converted, Casts only where an FP16 and an FP32 island meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_opt.graph.index import GraphIndex, captured_names
from trt_opt.graph.names import fresh_name, tensor_names
from trt_opt.graph.query import PAIR_OPS
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.graph.writer import drop_unread
from trt_opt.quantize.fp16_risks import LARGEST, may_saturate

FLOAT32_ONLY_INPUTS = frozenset({("Resize", 1), ("Resize", 2), ("Upsample", 1)})
"""Sampling coordinates lose too much in FP16, and ONNX Runtime takes float32 alone."""


def with_fp16(index: GraphIndex, kept: Mapping[str, str]) -> onnx.ModelProto:
    """A copy of the model in FP16, except for the nodes named in `kept` and what has no FP16 form.

    Every float32 tensor keeps its name for its float32 form; its FP16 form, where somebody needs it, is called
    `<name>_fp16`. So subgraphs, graph inputs, graph outputs and FP32 nodes need no change.

    Args:
        index: The model, types inferred for every tensor.
        kept: Node name → why it stays FP32.
    """
    return _Caster(index, kept).cast()


def fp16_nodes(index: GraphIndex, kept: Mapping[str, str]) -> frozenset[str]:
    """The nodes that run in FP16: not kept, with a float32 tensor to convert, and with an FP16 form.

    A QuantizeLinear or DequantizeLinear follows those who read the pair; a QuantizeLinear that writes a graph output
    follows the node before it.
    """
    chosen: set[str] = set()
    for node in reversed(index.model.graph.node):
        if node.name in kept or any(True for _ in subgraphs_of(node)) or not _has_fp16_form(node, index):
            continue
        if node.op_type in PAIR_OPS:
            readers = index.readers(node.output[0])
            if index.is_read_elsewhere(node.output[0]) or not all(reader.name in chosen for reader, _ in readers):
                continue
        chosen.add(node.name)
    return frozenset(chosen | {node.name for node in index.model.graph.node if _follows_fp16(node, index, chosen)})


def _follows_fp16(node: onnx.NodeProto, index: GraphIndex, chosen: set[str]) -> bool:
    """Whether it quantises a graph output that is written in FP16."""
    if node.op_type != "QuantizeLinear" or node.output[0] not in index.outputs or index.readers(node.output[0]):
        return False
    producer = index.producer(node.input[0])
    return producer is not None and producer.name in chosen and _has_fp16_form(node, index)


def _has_fp16_form(node: onnx.NodeProto, index: GraphIndex) -> bool:
    types = {index.element_type(name) for name in (*node.input, *node.output) if name}
    return None not in types and TensorProto.FLOAT in types and bool(_convertible(node, index))


def _convertible(node: onnx.NodeProto, index: GraphIndex) -> frozenset[str]:
    """The type parameters of the node's operator that are float32 here and may be float16."""
    schema = _schema(node, index)
    if schema is None:
        return frozenset()
    allowed = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if "tensor(float16)" in constraint.allowed_type_strs
    }
    used: set[str] = set()
    for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        types = _formal_types(formals, len(names))
        used |= {kind for kind, name in zip(types, names, strict=True) if name and _is_float32(name, index)}
    return frozenset(used & allowed)


def _is_float32(name: str, index: GraphIndex) -> bool:
    return index.element_type(name) == TensorProto.FLOAT


def _formal_types(formals: Sequence[onnx.defs.OpSchema.FormalParameter], count: int) -> list[str]:
    """The type parameter of each actual; the last formal of a variadic operator repeats."""
    return [formals[min(place, len(formals) - 1)].type_str for place in range(count)] if formals else [""] * count


def _schema(node: onnx.NodeProto, index: GraphIndex) -> onnx.defs.OpSchema | None:
    version = next((entry.version for entry in index.model.opset_import if entry.domain == node.domain), None)
    if version is None or not onnx.defs.has(node.op_type, node.domain):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None


class _Caster:
    """Walks the nodes in order and keeps, for every float32 tensor, the name of its FP16 form once it has one."""

    def __init__(self, index: GraphIndex, kept: Mapping[str, str]) -> None:
        self._index = index
        self._chosen = fp16_nodes(index, kept)
        self._model = onnx.ModelProto()
        self._model.CopyFrom(index.model)
        self._taken = tensor_names(self._model.graph)
        self._node_names = {node.name for node in self._model.graph.node}
        self._in_fp16: dict[str, str] = {}
        self._lacks_fp32: set[str] = set()
        self._ordered: list[onnx.NodeProto] = []

    def cast(self) -> onnx.ModelProto:
        graph = self._model.graph
        for node in list(graph.node):
            if node.name in self._chosen:
                self._convert(node)
            else:
                self._keep(node)
        for value in graph.output:
            self._need_fp32(value.name)
        del graph.node[:]
        graph.node.extend(_without_unread_casts(self._ordered, {value.name for value in graph.output}))
        drop_unread(self._model)
        return self._model

    def _convert(self, node: onnx.NodeProto) -> None:
        schema = _schema(node, self._index)
        parameters = _convertible(node, self._index)
        reads = _formal_types(schema.inputs if schema else [], len(node.input))
        for place, name in enumerate(node.input):
            fits = reads[place] in parameters and (node.op_type, place) not in FLOAT32_ONLY_INPUTS
            if name and fits and _is_float32(name, self._index):
                node.input[place] = self._read_fp16(name, saturate=may_saturate(node, place))
            elif name:
                self._need_fp32(name)
        self._ordered.append(node)
        writes = _formal_types(schema.outputs if schema else [], len(node.output))
        for place, name in enumerate(node.output):
            if name and writes[place] in parameters and _is_float32(name, self._index):
                node.output[place] = self._in_fp16[name] = fresh_name(f"{name}_fp16", self._taken)
                self._lacks_fp32.add(name)
                if node.op_type == "Cast":
                    _set_cast_target(node, TensorProto.FLOAT16)

    def _keep(self, node: onnx.NodeProto) -> None:
        source = next(iter(node.input), "")
        if node.op_type == "Cast" and self._index.element_type(node.output[0]) == TensorProto.FLOAT16:
            if source in self._lacks_fp32:
                node.input[0] = self._in_fp16[source]
        elif node.op_type == "Cast" and self._index.element_type(source) == TensorProto.FLOAT16:
            self._in_fp16[node.output[0]] = source
        for name in (*node.input, *sorted(captured_names(node))):
            self._need_fp32(name)
        self._ordered.append(node)

    def _read_fp16(self, name: str, *, saturate: bool) -> str:
        """The name of the tensor's FP16 form, made if it has none yet."""
        if name not in self._in_fp16:
            value = self._index.constant(name)
            self._in_fp16[name] = fresh_name(f"{name}_fp16", self._taken)
            if value is None:
                self._add_cast(name, self._in_fp16[name], TensorProto.FLOAT16)
            else:
                half = np.clip(value, -LARGEST, LARGEST) if saturate else value
                tensor = numpy_helper.from_array(half.astype(np.float16), self._in_fp16[name])
                self._model.graph.initializer.append(tensor)
        return self._in_fp16[name]

    def _need_fp32(self, name: str) -> None:
        """Sees to it that the float32 form of a tensor that was written in FP16 exists."""
        if name in self._lacks_fp32:
            self._lacks_fp32.remove(name)
            self._add_cast(self._in_fp16[name], name, TensorProto.FLOAT)

    def _add_cast(self, source: str, target: str, to: int) -> None:
        name = fresh_name(f"{target}_cast", self._node_names)
        self._ordered.append(helper.make_node("Cast", [source], [target], name=name, to=to))


def _set_cast_target(node: onnx.NodeProto, to: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = to


def _without_unread_casts(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes less the Casts whose result nobody reads, in the same order."""
    read = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if node.op_type == "Cast" and node.output[0] not in read:
            continue
        read.update(node.input)
        read |= captured_names(node)
        kept.append(node)
    return kept[::-1]
