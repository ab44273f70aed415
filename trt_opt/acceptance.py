"""What a target makes of a model: asked of its real parser and builder, or of a table where they are not here."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Protocol

from onnx import ModelProto, NodeProto

from trt_opt.backends import Backend, backend_for
from trt_opt.errors import MissingError, UnsupportedModelError, WorkerError
from trt_opt.graph.beyond_rank import nodes_beyond_rank
from trt_opt.graph.query import (
    STANDARD_DOMAINS,
    all_nodes,
    graph_inputs,
    graph_outputs,
    node_label,
    unknown_nodes,
)
from trt_opt.graph.save import save_model
from trt_opt.graph.tensors import graphs_of
from trt_opt.graph.twins import twins_of
from trt_opt.graph.types import inferred_types
from trt_opt.passes import REPAIRS
from trt_opt.passes.node_pass import NodePass, operator_of
from trt_opt.values.backend import ParseReport
from trt_opt.values.engine import BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.rewriting import Acceptance
from trt_opt.values.samples import Sample
from trt_opt.values.shapes import ShapeRange, ValueRange
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import Target
from trt_opt.values.tensors import TensorSpec

TYPES_OF_TENSORRT = frozenset(
    {"float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int32", "int64"}
    | {"float8e4m3fn", "float4e2m1", "int4"}
)
"""The element types its networks may have as inputs and outputs (float64 becomes float32)."""

LEFT_TO_THE_BUILDER = frozenset(
    {"Attention", "CastLike", "DequantizeLinear", "If", "Loop", "NonMaxSuppression", "QuantizeLinear", "Scan"}
)
"""The operators whose forms the parser takes but the builder of TensorRT-RTX 1.7 may refuse (measured over onnx's own
test models; docs/measured/census.md)."""

NARROW = ("float8", "float4", "int4")
"""How the names of the types begin that only few layers may read or write."""

READS_TYPE_OR_SHAPE_ONLY = frozenset(
    {"CastLike", "ConstantOfShape", "Dropout", "EyeLike", "OptionalHasElement", "Shape", "Size"}
    | {"Bernoulli", "RandomNormalLike", "RandomUniformLike"}
)
"""Operators that may leave an input unread without computing something else."""

TABLE = "supported_operators.json"

TRIAL_TIMEOUT_S = 900.0


class Judge(Protocol):
    """Says what a target makes of a model."""

    def acceptance(self, model: ModelProto, samples: Sequence[Sample]) -> Acceptance:
        """Asks.

        Args:
            model: Its nodes all have different names.
            samples: Their shapes, and the values of inputs that decide shapes, are what the builder is asked with.
        """


@contextmanager
def judge_for(target: Target, *, thorough: bool) -> Iterator[Judge]:
    """The target's own parser and builder in a child process; a table where they are not installed.

    Args:
        target: Whose opinion is asked.
        thorough: Ask the builder about every model, not only where operators are in it that the parser leaves to it.
    """
    try:
        backend = backend_for(target)
    except MissingError as error:
        yield TableJudge(target, error.what)
        return
    with backend:
        yield LibraryJudge(backend, thorough=thorough)


class LibraryJudge:
    """Asks the target's parser and builder.

    Args:
        backend: The library, entered.
        thorough: Ask the builder about every model.
    """

    def __init__(self, backend: Backend, *, thorough: bool) -> None:
        self._target = backend.target
        self._backend = backend
        self._thorough = thorough

    def acceptance(self, model: ModelProto, samples: Sequence[Sample]) -> Acceptance:
        """Saves the model to a temporary file and asks about that."""
        asked = f"the parser of {self._backend.library}"
        blamed = untypable_ends(model) or foreign_nodes(model) or nodes_beyond_rank(model)
        if blamed:
            return Acceptance(str(self._target), asked, blamed, by_the_library=True)
        try:
            with tempfile.TemporaryDirectory(prefix="trt-opt-") as folder:
                return self._asked(model, samples, Path(folder), asked)
        except WorkerError as error:
            crashed = RefusedNode("", "", f"the library did not survive it: {error.what}")
            return Acceptance(str(self._target), asked, (crashed,), by_the_library=True)

    def _asked(self, model: ModelProto, samples: Sequence[Sample], folder: Path, asked: str) -> Acceptance:
        file = folder / "model.onnx"
        save_model(model, file)
        parsed = self._backend.parse(file, {node.op_type for node in all_nodes(model)})
        blamed = refused_by_parser(model, parsed) or misread_by_parser(model, parsed)
        if blamed or not (self._thorough or is_left_to_the_builder(model)):
            return Acceptance(str(self._target), asked, blamed, by_the_library=True)
        asked = f"the parser and builder of {self._backend.library}"
        options, missing = trial_options(self._target, model, parsed, samples)
        if missing:
            return Acceptance(str(self._target), asked, (), by_the_library=True, notes=(missing,))
        try:
            self._backend.build(file, options, folder / "engine", Silent(), TRIAL_TIMEOUT_S)
        except UnsupportedModelError as error:
            return Acceptance(str(self._target), asked, refused_by_builder(model, error), by_the_library=True)
        return Acceptance(str(self._target), asked, (), by_the_library=True, built=True)


class TableJudge:
    """Knows from a table which operators a parser has importers for; knows nothing of their forms."""

    def __init__(self, target: Target, why: str = "the library is not installed here") -> None:
        self._target = target
        self._why = why
        table = json.loads(resources.files("trt_opt.backends").joinpath(TABLE).read_text(encoding="utf-8"))
        self._library = str(table["library"])
        self._supported = frozenset(table["operators"])

    def acceptance(self, model: ModelProto, samples: Sequence[Sample]) -> Acceptance:
        """Looks every operator up."""
        del samples
        unknown = [
            refused(node, f"the parser of {self._library} has no importer for {node.op_type}")
            for node in all_nodes(model)
            if node.op_type not in self._supported
        ]
        return Acceptance(
            target=str(self._target),
            asked=f"a table of operators recorded from the parser of {self._library}",
            refused=(*untypable_ends(model), *foreign_nodes(model), *nodes_beyond_rank(model), *unknown),
            by_the_library=False,
            notes=(
                f"{self._why}: which forms of an operator the parser refuses, and what the builder says, is not known",
            ),
        )


def refused(node: NodeProto, reason: str) -> RefusedNode:
    """The node and why it is refused."""
    return RefusedNode(node_label(node), node.op_type, reason)


def untypable_ends(model: ModelProto) -> tuple[RefusedNode, ...]:
    """The graph inputs and outputs of types that TensorRT has not."""
    ends = [(spec, "graph input") for spec in graph_inputs(model)]
    ends += [(spec, "graph output") for spec in graph_outputs(model)]
    return tuple(
        RefusedNode(spec.name, kind, f"TensorRT has no {spec.dtype} for a {kind}")
        for spec, kind in ends
        if spec.dtype not in TYPES_OF_TENSORRT
    )


def foreign_nodes(model: ModelProto) -> tuple[RefusedNode, ...]:
    """ONNX Runtime's own operators, and withdrawn ones: the parser looks at names alone, and takes some for others.

    Operators ONNX does not know are left to the parser otherwise: they may be plugins.
    """
    runtimes = (node for node in all_nodes(model) if node.domain.startswith("com.microsoft"))
    withdrawn = (node for node in unknown_nodes(model) if operator_of(node.op_type, node.domain) in _REPLACEABLE)
    return (
        *(refused(node, f"{node.domain}::{node.op_type} is an operator of ONNX Runtime alone") for node in runtimes),
        *(refused(node, f"ONNX has no {node.op_type} in the model's opset") for node in withdrawn),
    )


_REPLACEABLE = frozenset(
    operator for entry in REPAIRS.values() if isinstance(entry, NodePass) for operator in entry.operators
)


def refused_by_parser(model: ModelProto, parsed: ParseReport) -> tuple[RefusedNode, ...]:
    """The nodes the parser names, all like them, and all whose operator it does not know."""
    if not parsed.refused:
        return ()
    entries = [named for entry in parsed.refused for named in _with_nodes(model, entry)]
    reasons = {entry.node: entry for entry in reversed(entries)}
    named = twins_of(model, list(reasons))
    untyped = _nodes_of_lacking_types(model)
    first = entries[0]
    found = list(reasons.values())
    for node in all_nodes(model):
        if node.name in reasons:
            continue
        if node.name in named:
            found.append(refused(node, first.reason))
        elif node.op_type in parsed.unknown_operators and node.domain in STANDARD_DOMAINS:
            found.append(refused(node, f"there is no importer for {node.op_type}"))
        elif node.name in untyped:
            found.append(refused(node, f"TensorRT has no {untyped[node.name]}"))
    return tuple(found)


def _nodes_of_lacking_types(model: ModelProto) -> dict[str, str]:
    """The nodes that read or write tensors of types TensorRT has not: node → type."""
    types = inferred_types(model)
    found = {}
    for graph, known in zip(graphs_of(model.graph), types, strict=True):
        lacking = {name: spec.dtype for name, spec in known.items() if spec.dtype not in TYPES_OF_TENSORRT}
        for node in graph.node:
            touched = [lacking[name] for name in (*node.input, *node.output) if name in lacking]
            found.update({node.name: touched[0]} if touched else {})
    return found


def _with_nodes(model: ModelProto, entry: RefusedNode) -> list[RefusedNode]:
    """The entry; where the parser tells the operator alone, one for every node of it."""
    if entry.node or not entry.op_type:
        return [entry]
    return [refused(node, entry.reason) for node in all_nodes(model) if node.op_type == entry.op_type] or [entry]


def misread_by_parser(model: ModelProto, parsed: ParseReport) -> tuple[RefusedNode, ...]:
    """The nodes at which the parser's network and ONNX part: other output shapes, inputs it never reads."""
    known = inferred_types(model)[0]
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for output in parsed.outputs:
        expected = known.get(output.name)
        if expected is not None and not _same_shape(expected, output) and output.name in producers:
            told = f"TensorRT would give {output.name!r} the shape {output.shape}, ONNX says {expected.shape}"
            found.append(refused(producers[output.name], told))
    for name in _unread_inputs(parsed.warnings):
        readers = [node for node in all_nodes(model) if name in node.input]
        found += [
            refused(node, f"TensorRT does not read its input {name!r}")
            for node in readers
            if node.op_type not in READS_TYPE_OR_SHAPE_ONLY
        ]
    return tuple(found)


def refused_by_builder(model: ModelProto, error: UnsupportedModelError) -> tuple[RefusedNode, ...]:
    """The nodes the builder's message names; else all nodes that are left to it; else an entry without a node."""
    reason = error.nodes[0][2] if error.nodes else error.what
    nodes = list(all_nodes(model))
    words = set(re.findall(r"[^\s\[\]{}()'`,;]+", reason)) | {word.rstrip(".:") for word in reason.split()}
    named = [node for node in nodes if node.name in words]
    blamed = twins_of(model, [node.name for node in named])
    guilty = [node for node in nodes if node.name in blamed] or suspects(model)
    return tuple(refused(node, reason) for node in guilty) or (RefusedNode("", "", reason),)


def is_left_to_the_builder(model: ModelProto) -> bool:
    """Whether the model holds operators the parser takes in forms that the builder may refuse."""
    return bool(suspects(model))


def suspects(model: ModelProto) -> list[NodeProto]:
    """The nodes whose operators or types are left to the builder."""
    found = [node for node in all_nodes(model) if _may_be_refused(node)]
    narrow = {name for types in inferred_types(model) for name, spec in types.items() if spec.dtype.startswith(NARROW)}
    known = {id(node) for node in found}
    touching = [node for node in all_nodes(model) if narrow & {*node.input, *node.output} and id(node) not in known]
    return [*found, *touching]


def trial_options(
    target: Target, model: ModelProto, parsed: ParseReport, samples: Sequence[Sample]
) -> tuple[BuildOptions, str]:
    """Options for a quick build at the shapes and values of the first sample, and what is missing for it, if anything.

    The empty text means that nothing is.
    """
    feed = samples[0].feed if samples else {}
    shapes: dict[str, ShapeRange] = {}
    values: dict[str, ValueRange] = {}
    for spec in graph_inputs(model):
        decisive = spec.name in parsed.shape_inputs
        if spec.is_static and not decisive:
            continue
        array = feed.get(spec.name)
        if array is None:
            return BuildOptions(str(target)), f"the builder was not asked: nothing tells the sizes of {spec.name!r}"
        if decisive:
            flat = tuple(int(value) for value in array.reshape(-1))
            values[spec.name] = ValueRange(flat, flat, flat)
        if not spec.is_static:
            shapes[spec.name] = ShapeRange.fixed(tuple(array.shape))
    return BuildOptions(str(target), profile=shapes, values=values, optimization_level=0), ""


def _may_be_refused(node: NodeProto) -> bool:
    return node.op_type in LEFT_TO_THE_BUILDER and node.domain in STANDARD_DOMAINS


def _same_shape(expected: TensorSpec, found: TensorSpec) -> bool:
    if expected.shape is None or found.shape is None:
        return True
    if len(expected.shape) != len(found.shape):
        return False
    pairs = zip(expected.shape, found.shape, strict=True)
    return all(isinstance(one, str) or isinstance(other, str) or one == other for one, other in pairs)


def _unread_inputs(warnings: Iterable[str]) -> tuple[str, ...]:
    marker = "Unused Input: "
    return tuple(text.split(marker, 1)[1].strip() for text in warnings if marker in text)
