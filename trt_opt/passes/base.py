"""What a pass is.

A pass takes a ModelProto and gives one back with a report, so that anything can be a pass: an edit of the graph, a
conversion by onnx itself, the inlining of functions. Nearly all passes edit the graph; for them `GraphPass` does the
import and the export, once per run and only if something changed, and hands `apply` a `GraphEdit`.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto
from typing_extensions import Self

from trt_opt.graph.edit import every_graph, graph_output_ids, label, tensor_names
from trt_opt.graph.names import fresh_name
from trt_opt.graph.query import dtype_name, graph_outputs, opset_or_none
from trt_opt.graph.surgeon import constant_type, constant_values, graph_from_model, model_from_graph
from trt_opt.graph.types import inferred_types
from trt_opt.values.rewriting import Change, Decline, PassReport
from trt_opt.values.tensors import TensorSpec

DOCSTRING_SECTIONS = ("What it does:", "Why TensorRT wants it:", "Example:", "When it declines:")
"""What the docstring of every pass is made of; `explain` prints it."""


class Pass(ABC):
    """One rewrite of a model that keeps what it computes. Subclasses document themselves in DOCSTRING_SECTIONS."""

    name: ClassVar[str]
    """The name on the command line and in reports: lower case, with underscores."""

    @abstractmethod
    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Rewrites as much as one walk over the model finds; the runner repeats it until nothing changes.

        Args:
            model: Is not edited.

        Returns:
            The new model, or the very same object where nothing changed, and what was done and declined.
        """

    refused: frozenset[str] | None = None
    """The nodes the target refuses, to which the pass keeps; None for all. Passes that tidy up pay it no heed."""

    def on(self, refused: frozenset[str]) -> Self:
        """The same pass for a model of which the target refuses these nodes."""
        scoped = copy.copy(self)
        scoped.refused = refused
        return scoped

    @property
    def documentation(self) -> str:
        """The docstring."""
        return inspect.getdoc(type(self)) or ""


class GraphPass(Pass):
    """A pass that edits the GraphSurgeon graph in place."""

    def run(self, model: ModelProto) -> tuple[ModelProto, PassReport]:
        """Imports the model, applies the pass, and exports if something changed."""
        edit = GraphEdit(model)
        self.apply(edit)
        report = PassReport(self.name, tuple(edit.changes), tuple(edit.declines))
        result = edit.exported() if report.changed else model
        edit.release()
        return result, report

    @abstractmethod
    def apply(self, edit: GraphEdit) -> None:
        """Edits `edit.graph`, and tells `edit` everything it changed or declined."""


class GraphEdit:
    """A graph being edited, with what a pass needs to know of it.

    Attributes:
        model: Where the graph came from; read only.
        graph: The graph, to be edited in place.
        changes: What was changed so far.
        declines: What was declined so far.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.graph: gs.Graph = graph_from_model(model)
        self._homes = {
            id(tensor): position
            for position, graph in enumerate(every_graph(self.graph))
            for tensor in (*graph.inputs, *(made for node in graph.nodes for made in node.outputs))
        }
        self.changes: list[Change] = []
        self.declines: list[Decline] = []

    def changed(self, node: gs.Node | str, what: str) -> None:
        """Notes a change, in a few words: "folded into Conv 'conv1'"."""
        self.changes.append(Change(node if isinstance(node, str) else label(node), what))

    def declined(self, node: gs.Node | str, why: str) -> None:
        """Notes what the pass is for but did not do here, and why."""
        self.declines.append(Decline(node if isinstance(node, str) else label(node), why))

    def fresh_name(self, base: str) -> str:
        """A tensor name that is not in use anywhere in the model."""
        return fresh_name(base, self._names)

    def fresh_node_name(self, base: str) -> str:
        """A node name that is not in use anywhere in the model."""
        return fresh_name(base, self._node_names)

    def is_graph_output(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor was an output of the graph, or of one nested in it, when editing began."""
        return id(tensor) in self._output_ids

    @cached_property
    def opset(self) -> int:
        """The version of the standard operators; 0 where the model imports none of them."""
        return opset_or_none(self.model) or 0

    def dtype(self, tensor: gs.Tensor) -> str | None:
        """NumPy's name of the element type ("float32", or onnx's "bfloat16"); None where it cannot be told."""
        if isinstance(tensor, gs.Constant):
            return dtype_name(constant_type(tensor))
        spec = self.spec(tensor)
        return None if spec is None else spec.dtype

    def shape(self, tensor: gs.Tensor) -> tuple[int | None, ...] | None:
        """The shape as it follows from the graph's inputs, None for sizes not known; None where the rank is not."""
        if isinstance(tensor, gs.Constant):
            return tuple(tensor.shape)
        spec = self.spec(tensor)
        if spec is None or spec.shape is None:
            return None
        return tuple(size if isinstance(size, int) else None for size in spec.shape)

    def static_shape(self, tensor: gs.Tensor) -> tuple[int, ...] | None:
        """The shape where every size of it is known, as it follows from the graph's inputs."""
        shape = self.shape(tensor)
        if shape is None or any(size is None for size in shape):
            return None
        return tuple(size for size in shape if size is not None)

    def rank(self, tensor: gs.Tensor) -> int | None:
        """The number of dimensions, where it is known."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def value(self, tensor: gs.Tensor | None) -> NDArray[np.generic] | None:
        """The values of a constant or of a Constant node's output; None for anything else."""
        return None if tensor is None else constant_values(tensor)

    def declared_shape(self, tensor: gs.Tensor) -> tuple[int | None, ...] | None:
        """What the model promises its callers of an output's shape; None for tensors that are not its outputs."""
        found = self._promised.get(id(tensor))
        if found is None or found.shape is None:
            return None
        return tuple(size if isinstance(size, int) else None for size in found.shape)

    def exported(self) -> ModelProto:
        """The graph as a model."""
        return model_from_graph(self.graph, like=self.model)

    def release(self) -> None:
        """Lets go of the constants: GraphSurgeon's graphs are cycles, and would keep the old model's weights alive."""
        for graph in every_graph(self.graph):
            for tensor in (*graph.outputs, *(read for node in graph.nodes for read in node.inputs)):
                if isinstance(tensor, gs.Constant):
                    tensor._values = None
        self.graph.kept_alive = None

    @cached_property
    def _names(self) -> set[str]:
        return tensor_names(self.graph) | {tensor.name for tensor in self.model.graph.initializer}

    @cached_property
    def _node_names(self) -> set[str]:
        return {node.name for graph in every_graph(self.graph) for node in graph.nodes}

    @cached_property
    def _output_ids(self) -> set[int]:
        return graph_output_ids(self.graph)

    @cached_property
    def _promised(self) -> dict[int, TensorSpec]:
        """By identity: a nested graph may give a tensor of its own the name of an output."""
        named = {spec.name: spec for spec in graph_outputs(self.model)}
        return {id(tensor): named[tensor.name] for tensor in self.graph.outputs if tensor.name in named}

    @cached_property
    def _types(self) -> tuple[dict[str, TensorSpec], ...]:
        return inferred_types(self.model)

    def spec(self, tensor: gs.Tensor) -> TensorSpec | None:
        """Looked up in the graph the tensor belonged to when editing began: nested graphs may use a name again."""
        home = self._homes.get(id(tensor))
        return None if home is None else self._types[home].get(tensor.name)
