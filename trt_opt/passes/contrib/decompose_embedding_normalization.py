"""ONNX Runtime's EmbedLayerNormalization in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trt_opt.passes.contrib.layer_statistics import Normalization, layer_normalized, summed
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import NodePass, is_used, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape

_EPSILON = 1e-12


class DecomposeEmbeddingNormalization(NodePass):
    """Writes ONNX Runtime's EmbedLayerNormalization out in standard operators.

    What it does: Three Gathers look up words, positions and segments (a Slice of the position table where no position
    is given), their sum is normalised, and where the mask index is read, the ones of the mask are counted.

    Why TensorRT wants it: The operator is ONNX Runtime's own; its optimiser puts it in the place of BERT's embedding.

    Example: com.microsoft::EmbedLayerNormalization(ids, …) becomes Gather, Slice, Gather, Add, Add,
    LayerNormalization.

    When it declines: The element type of the tables, or the rank of the ids where positions are not given, is not
    known; the opset is below 11.
    """

    name = "decompose_embedding_normalization"
    operators = frozenset({"com.microsoft::EmbedLayerNormalization"})
    oldest_opset = 11

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        ids, segments, words, positions = node.inputs[:4]
        segment_table = optional_input(node, 4)
        gamma, beta = node.inputs[5:7]
        parts = [emit("Gather", words, ids, axis=0), _positions(node, emit, positions)]
        if segment_table is not None and not segments.is_empty():
            parts.append(emit("Gather", segment_table, segments, axis=0))
        total = summed(emit, parts)
        wanted = Normalization((-1,), node.attrs.get("epsilon", _EPSILON), element_type(emit, words, gamma))
        normalized = layer_normalized(emit, total, wanted, gamma, beta)
        wants_index = len(node.outputs) > 1 and is_used(node.outputs[1], emit.edit)
        return normalized, _mask_index(node, emit) if wants_index else None, total


def _positions(node: gs.Node, emit: Emitter, table: gs.Tensor) -> gs.Tensor:
    """One row of the table for each position of the sequence."""
    given = optional_input(node, 8)
    if given is not None:
        looked_up: gs.Tensor = emit("Gather", table, given, axis=0)
        return looked_up
    length = known_shape(emit, node.inputs[0])[1]
    if length is not None:
        return emit.slice(table, [0], [length], [0], [1])
    end = emit("Slice", emit("Shape", node.inputs[0]), np.array([1]), np.array([2]), np.array([0]))
    sliced: gs.Tensor = emit("Slice", table, np.array([0]), end, np.array([0]))
    return sliced


def _mask_index(node: gs.Node, emit: Emitter) -> gs.Tensor:
    """How many entries of each row of the mask are 1; zeros without a mask."""
    mask = optional_input(node, 7)
    if mask is None:
        return emit.reduce("ReduceSum", emit("Mul", node.inputs[0], np.int32(0)), [1], keepdims=False)
    ones = emit.cast(emit("Equal", mask, np.int32(1)), "int32")
    return emit.reduce("ReduceSum", ones, [1], keepdims=False)
