"""What a model promises of the shapes of its outputs, and of the tensors that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import onnx_graphsurgeon as gs

from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.node_pass import optional_input
from trt_opt.values.tensors import TensorSpec

Sizes: TypeAlias = "tuple[int | str | None, ...]"
"""One entry per dimension: a size, the symbol of a dynamic one, or None where nothing is said."""

_SHAPE_KEEPING = frozenset(
    {"Abs", "Cast", "CastLike", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "Identity"}
    | {"LeakyRelu", "Log", "LogSoftmax", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Softmax"}
    | {"Softplus", "Sqrt", "Tanh"}
)
"""Operators whose result has the shape of their first input."""


def promised_sizes(tensor: gs.Tensor, edit: GraphEdit) -> Sizes | None:
    """The declared shape of the model's output that the tensor is, or becomes through operators that keep shapes.

    What is declared of inner tensors is not looked at: converters leave wrong shapes behind.
    """
    outputs = {id(output): spec for output, spec in zip(edit.graph.outputs, graph_outputs(edit.model), strict=True)}
    for reached in _of_the_same_shape(tensor):
        spec = outputs.get(id(reached))
        if spec is not None and spec.shape is not None:
            return _sizes(spec)
    return None


def promised_shape(tensor: gs.Tensor, edit: GraphEdit) -> tuple[int, ...] | None:
    """The promised sizes where all of them are numbers."""
    return static(promised_sizes(tensor, edit))


def static(sizes: Sizes | None) -> tuple[int, ...] | None:
    """The sizes as numbers; None where one is not."""
    if sizes is None:
        return None
    numbers = tuple(size for size in sizes if isinstance(size, int))
    return numbers if len(numbers) == len(sizes) else None


def known_sizes(tensor: gs.Tensor, edit: GraphEdit) -> Sizes | None:
    """The shape as it follows from the graph's inputs; of a graph input with the symbols it is declared with."""
    for spec in graph_inputs(edit.model):
        if any(tensor is source for source in edit.graph.inputs) and spec.name == tensor.name:
            return None if spec.shape is None else _sizes(spec)
    return edit.shape(tensor)


def agree(one: Sequence[int | str | None], other: Sequence[int | str | None]) -> bool:
    """Whether two shapes may be the same. A symbol is the same symbol only, as it stands for any number."""
    if len(one) != len(other):
        return False
    return all(first is None or second is None or first == second for first, second in zip(one, other, strict=True))


def has_runtime_axes(node: gs.Node, edit: GraphEdit) -> bool:
    """Whether the second input of a reduction, Squeeze or Unsqueeze is there and not constant."""
    axes = optional_input(node, 1)
    return axes is not None and edit.value(axes) is None


def _of_the_same_shape(tensor: gs.Tensor) -> Iterator[gs.Tensor]:
    waiting, seen = [tensor], {id(tensor)}
    while waiting:
        reached = waiting.pop()
        yield reached
        for reader in reached.outputs:
            if reader.op in _SHAPE_KEEPING and not reader.domain and reader.inputs[0] is reached:
                result = reader.outputs[0]
                waiting += [] if id(result) in seen else [result]
                seen.add(id(result))


def _sizes(spec: TensorSpec) -> Sizes:
    return tuple(None if size == "?" else size for size in spec.shape or ())
