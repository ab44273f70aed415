"""What can be computed now is not computed at run time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import AttributeProto
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from trt_opt.graph.edit import every_graph, in_order, remove_nodes
from trt_opt.graph.query import value_types
from trt_opt.graph.surgeon import held_by_constant_node
from trt_opt.graph.tensors import tensor_bytes
from trt_opt.passes.base import GraphEdit, GraphPass
from trt_opt.passes.clean_up.evaluation import evaluate, model_of
from trt_opt.values.tensors import TensorSpec

LARGEST_NEW_CONSTANT_BYTES = 1 << 20
"""A result above this is kept as nodes unless it takes no more bytes than what it is computed from."""

MEMORY_BUDGET_BYTES = 512 << 20
"""All results of one run of the pass together, so that a chain of doublings ends somewhere."""

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_NOT_TENSORS = frozenset(
    {"Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap"}
    | {"SplitToSequence", "OptionalGetElement", "OptionalHasElement"}
)
_BOUNDED_BY_INPUTS = frozenset({"Compress", "NonZero", "Unique"})
"""The size of the result depends on the data, but is at most rank INT64 numbers per element of the inputs."""

_INT64_BYTES = 8
_MAX_RANK = 8
_STRING_BYTES = 64
_UNFOLDABLE = -1

_FOLDABLE_TYPES = frozenset(
    {"float16", "float32", "float64", "bool", "string"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


class FoldConstants(GraphPass):
    """Replaces what depends on constants alone by its value.

    What it does: Nodes whose inputs are all constants are computed, all at once, by ONNX Runtime on the CPU, and
    replaced by initialisers; so are Shape and Size of tensors whose shape follows from the graph's inputs (with
    Shape's start and end). Constant nodes become initialisers.

    Why TensorRT wants it: Many inputs, such as the axes of a reduction or the shape of a Reshape, must be build-time
    constants, and its parser does not compute them from everything ONNX allows. What is left in the graph is also
    parsed, checked and fused node by node.

    Example: Reshape(x, Concat(Gather(Shape(y), 0), [-1])) with y of shape [4, 8] becomes Reshape(x, [4, -1]).

    When it declines: Random operators; QuantizeLinear and DequantizeLinear, which carry the precision asked for;
    results larger than 1 MiB and than their inputs (a Tile or Expand would blow up the file); results whose size cannot
    be told beforehand; types ONNX Runtime cannot return (bfloat16, FP8, INT4, sequences); results that are graph
    outputs; If and Loop.
    """

    name = "fold_constants"

    def apply(self, edit: GraphEdit) -> None:
        """Outer graphs first: what they fold is a constant for the graphs nested in them."""
        budget = _Budget()
        for graph in every_graph(edit.graph):
            _move_constant_nodes(graph, edit)
            _fold_shapes(graph, edit)
            while _fold_batch(graph, edit, budget):
                pass


class _Budget:
    """What one run of the pass may still compute, and what it need not look at again."""

    def __init__(self) -> None:
        self.left = MEMORY_BUDGET_BYTES
        self.refused: set[int] = set()

    def refuse(self, node: gs.Node, why: str, edit: GraphEdit) -> None:
        self.refused.add(id(node))
        edit.declined(node, why)


def _move_constant_nodes(graph: gs.Graph, edit: GraphEdit) -> None:
    moved = []
    for node in graph.nodes:
        if node.op != "Constant" or node.domain or edit.is_graph_output(node.outputs[0]):
            continue
        value = held_by_constant_node(node)
        if value is None:
            edit.declined(node, "a sparse constant stays as it is")
            continue
        _become_constant(node.outputs[0], value)
        moved.append(node)
        edit.changed(node, "Constant moved to the initialisers")
    remove_nodes(graph, moved)


def _fold_shapes(graph: gs.Graph, edit: GraphEdit) -> None:
    folded = []
    for node in graph.nodes:
        if node.op not in {"Shape", "Size"} or node.domain or edit.is_graph_output(node.outputs[0]):
            continue
        shape = edit.shape(node.inputs[0])
        if shape is None:
            continue
        # The specification clamps start and end like a Python slice, except that an end left out is the rank.
        asked = shape if node.op == "Size" else shape[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
        sizes = [size for size in asked if size is not None]
        if len(sizes) < len(asked):
            continue
        value = np.asarray(int(np.prod(sizes, dtype=np.int64)) if node.op == "Size" else sizes, np.int64)
        _become_constant(node.outputs[0], value)
        folded.append(node)
        edit.changed(node, f"{node.op} folded to {value.tolist()}")
    remove_nodes(graph, folded)


def _fold_batch(graph: gs.Graph, edit: GraphEdit, budget: _Budget) -> bool:
    """Folds what has a known, acceptable size; what that makes constant may tell the size of more."""
    nodes = _of_acceptable_size(_constant_nodes(graph, edit, budget), edit, budget)
    if not nodes:
        return False
    inside = {id(node) for node in nodes}
    made = [tensor for node in nodes for tensor in node.outputs if tensor.name]
    wanted = [tensor for tensor in made if any(id(reader) not in inside for reader in tensor.outputs)]
    values, failures = evaluate(nodes, wanted, edit.model)
    for node in nodes:
        if id(node) in failures:
            budget.refuse(node, failures[id(node)], edit)
        else:
            edit.changed(node, f"{node.op} folded")
    for tensor in made:
        if id(tensor) in values:
            _become_constant(tensor, values[id(tensor)])
    remove_nodes(graph, [node for node in nodes if id(node) not in failures])
    return True


def _constant_nodes(graph: gs.Graph, edit: GraphEdit, budget: _Budget) -> list[gs.Node]:
    """The nodes that could be computed now, in order; those among them that shall not be are declined."""
    found: list[gs.Node] = []
    computable: set[int] = set()
    for node in in_order(graph):
        if id(node) in budget.refused or not _is_computable(node, computable):
            continue
        reason = _why_kept(node, edit)
        if reason:
            budget.refuse(node, reason, edit)
            continue
        found.append(node)
        computable.update(id(tensor) for tensor in node.outputs)
    return found


def _is_computable(node: gs.Node, computable: set[int]) -> bool:
    if node.domain not in {None, "", "ai.onnx"} or node.op == "Constant":
        return False
    if any(isinstance(value, (gs.Graph, AttributeProto)) for value in node.attrs.values()):
        return False
    return all(not tensor.name or id(tensor) in computable or _is_dense_constant(tensor) for tensor in node.inputs)


def _is_dense_constant(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and not isinstance(tensor._values, SparseValues)


def _why_kept(node: gs.Node, edit: GraphEdit) -> str:
    if node.op in _RANDOM or (node.op == "Dropout" and len(node.inputs) > 2):
        return "its result is random"
    if node.op in _QUANTIZING:
        return "it carries the precision that was asked for"
    if node.op in _NOT_TENSORS:
        return "its result is not a tensor"
    if any(edit.is_graph_output(tensor) for tensor in node.outputs):
        return "its result is a graph output"
    return ""


def _of_acceptable_size(nodes: Sequence[gs.Node], edit: GraphEdit, budget: _Budget) -> list[gs.Node]:
    """Those whose results are small enough. Where the size is not yet known but may be later, a node is passed over."""
    if not nodes:
        return []
    types = value_types(model_of(nodes, (), {}, edit.model))
    accepted: list[gs.Node] = []
    sizes: dict[int, int] = {}
    passed_over: set[int] = set()
    for node in nodes:
        if any(id(tensor) in passed_over for tensor in node.inputs):
            passed_over.update(id(tensor) for tensor in node.outputs)
            continue
        made = [tensor for tensor in node.outputs if tensor.name]
        read = {id(tensor): _bytes_of(tensor, sizes) for tensor in node.inputs if tensor.name}
        result = [_bytes_of_type(types.get(tensor.name)) for tensor in made]
        if None in result and node.op in _BOUNDED_BY_INPUTS:
            result = [_INT64_BYTES * _MAX_RANK * sum(read.values())] * len(made)
        reason = _why_too_large(result, sum(read.values()), budget)
        if not reason:
            sizes.update((id(tensor), size or 0) for tensor, size in zip(made, result, strict=True))
            accepted.append(node)
            continue
        passed_over.update(id(tensor) for tensor in node.outputs)
        later = None in result and any(id(tensor) in sizes for tensor in node.inputs)
        if not later:
            budget.refuse(node, reason, edit)
    return accepted


def _why_too_large(result: Sequence[int | None], read: int, budget: _Budget) -> str:
    total = 0
    for size in result:
        if size is None:
            return "the size or type of its result cannot be told beforehand"
        if size == _UNFOLDABLE:
            return "ONNX Runtime cannot return the type of its result"
        total += size
    if total > max(LARGEST_NEW_CONSTANT_BYTES, read):
        return f"its result takes {total} bytes, what it is computed from {read}"
    if total > budget.left:
        return f"the constants folded so far take {MEMORY_BUDGET_BYTES - budget.left} bytes already"
    budget.left -= total
    return ""


def _bytes_of(tensor: gs.Tensor, sizes: dict[int, int]) -> int:
    if id(tensor) in sizes:
        return sizes[id(tensor)]
    held = tensor._values
    return tensor_bytes(held.tensor) if isinstance(held, LazyValues) else int(np.asarray(held).nbytes)


def _bytes_of_type(spec: TensorSpec | None) -> int | None:
    """Bytes of a value of this type; None where its shape or type is unknown, _UNFOLDABLE where it cannot be held."""
    if spec is None or spec.dtype == "undefined":
        return None
    if spec.dtype not in _FOLDABLE_TYPES:
        return _UNFOLDABLE
    if spec.shape is None:
        return None
    total = _STRING_BYTES if spec.dtype == "string" else np.dtype(spec.dtype).itemsize
    for size in spec.shape:
        if not isinstance(size, int):
            return None
        total *= size
    return total


def _become_constant(tensor: gs.Variable, values: NDArray[np.generic] | LazyValues) -> None:
    tensor.to_constant(values if isinstance(values, LazyValues) else np.asarray(values))
