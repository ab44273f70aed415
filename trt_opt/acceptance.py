"""What a target makes of a model: asked of its real parser and builder, or of a table where they are not here."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Protocol

from onnx import ModelProto

from trt_opt.backends import Backend, backend_for
from trt_opt.blame import (
    foreign_nodes,
    is_left_to_the_builder,
    misread_by_parser,
    refused,
    refused_by_builder,
    refused_by_parser,
    untypable_ends,
)
from trt_opt.errors import MissingError, TargetError, TrtOptError, UnsupportedModelError, WorkerError
from trt_opt.graph.beyond_rank import nodes_beyond_rank
from trt_opt.graph.query import all_nodes, graph_inputs
from trt_opt.graph.save import save_model
from trt_opt.guilty_node import guilty_node
from trt_opt.values.backend import ParseReport
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.rewriting import Acceptance
from trt_opt.values.samples import Sample
from trt_opt.values.shapes import ShapeRange, ValueRange
from trt_opt.values.summary import RefusedNode
from trt_opt.values.target import Target

TABLE = "supported_operators.json"

TRIAL_TIMEOUT_S = 900.0

SEARCH_S = 120.0
"""How long to look for the node that a builder does not name."""


class Judge(Protocol):
    """Says what a target makes of a model."""

    def acceptance(self, model: ModelProto, samples: Sequence[Sample]) -> Acceptance:
        """Asks.

        Args:
            model: Its nodes all have different names.
            samples: Their shapes, and the values of inputs that decide shapes, are what the builder is asked with.
        """


@contextmanager
def judge_for(target: Target, *, thorough: bool, python: str | None = None) -> Iterator[Judge]:
    """The target's own parser and builder in a child process; a table where they are not here.

    Args:
        target: Whose opinion is asked.
        thorough: Ask the builder about every model, not only where operators are in it that the parser leaves to it.
        python: The interpreter that has TensorRT; where one is named, it must be as the target says.

    Raises:
        MissingError: The interpreter that was named has no TensorRT, or another one.
    """
    try:
        backend = backend_for(target, python)
    except (MissingError, TargetError) as error:
        if python is not None:
            raise
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
        self._found: dict[str, str] = {}

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
            self._backend.build(BuildFiles(file, folder / "engine"), options, Silent(), TRIAL_TIMEOUT_S)
        except UnsupportedModelError as error:
            blamed = refused_by_builder(model, error)
            if self._thorough and not any(entry.node for entry in blamed):
                blamed = self._searched(model, options, folder, blamed)
            return Acceptance(str(self._target), asked, blamed, by_the_library=True)
        return Acceptance(str(self._target), asked, (), by_the_library=True, built=True)

    def _searched(
        self, model: ModelProto, options: BuildOptions, folder: Path, unnamed: tuple[RefusedNode, ...]
    ) -> tuple[RefusedNode, ...]:
        """The node with which the graph stops building, found by bisection; the same as before if that takes long."""
        reason = unnamed[0].reason
        nodes = {node.name: node for node in model.graph.node}
        if self._found.get(reason) in nodes:
            return (refused(nodes[self._found[reason]], reason),)
        deadline = time.monotonic() + SEARCH_S

        def builds(prefix: ModelProto) -> bool:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            save_model(prefix, folder / "prefix.onnx")
            try:
                self._backend.build(BuildFiles(folder / "prefix.onnx", folder / "engine"), options, Silent(), left)
            except TrtOptError:
                return False
            return True

        try:
            guilty = guilty_node(model, builds)
        except TimeoutError:
            return unnamed
        if guilty is None:
            return unnamed
        self._found[reason] = guilty.name
        return (refused(guilty, reason),)


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
