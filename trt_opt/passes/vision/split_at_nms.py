"""Cutting a model in two where its NonMaxSuppression begins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.index import captured_names
from trt_opt.graph.query import all_nodes
from trt_opt.graph.tensors import model_without_graph, subgraphs_of
from trt_opt.graph.types import inferred_types
from trt_opt.values.tensors import TensorSpec

OPERATOR = "NonMaxSuppression"


def has_nms(model: ModelProto) -> bool:
    """Whether the model holds a NonMaxSuppression, nested graphs included."""
    return any(node.op_type == OPERATOR for node in all_nodes(model))


def split_at_nms(model: ModelProto) -> tuple[ModelProto, ModelProto]:
    """The part of the model that TensorRT runs, and the tail for ONNX Runtime: NonMaxSuppression and all that needs it.

    With `first = engine(inputs)` and `rest = tail(inputs | first)`, `first | rest` holds every output of the model.

    Args:
        model: Is not edited.

    Returns:
        The engine's part: the model's own inputs; its outputs are those of the model that need no NonMaxSuppression,
        and everything the tail reads. The tail: its outputs are the rest of the model's; it reads outputs of the
        engine's part and, where it needs them, the model's inputs. Constants that both read are in both.

    Raises:
        UnsupportedModelError: There is no NonMaxSuppression, nothing is left before it, or a
            tensor that is cut has no type that can be told.
    """
    tail_nodes = _dependent(model)
    if not tail_nodes:
        raise UnsupportedModelError(f"there is no {OPERATOR} to split the model at")
    made_in_tail = {name for node in tail_nodes for name in node.output if name}
    engine_nodes = [node for node in model.graph.node if not made_in_tail.intersection(node.output)]
    constants = [node for node in engine_nodes if node.op_type == "Constant"]
    read = _names_read(tail_nodes)
    copied = [node for node in constants if read.intersection(node.output)]
    given = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    made_by_copies = {name for node in copied for name in node.output}
    cut = [name for node in engine_nodes for name in node.output if name in read and name not in made_by_copies]
    values = _values(model, cut)
    own = [value for value in model.graph.output if value.name not in made_in_tail]
    crossing = [values[name] for name in cut]
    listed = {value.name for value in own}
    engine_outputs = [*own, *(value for value in crossing if value.name not in listed)]
    if not engine_outputs:
        raise UnsupportedModelError(f"nothing is left to run before {OPERATOR}")
    engine = _part(model, engine_nodes, list(model.graph.input), engine_outputs)
    tail_inputs = [*crossing, *(value for value in model.graph.input if value.name in given & read)]
    rest = [value for value in model.graph.output if value.name in made_in_tail]
    return engine, _part(model, [*copied, *tail_nodes], tail_inputs, rest)


def _dependent(model: ModelProto) -> list[NodeProto]:
    """NonMaxSuppression, the nodes with one in their subgraphs, and all that read what these make."""
    made: set[str] = set()
    found = []
    for node in model.graph.node:
        if _holds_suppression(node) or made.intersection(_names_read((node,))):
            found.append(node)
            made.update(name for name in node.output if name)
    return found


def _holds_suppression(node: NodeProto) -> bool:
    inner = (each for graph in subgraphs_of(node) for each in graph.node)
    return node.op_type == OPERATOR or any(_holds_suppression(each) for each in inner)


def _names_read(nodes: Iterable[NodeProto]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        names.update(name for name in node.input if name)
        names |= captured_names(node)
    return names


def _values(model: ModelProto, names: Sequence[str]) -> dict[str, ValueInfoProto]:
    types = inferred_types(model)[0] if names else {}
    declared = {value.name: value for value in model.graph.output}
    found = {}
    for name in names:
        if name in declared:
            found[name] = declared[name]
        elif name in types:
            found[name] = _value(types[name])
        else:
            raise UnsupportedModelError(
                f"the type of {name!r}, which {OPERATOR} or a node behind it reads, cannot be told",
                hint="fix the shapes of the model's inputs",
            )
    return found


def _value(spec: TensorSpec) -> ValueInfoProto:
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    data_type = TensorProto.DataType.Value(names.get(spec.dtype, spec.dtype.upper()))
    # A symbol that inference made up has no meaning outside, and "?" is none.
    shape = None if spec.shape is None else [size if isinstance(size, int) else None for size in spec.shape]
    return onnx.helper.make_tensor_value_info(spec.name, data_type, shape)


def _part(
    model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> ModelProto:
    """These nodes as a model, with the initialisers that they read or give."""
    part = model_without_graph(model)
    part.graph.name = model.graph.name
    part.graph.node.extend(nodes)
    part.graph.input.extend(inputs)
    part.graph.output.extend(outputs)
    wanted = _names_read(nodes) | {value.name for value in outputs}
    _copy_named(model, part, wanted)
    return part


def _copy_named(model: ModelProto, part: ModelProto, wanted: Collection[str]) -> None:
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in wanted)
    part.graph.sparse_initializer.extend(
        tensor for tensor in model.graph.sparse_initializer if tensor.values.name in wanted
    )
