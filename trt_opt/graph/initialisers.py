"""Initialisers that are graph inputs too, as files of IR version 3 must list them."""

from __future__ import annotations

from onnx import ModelProto

FREE_INITIALISERS_IR_VERSION = 4
"""From this IR version on initialisers need not be graph inputs, and those that are can be overridden by a caller
(onnx's docs/IR.md)."""


def initialiser_inputs(model: ModelProto) -> tuple[str, ...]:
    """The names of the graph inputs that have an initialiser, in order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return tuple(value.name for value in model.graph.input if value.name in constants)


def without_initialiser_inputs(model: ModelProto) -> ModelProto:
    """A copy in which no initialiser is a graph input, with an IR version that allows it."""
    listed = set(initialiser_inputs(model))
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name not in listed]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.ir_version = max(model.ir_version, FREE_INITIALISERS_IR_VERSION)
    return copy
