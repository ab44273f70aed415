"""Questions about a model that need no run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.inference import inferred
from trt_opt.graph.tensors import graphs_of, subgraphs_of, without_large_tensors
from trt_opt.values.tensors import TensorSpec

STANDARD_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "ai.onnx.preview"}
)
"""The domains whose operators ONNX itself defines; "ai.onnx" is another spelling of ""."""


PAIR_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""What a quantised tensor goes through."""


def graph_inputs(model: ModelProto) -> tuple[TensorSpec, ...]:
    """The inputs a caller has to feed, in order; initialisers that are listed as inputs too are left out."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return tuple(spec_of(value) for value in model.graph.input if value.name not in constants)


def graph_outputs(model: ModelProto) -> tuple[TensorSpec, ...]:
    """The outputs, in order."""
    return tuple(spec_of(value) for value in model.graph.output)


def spec_of(value: ValueInfoProto) -> TensorSpec:
    """Name, element type and shape of a value; sequences and optionals read "sequence(float32)", with no shape."""
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        return TensorSpec(value.name, dtype_name(value.type.tensor_type.elem_type), _shape_of(value.type))
    return TensorSpec(value.name, _type_name(value.type), None)


def dtype_name(data_type: int) -> str:
    """NumPy's name of an ONNX element type, or onnx's own for types NumPy lacks ("bfloat16", "float8e4m3fn")."""
    if data_type == TensorProto.UNDEFINED:
        return "undefined"
    name = str(TensorProto.DataType.Name(data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def opset(model: ModelProto) -> int:
    """The version of the standard operator set.

    Raises:
        UnsupportedModelError: The model imports custom operators only.
    """
    found = opset_or_none(model)
    if found is not None:
        return found
    raise UnsupportedModelError(
        "the model imports no standard ONNX operator set", hint="export it with standard ONNX operators"
    )


def opset_or_none(model: ModelProto) -> int | None:
    """The version of the standard operator set; None where the model imports others alone."""
    versions = (int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    return next(versions, None)


def infer_shapes(model: ModelProto) -> ModelProto:
    """A copy of the model with the shapes of inner tensors filled in as far as ONNX can tell; never fails on them."""
    types = inferred(without_large_tensors(model))
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    result.graph.value_info.extend(types.graph.value_info)
    return result


def value_types(model: ModelProto) -> dict[str, TensorSpec]:
    """Every named value of the main graph whose type is known after shape inference: name → type and shape."""
    types = inferred(without_large_tensors(model)).graph
    known = {value.name: spec_of(value) for value in (*types.value_info, *types.input, *types.output)}
    for tensor in model.graph.initializer:
        known[tensor.name] = TensorSpec(tensor.name, dtype_name(tensor.data_type), tuple(tensor.dims))
    return known


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """The nodes of the graph and of everything nested in it; bodies of model-local functions are left out."""
    for graph in graphs_of(model.graph):
        yield from graph.node


def nodes_with_subgraphs(model: ModelProto) -> Iterator[tuple[NodeProto, tuple[GraphProto, ...]]]:
    """Every node that carries graphs (If, Loop, Scan …), at any depth, with these graphs."""
    for node in all_nodes(model):
        graphs = tuple(subgraphs_of(node))
        if graphs:
            yield node, graphs


def node_label(node: NodeProto) -> str:
    """What users can find the node by: its name, or its first named output, or its operator."""
    return node.name or next(filter(None, node.output), "") or node.op_type


def count_nodes(model: ModelProto) -> int:
    """How many nodes the model has, subgraphs included."""
    return sum(1 for _ in all_nodes(model))


def count_operators(model: ModelProto) -> Counter[str]:
    """Operator → how often it occurs, subgraphs included; custom ones as "domain::Operator"."""
    return Counter(_operator(node) for node in all_nodes(model))


def count_parameters(model: ModelProto) -> int:
    """How many numbers the initialisers hold, subgraphs included."""
    total = 0
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            elements = 1
            for size in tensor.dims:
                elements *= size
            total += elements
    return total


def custom_domain_nodes(model: ModelProto) -> tuple[NodeProto, ...]:
    """The nodes whose operator ONNX does not define and no function of the model does either."""
    local = {(function.domain, function.name) for function in model.functions}
    return tuple(
        node
        for node in all_nodes(model)
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in local
    )


def unknown_nodes(model: ModelProto) -> tuple[NodeProto, ...]:
    """The nodes that claim a standard domain but name an operator this opset does not have."""
    versions = {_domain(entry.domain): entry.version for entry in model.opset_import}
    local = {(function.domain, function.name) for function in model.functions}
    known: dict[tuple[str, str], bool] = {}

    def is_known(node: NodeProto) -> bool:
        key = (_domain(node.domain), node.op_type)
        if key not in known:
            known[key] = key in local or onnx.defs.has(node.op_type, versions.get(key[0], 1), key[0])
        return known[key]

    return tuple(node for node in all_nodes(model) if node.domain in STANDARD_DOMAINS and not is_known(node))


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _operator(node: NodeProto) -> str:
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}::{node.op_type}"


def _shape_of(kind: TypeProto) -> tuple[int | str, ...] | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_size(dimension) for dimension in kind.tensor_type.shape.dim)


def _size(dimension: onnx.TensorShapeProto.Dimension) -> int | str:
    if dimension.HasField("dim_value") and dimension.dim_value >= 0:
        return int(dimension.dim_value)
    return str(dimension.dim_param) or "?"


def _type_name(kind: TypeProto) -> str:
    match kind.WhichOneof("value"):
        case "tensor_type":
            return dtype_name(kind.tensor_type.elem_type)
        case "sparse_tensor_type":
            return f"sparse({dtype_name(kind.sparse_tensor_type.elem_type)})"
        case "sequence_type":
            return f"sequence({_type_name(kind.sequence_type.elem_type)})"
        case "optional_type":
            return f"optional({_type_name(kind.optional_type.elem_type)})"
        case "map_type":
            return f"map({dtype_name(kind.map_type.key_type)}, {_type_name(kind.map_type.value_type)})"
        case _:
            return "undefined"
