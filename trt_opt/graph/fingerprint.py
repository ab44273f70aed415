"""A model's identity: a hash of what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from trt_opt.errors import ModelFileError
from trt_opt.graph.tensors import raw_bytes


def fingerprint(model: ModelProto) -> str:
    """The sha256, in hex, of everything that decides what the model computes and what its tensors are called.

    Opsets, functions, nodes with inputs, outputs and attributes, the graph's inputs and outputs with their types, and
    the constants' values count. Node names, doc strings, metadata, producer, IR version, value_info, the order of
    initialisers and attributes, and the field or file a constant is stored in do not.

    Raises:
        ModelFileError: A constant's data is still in an external file: read the model with `load_model`.
    """
    digest = _Digest()
    digest.add("opsets", *sorted(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import))
    for function in sorted(model.functions, key=lambda entry: (entry.domain, entry.name, entry.overload)):
        digest.function(function)
    digest.graph(model.graph)
    return digest.sha256.hexdigest()


class _Digest:
    """Feeds sha256 with length-prefixed parts, so that no two different models read the same."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def add(self, *parts: str | bytes) -> None:
        self.sha256.update(len(parts).to_bytes(8, "little"))
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            self.sha256.update(len(data).to_bytes(8, "little"))
            self.sha256.update(data)

    def graph(self, graph: GraphProto) -> None:
        self.add("graph")
        constants = {tensor.name for tensor in graph.initializer}
        for kind, values in (("input", graph.input), ("output", graph.output)):
            for value in values:
                if not (kind == "input" and value.name in constants):
                    self.add(kind, value.name, value.type.SerializeToString(deterministic=True))
        for tensor in sorted(graph.initializer, key=lambda entry: entry.name):
            self.tensor(tensor)
        for sparse in sorted(graph.sparse_initializer, key=lambda entry: entry.values.name):
            self.sparse(sparse)
        self.nodes(graph.node)

    def function(self, function: FunctionProto) -> None:
        self.add("function", function.domain, function.name, function.overload)
        self.add("inputs", *function.input)
        self.add("outputs", *function.output)
        self.add("attributes", *sorted(function.attribute))
        self.attributes(function.attribute_proto)
        self.add("opsets", *sorted(f"{entry.domain} {entry.version}" for entry in function.opset_import))
        self.nodes(function.node)

    def nodes(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            self.add("node", node.domain if node.domain != "ai.onnx" else "", node.op_type, node.overload)
            self.add("inputs", *node.input)
            self.add("outputs", *node.output)
            self.attributes(node.attribute)

    def attributes(self, attributes: Iterable[AttributeProto]) -> None:
        for attribute in sorted(attributes, key=lambda entry: entry.name):
            self.add("attribute", attribute.name, str(attribute.type), attribute.ref_attr_name)
            match attribute.type:
                case AttributeProto.TENSOR:
                    self.tensor(attribute.t, named=False)
                case AttributeProto.TENSORS:
                    for tensor in attribute.tensors:
                        self.tensor(tensor, named=False)
                case AttributeProto.SPARSE_TENSOR:
                    self.sparse(attribute.sparse_tensor)
                case AttributeProto.GRAPH:
                    self.graph(attribute.g)
                case AttributeProto.GRAPHS:
                    for graph in attribute.graphs:
                        self.graph(graph)
                case _:
                    plain = AttributeProto()
                    plain.CopyFrom(attribute)
                    plain.ClearField("doc_string")
                    self.add(plain.SerializeToString(deterministic=True))

    def sparse(self, tensor: SparseTensorProto) -> None:
        self.add("sparse", str(list(tensor.dims)))
        self.tensor(tensor.values)
        self.tensor(tensor.indices)

    def tensor(self, tensor: TensorProto, *, named: bool = True) -> None:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelFileError(
                "its values are still in an external file", where=tensor.name, hint="read the model with load_model"
            )
        self.add("tensor", tensor.name if named else "", str(tensor.data_type), str(list(tensor.dims)))
        if tensor.data_type == TensorProto.STRING:
            self.add(*tensor.string_data)
        else:
            self.add(raw_bytes(tensor))
