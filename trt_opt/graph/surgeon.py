"""Between onnx and onnx-graphsurgeon, losing nothing.

GraphSurgeon's importer is used as it is; its exporter is not. Version 0.6.1 drops attributes it has no type for,
fails on empty lists and on optional types, copies an outer constant into every subgraph that reads it, renames tensors
of the model it was imported from, stores 4-bit constants unpacked, and writes warnings to stdout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues
from onnx_graphsurgeon.logger import G_LOGGER

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.edit import every_graph, in_order
from trt_opt.graph.names import fresh_name
from trt_opt.graph.query import STANDARD_DOMAINS, all_nodes, node_label
from trt_opt.graph.tensors import array_from_tensor, graphs_of, model_without_graph

_HELD_BY_GRAPHSURGEON = frozenset(
    {
        AttributeProto.FLOAT,
        AttributeProto.INT,
        AttributeProto.STRING,
        AttributeProto.TENSOR,
        AttributeProto.GRAPH,
        AttributeProto.FLOATS,
        AttributeProto.INTS,
        AttributeProto.STRINGS,
    }
)

_LISTS = frozenset({AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS})


def graph_from_model(model: ModelProto) -> gs.Graph:
    """The model as a GraphSurgeon graph, to be edited and given to `model_from_graph`.

    Node names given twice are made unique (unnamed nodes stay unnamed). Attributes GraphSurgeon cannot hold stay in
    `node.attrs` as AttributeProto. Constants share their bytes with `model`, which must be kept and not edited.

    Raises:
        UnsupportedModelError: A node calls an overloaded function or holds a list of graphs, which GraphSurgeon loses.
    """
    for node in all_nodes(model):
        if node.overload or any(attribute.type == AttributeProto.GRAPHS for attribute in node.attribute):
            what = "calls of overloaded functions and lists of graphs cannot be edited"
            raise UnsupportedModelError(what, where=node_label(node))
    source, odd = _with_odd_attributes_aside(model)
    G_LOGGER.severity = G_LOGGER.CRITICAL
    graph = gs.import_onnx(source)
    # The importer hands on the model's own list, to which its exporter would append.
    graph.import_domains = [onnx.helper.make_opsetid(entry.domain, entry.version) for entry in model.opset_import]
    used: set[str] = set()
    for depth_first, inner in enumerate(every_graph(graph)):
        for position, node in enumerate(inner.nodes):
            node.attrs.update(odd.get((depth_first, position), {}))
            node.name = fresh_name(node.name, used) if node.name else ""
        for value in (*inner.inputs, *inner.outputs):
            if isinstance(value, gs.Variable) and value.type != "tensor_type":
                value.dtype = value.shape = None
    graph.kept_alive = source
    return graph


def model_from_graph(graph: gs.Graph, *, like: ModelProto) -> ModelProto:
    """The graph as a model, with everything GraphSurgeon does not hold taken from the model it came from.

    Nodes are put in topological order (stable where already so), domains of new nodes imported at version 1, constants
    that several graphs read stored once. `like` gives IR version, metadata, functions and the types of values that
    are not tensors; constants that were graph inputs there stay so.

    Raises:
        UnsupportedModelError: The nodes form a cycle.
    """
    export = _Export(graph, like)
    model = model_without_graph(like)
    export.graph(graph, model.graph, nested=False)
    for field in ("doc_string", "name"):
        setattr(model.graph, field, getattr(like.graph, field))
    model.graph.metadata_props.extend(like.graph.metadata_props)
    model.graph.quantization_annotation.extend(like.graph.quantization_annotation)
    del model.opset_import[:]
    model.opset_import.extend(graph.import_domains)
    known = {entry.domain for entry in model.opset_import} | {"", "ai.onnx"}
    for node in _every_node(graph):
        if node.domain and node.domain not in known:
            known.add(node.domain)
            model.opset_import.add(domain=node.domain, version=1)
    return model


def constant_values(tensor: gs.Tensor) -> NDArray[np.generic] | None:
    """The values of a constant, or of the Constant node that makes the tensor; None for anything else.

    Reads without loading the tensor for good: GraphSurgeon's own `.values` does, and then exports narrow types wrongly.
    """
    if isinstance(tensor, gs.Constant):
        held = tensor._values
        if isinstance(held, SparseValues):
            return None
        return array_from_tensor(held.tensor) if isinstance(held, LazyValues) else np.asarray(held)
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant" and not tensor.inputs[0].domain:
        held = held_by_constant_node(tensor.inputs[0])
        return array_from_tensor(held.tensor) if isinstance(held, LazyValues) else held
    return None


def held_by_constant_node(node: gs.Node) -> NDArray[np.generic] | LazyValues | None:
    """The values of a Constant node, in whichever attribute they are; None for a sparse one."""
    for name, value in node.attrs.items():
        match name:
            case "value":
                held: NDArray[np.generic] | LazyValues = value._values
                return held
            case "value_float" | "value_floats":
                return np.asarray(value, np.float32)
            case "value_int" | "value_ints":
                return np.asarray(value, np.int64)
            case "value_string" | "value_strings" if not isinstance(value, AttributeProto):
                return np.asarray(value, object)
    return None


class _Export:
    """Writes one GraphSurgeon graph, with its subgraphs, as protobuf."""

    def __init__(self, graph: gs.Graph, like: ModelProto) -> None:
        self.opset = {entry.domain: entry.version for entry in graph.import_domains}
        self.ir_version = like.ir_version
        protos = list(graphs_of(like.graph))
        self.declared: dict[str, ValueInfoProto] = {
            value.name: value
            for proto in reversed(protos)
            for value in (*proto.value_info, *proto.output, *proto.input)
            if value.type.WhichOneof("value") not in {None, "tensor_type"}
        }
        self.constant_inputs = {value.name: value for value in like.graph.input}
        self.constant_outputs: dict[str, ValueInfoProto] = {value.name: value for value in like.graph.output}
        self.main_constants = _constants_of_main(graph, {tensor.name for tensor in like.graph.initializer})
        self.in_main = {id(tensor) for tensor in self.main_constants}

    def graph(self, graph: gs.Graph, proto: GraphProto, *, nested: bool) -> None:
        proto.name = graph.name
        for node in in_order(graph):
            self.node(node, proto.node.add())
        constants = _constants(graph)
        if nested:
            constants = [tensor for tensor in constants if id(tensor) not in self.in_main]
        else:
            constants = self.main_constants
        for tensor in constants:
            self.constant(tensor, proto)
        proto.input.extend(self.value(tensor) for tensor in graph.inputs)
        proto.output.extend(self.value(tensor) for tensor in graph.outputs)
        if not nested:
            self.constants_as_inputs(proto)
        named = {value.name for value in (*proto.input, *proto.output)}
        for tensor in _produced(graph):
            known = tensor.dtype is not None or tensor.name in self.declared
            if isinstance(tensor, gs.Variable) and known and tensor.name not in named:
                named.add(tensor.name)
                proto.value_info.append(self.value(tensor))

    def constants_as_inputs(self, proto: GraphProto) -> None:
        """IR versions below 4 want every initialiser listed as an input too."""
        named = {value.name for value in proto.input}
        for tensor in proto.initializer:
            if tensor.name in named:
                continue
            if tensor.name in self.constant_inputs:
                proto.input.append(self.constant_inputs[tensor.name])
            elif self.ir_version < 4:
                proto.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    def node(self, node: gs.Node, proto: NodeProto) -> None:
        proto.op_type, proto.name, proto.domain = node.op, node.name or "", node.domain or ""
        proto.input.extend(tensor.name for tensor in node.inputs)
        proto.output.extend(tensor.name for tensor in node.outputs)
        for name, value in node.attrs.items():
            self.attribute(node, name, value, proto.attribute.add())

    def attribute(self, node: gs.Node, name: str, value: Any, proto: AttributeProto) -> None:
        if isinstance(value, AttributeProto):
            proto.CopyFrom(value)
        elif isinstance(value, gs.Graph):
            proto.type = AttributeProto.GRAPH
            self.graph(value, proto.g, nested=True)
        elif isinstance(value, (gs.Constant, np.ndarray)):
            proto.type = AttributeProto.TENSOR
            proto.t.CopyFrom(tensor_from_constant(value))
        else:
            wanted = _attribute_type(node.op, node.domain or "", self.opset.get(node.domain or "", 1), name)
            proto.CopyFrom(onnx.helper.make_attribute(name, _plain(value, wanted), attr_type=wanted))
        proto.name = name

    def constant(self, tensor: gs.Constant, proto: GraphProto) -> None:
        if isinstance(tensor._values, SparseValues):
            proto.sparse_initializer.append(tensor._values.tensor)
        else:
            proto.initializer.append(tensor_from_constant(tensor))

    def value(self, tensor: gs.Tensor) -> ValueInfoProto:
        if tensor.name in self.declared:
            return self.declared[tensor.name]
        if isinstance(tensor, gs.Constant):
            if tensor.name in self.constant_outputs:
                return self.constant_outputs[tensor.name]
            data_type = tensor_from_constant(tensor).data_type
            return onnx.helper.make_tensor_value_info(tensor.name, data_type, tensor.shape)
        if tensor.dtype is None:
            return ValueInfoProto(name=tensor.name)
        return onnx.helper.make_tensor_value_info(tensor.name, onnx_dtype(tensor.dtype), tensor.shape)


def tensor_from_constant(constant: gs.Constant | NDArray[np.generic]) -> TensorProto:
    """The constant as protobuf; data that came from a model is copied as it was stored."""
    if isinstance(constant, np.ndarray):
        return onnx.numpy_helper.from_array(constant)
    held = constant._values
    if isinstance(held, LazyValues):
        tensor = TensorProto()
        tensor.CopyFrom(held.tensor)
        tensor.name = constant.name
        return tensor
    wanted = onnx_dtype(constant.export_dtype)
    array = np.asarray(held)
    if onnx_dtype(array.dtype) != wanted:
        array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(wanted))
    return onnx.numpy_helper.from_array(array, constant.name)


def constant_type(constant: gs.Constant) -> int:
    """The ONNX element type of a constant, without loading its values."""
    held = constant._values
    if isinstance(held, LazyValues):
        return int(held.tensor.data_type)
    if isinstance(held, SparseValues):
        return int(held.tensor.values.data_type)
    return onnx_dtype(constant.export_dtype)


def onnx_dtype(dtype: Any) -> int:
    """The ONNX element type of what GraphSurgeon calls a dtype: a NumPy dtype or already ONNX's number."""
    return dtype if isinstance(dtype, int) else int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


_OddAttributes = dict[tuple[int, int], dict[str, AttributeProto]]


def _with_odd_attributes_aside(model: ModelProto) -> tuple[ModelProto, _OddAttributes]:
    """The model without the attributes the importer drops or fails on, and these by (graph, depth first; node)."""
    odd: _OddAttributes = {}
    for depth_first, graph in enumerate(graphs_of(model.graph)):
        for position, node in enumerate(graph.node):
            found = {attribute.name: attribute for attribute in node.attribute if _is_odd(node, attribute)}
            if found:
                odd[depth_first, position] = found
    if not odd:
        return model, odd
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in all_nodes(copy):
        kept = [attribute for attribute in node.attribute if not _is_odd(node, attribute)]
        if len(kept) != len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)
    return copy, odd


def _is_odd(node: NodeProto, attribute: AttributeProto) -> bool:
    if attribute.type not in _HELD_BY_GRAPHSURGEON or not all(map(_is_text, (attribute.s, *attribute.strings))):
        return True
    # An empty list forgets what it is a list of; operators with a schema know it.
    empty = attribute.type in _LISTS and not (attribute.ints or attribute.floats or attribute.strings)
    return empty and node.domain not in STANDARD_DOMAINS


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _constants_of_main(graph: gs.Graph, names: set[str]) -> list[gs.Constant]:
    """What the main graph stores: what it reads itself, what it stored before, what several subgraphs read."""
    found: dict[int, gs.Constant] = {id(tensor): tensor for tensor in _constants(graph)}
    readers: dict[int, int] = {}
    for inner in list(every_graph(graph))[1:]:
        for tensor in _constants(inner):
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
            if readers[id(tensor)] > 1 or tensor.name in names:
                found.setdefault(id(tensor), tensor)
    return list(found.values())


def _constants(graph: gs.Graph) -> list[gs.Constant]:
    found: dict[int, gs.Constant] = {}
    for node in graph.nodes:
        found.update((id(tensor), tensor) for tensor in node.inputs if isinstance(tensor, gs.Constant))
    found.update((id(tensor), tensor) for tensor in graph.outputs if isinstance(tensor, gs.Constant))
    return list(found.values())


def _produced(graph: gs.Graph) -> Iterator[gs.Tensor]:
    for node in graph.nodes:
        yield from (tensor for tensor in node.outputs if tensor.name)


def _every_node(graph: gs.Graph) -> Iterator[gs.Node]:
    for inner in every_graph(graph):
        yield from inner.nodes


@lru_cache(maxsize=4096)
def _attribute_type(op_type: str, domain: str, version: int, name: str) -> int | None:
    """The type the operator's schema gives the attribute; None where the schema is unknown."""
    if not onnx.defs.has(op_type, version, domain):
        return None
    attribute = onnx.defs.get_schema(op_type, version, domain).attributes.get(name)
    return None if attribute is None else int(attribute.type.value)  # type: ignore[attr-defined]


def _plain(value: Any, wanted: int | None) -> Any:
    """Passes write `alpha=1` or `np.int64(2)` where ONNX wants a float or a plain integer."""
    if isinstance(value, np.generic):
        value = value.item()
    if wanted == AttributeProto.FLOAT and isinstance(value, int):
        return float(value)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_plain(item, AttributeProto.FLOAT if wanted == AttributeProto.FLOATS else None) for item in value]
    return value
