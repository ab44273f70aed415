"""The nodes that a function stands for, written for one call of it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TypeProto

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.names import fresh_name
from trt_opt.graph.opset import converted_to_opset
from trt_opt.graph.tensors import subgraphs_of
from trt_opt.passes.node_pass import DeclinedError
from trt_opt.values.tensors import TensorSpec

_REDEFINED = {
    "GridSample": 20,
    "GroupNormalization": 21,
    "Hardmax": 13,
    "LogSoftmax": 13,
    "Resize": 11,
    "Scan": 9,
    "Softmax": 13,
    "Split": 18,
}
"""Operators whose nodes mean something else, or nothing, from this opset on, though their signature still fits."""

_ONNX_NAMES = {"float32": "FLOAT", "float64": "DOUBLE"}

_SCHEMA_ERRORS = (RuntimeError, ValueError, TypeError, onnx.shape_inference.InferenceError)

FunctionKey = tuple[str, str, str]
"""Domain, name and overload."""

Types = Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Surroundings:
    """What a call of a function is written into.

    Attributes:
        opsets: Domain → version, of the model; ONNX's own domain is "".
        functions: The model's own functions.
        tensor_names: Every tensor name in use; new ones are added.
        node_names: Every node name in use; new ones are added.
    """

    opsets: dict[str, int]
    functions: Mapping[FunctionKey, FunctionProto]
    tensor_names: set[str]
    node_names: set[str]


def domain_of(name: str) -> str:
    """ONNX's own domain has two spellings; this is the shorter."""
    return "" if name == "ai.onnx" else name


def function_key(node: NodeProto) -> FunctionKey:
    """What a call finds its function by."""
    return node.domain, node.op_type, node.overload


def has_body(node: NodeProto, around: Surroundings) -> bool:
    """Whether the node calls a function of the model, or an operator that ONNX itself writes as a function."""
    if function_key(node) in around.functions:
        return True
    schema = _schema(node, around.opsets)
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


def nodes_instead(node: NodeProto, types: Types, around: Surroundings) -> list[NodeProto]:
    """The function's nodes, in order, reading and writing the tensors of this call.

    Inputs and outputs that the call leaves out are left out in the body, with the nodes that made the outputs; all
    inner tensors and nodes get new names, attributes the call's values.

    Args:
        node: The call.
        types: The types of the tensors it reads, where known.
        around: The model; names in use and imported domains are added to.

    Raises:
        DeclinedError: There is no body, or it cannot be written in the model's opset.
    """
    function = around.functions.get(function_key(node)) or _function_of_schema(node, types, around.opsets)
    attributes = _attributes_of_call(node, function, around.opsets)
    body = [_with_attributes(inner, attributes) for inner in function.node]
    present = {name for name, given in zip(function.output, node.output, strict=False) if given}
    body = _in_opsets_of_model(_live(body, present), function, node, types, around)
    names = _tensor_names(node, function, body, around.tensor_names)
    base = node.name or next(filter(None, node.output), node.op_type)
    made = [_renamed(inner, ChainMap(names), base, around) for inner in body]
    _check_required_inputs(made, around.opsets)
    for inside, given in zip(function.output, node.output, strict=False):
        if given and names[inside] != given:
            made.append(onnx.helper.make_node("Identity", [names[inside]], [given], name=_node_name(base, around)))
    return made


def _node_name(base: str, around: Surroundings, of: str = "Identity") -> str:
    return fresh_name(f"{base}/{of}", around.node_names)


def _schema(node: NodeProto, opsets: Mapping[str, int]) -> Any:
    """The operator's schema, None where there is none; onnx's type stubs lack its function bodies."""
    version = opsets.get(domain_of(node.domain))
    if version is None or not onnx.defs.has(node.op_type, version, domain_of(node.domain)):
        return None
    return onnx.defs.get_schema(node.op_type, version, domain_of(node.domain))


def _function_of_schema(node: NodeProto, types: Types, opsets: Mapping[str, int]) -> FunctionProto:
    """ONNX's own body of the operator, the newest that the model's opset allows."""
    schema = _schema(node, opsets)
    if schema is None:
        raise DeclinedError(f"{node.op_type} is not an operator of the model's opset")
    version = opsets[domain_of(node.domain)]
    fixed = [known for known in schema.function_opset_versions if known <= version]
    by_context = [known for known in schema.context_dependent_function_opset_versions if known <= version]
    try:
        if fixed:
            held = schema.get_function_with_opset_version(max(fixed))
        elif by_context:
            if node.op_type == "SequenceMap":
                # onnx 1.23 dies of a segmentation fault when it is asked for this body.
                raise DeclinedError("a SequenceMap cannot be written out: export the model with a loop over tensors")
            read = [_type_of(types.get(name)).SerializeToString() for name in node.input]
            held = schema.get_context_dependent_function_with_opset_version(
                max(by_context), node.SerializeToString(), read
            )
        else:
            raise DeclinedError(f"ONNX has no function body of {node.op_type} in opset {version}")
    except _SCHEMA_ERRORS as error:
        raise DeclinedError(f"ONNX cannot write {node.op_type} as a function here: {_first_line(error)}") from error
    function = FunctionProto()
    function.ParseFromString(held)
    if not function.node:
        raise DeclinedError(f"ONNX has no function body of {node.op_type} for these inputs")
    return function


def _type_of(spec: TensorSpec | None) -> TypeProto:
    """An empty type where it is unknown, or the input is left out."""
    name = "" if spec is None else _ONNX_NAMES.get(spec.dtype, spec.dtype.upper())
    known = dict(onnx.TensorProto.DataType.items())
    if spec is None or name not in known:
        return TypeProto()
    shape = None if spec.shape is None else [size if size != "?" else None for size in spec.shape]
    return onnx.helper.make_tensor_type_proto(known[name], shape)


def _attributes_of_call(
    node: NodeProto, function: FunctionProto, opsets: Mapping[str, int]
) -> dict[str, AttributeProto]:
    """What the body's references to attributes stand for: defaults, and what the call gives."""
    found = {attribute.name: attribute for attribute in function.attribute_proto}
    schema = None if function.domain not in {"", "ai.onnx"} and function.attribute else _schema(node, opsets)
    if schema is not None:
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                found[name] = attribute.default_value
    found.update((attribute.name, attribute) for attribute in node.attribute)
    return found


def _with_attributes(node: NodeProto, attributes: Mapping[str, AttributeProto]) -> NodeProto:
    """A copy with references to attributes replaced by their values, in nested graphs too; references to none go."""
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in attributes:
                copy.attribute.add().CopyFrom(attributes[attribute.ref_attr_name])
                copy.attribute[-1].name = attribute.name
            continue
        copy.attribute.add().CopyFrom(attribute)
        for graph in (copy.attribute[-1].g, *copy.attribute[-1].graphs) if _holds_graphs(attribute) else ():
            inner = [_with_attributes(nested, attributes) for nested in graph.node]
            del graph.node[:]
            graph.node.extend(inner)
    return copy


def _holds_graphs(attribute: AttributeProto) -> bool:
    return attribute.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}


def _live(nodes: Sequence[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """The nodes that these outputs depend on."""
    needed = set(wanted)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if needed.intersection(filter(None, node.output)):
            needed.update(_read(node))
            kept.append(node)
    return kept[::-1]


def _read(node: NodeProto) -> Iterator[str]:
    """All names a node reads, and those its nested graphs do, their own among them."""
    yield from filter(None, node.input)
    for graph in subgraphs_of(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _read(inner)


def _in_opsets_of_model(
    body: list[NodeProto], function: FunctionProto, call: NodeProto, types: Types, around: Surroundings
) -> list[NodeProto]:
    """The body as the model's versions of its domains want it; domains the model lacks are imported."""
    imported = {domain_of(entry.domain): entry.version for entry in function.opset_import}
    used = {domain_of(node.domain) for node in _all(body)}
    for domain in used & set(imported):
        around.opsets.setdefault(domain, imported[domain])
        if domain and around.opsets[domain] != imported[domain]:
            versions = f"{imported[domain]}, the model {around.opsets[domain]}"
            raise DeclinedError(f"the body of {call.op_type} wants version {versions} of domain {domain!r}")
    before, after = imported.get("", around.opsets.get("", 0)), around.opsets.get("", 0)
    if "" not in used or all(_means_the_same(node, before, after) for node in _all(body) if not node.domain):
        return body
    return _converted(body, function, call, types, after)


def _all(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs_of(node):
            yield from _all(graph.node)


def _means_the_same(node: NodeProto, before: int, after: int) -> bool:
    """Whether a node written for one opset can be read in another as it is."""
    if not onnx.defs.has(node.op_type, before, "") or not onnx.defs.has(node.op_type, after, ""):
        return False
    old, new = (onnx.defs.get_schema(node.op_type, version, "") for version in (before, after))
    if old.since_version == new.since_version:
        return True
    first, last = sorted((old.since_version, new.since_version))
    if first < _REDEFINED.get(node.op_type, 0) <= last or new.deprecated:
        return False
    given = {attribute.name for attribute in node.attribute}
    required = {name for name, attribute in new.attributes.items() if attribute.required}
    fits = new.min_input <= len(node.input) <= new.max_input and len(node.output) <= new.max_output
    return fits and required <= given <= set(new.attributes)


def _converted(
    body: list[NodeProto], function: FunctionProto, call: NodeProto, types: Types, opset: int
) -> list[NodeProto]:
    """The body in another opset, by onnx's own converter."""
    version = next(entry.version for entry in function.opset_import if domain_of(entry.domain) == "")
    given = [(name, read) for name, read in zip(function.input, call.input, strict=False) if read]
    inputs = [onnx.helper.make_value_info(name, _type_of(types.get(read))) for name, read in given]
    wanted = [name for name, made in zip(function.output, call.output, strict=False) if made]
    graph = onnx.helper.make_graph(body, function.name, inputs, [onnx.ValueInfoProto(name=name) for name in wanted])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    try:
        converted = converted_to_opset(onnx.shape_inference.infer_shapes(model), opset)
    except (UnsupportedModelError, *_SCHEMA_ERRORS) as error:
        where = f"its function body is written for opset {version}, and cannot be moved to {opset}"
        raise DeclinedError(f"{where}: {_first_line(error)}") from error
    constants = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in converted.graph.initializer
    ]
    return constants + list(converted.graph.node)


def _tensor_names(
    call: NodeProto, function: FunctionProto, body: Sequence[NodeProto], taken: set[str]
) -> dict[str, str]:
    """Name in the body → name in the model."""
    names: dict[str, str] = {"": ""}
    for position, name in enumerate(function.input):
        names[name] = call.input[position] if position < len(call.input) else ""
    base = call.name or next(filter(None, call.output), call.op_type)
    outputs = {name: given for name, given in zip(function.output, call.output, strict=False) if given}
    for node in body:
        for name in node.output:
            if name and name not in names:
                names[name] = outputs[name] if name in outputs else fresh_name(f"{base}/{name}", taken)
    return names


def _renamed(node: NodeProto, names: ChainMap[str, str], base: str, around: Surroundings) -> NodeProto:
    """The node with the model's names; nested graphs get new names of their own."""
    unknown = next((name for name in node.input if name not in names), None)
    if unknown is not None:
        raise DeclinedError(f"its function body reads {unknown!r}, which it does not make")
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = _node_name(base, around, node.name or node.op_type)
    copy.input[:] = [names[name] for name in node.input]
    copy.output[:] = [names[name] for name in node.output]
    for graph in subgraphs_of(copy):
        _rename_graph(graph, names, base, around)
    return copy


def _rename_graph(graph: GraphProto, outer: ChainMap[str, str], base: str, around: Surroundings) -> None:
    names = outer.new_child({})
    made = [name for node in graph.node for name in node.output if name]
    stored = [tensor.name for tensor in graph.initializer] + [each.values.name for each in graph.sparse_initializer]
    for name in (*(value.name for value in graph.input), *stored, *made):
        names[name] = fresh_name(f"{base}/{name}", around.tensor_names)
    for held in (*graph.input, *graph.output, *graph.initializer, *(each.values for each in graph.sparse_initializer)):
        held.name = names[held.name]
    del graph.value_info[:]
    nodes = [_renamed(node, names, base, around) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _check_required_inputs(nodes: Sequence[NodeProto], opsets: Mapping[str, int]) -> None:
    """A body may read, unasked, an input that this call leaves out."""
    for node in nodes:
        schema = _schema(node, opsets)
        if schema is not None and not all(node.input[: schema.min_input]):
            raise DeclinedError(f"its function body reads an input left out here, by {node.op_type}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
