"""ONNX Runtime's layer normalisations in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.base import GraphEdit
from trt_opt.passes.contrib.layer_statistics import Normalization, layer_normalized, normalized_with_statistics, summed
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input
from trt_opt.passes.operand_facts import element_type, known_shape

_FIRST_STANDARD_OPSET = 17
_EPSILON = 1e-5
_SKIP_EPSILON = 1e-12


class DecomposeFusedLayerNormalization(NodePass):
    """Writes ONNX Runtime's layer normalisations out in standard operators.

    What it does: SkipLayerNormalization and SkipSimplifiedLayerNormalization become the sum of the input, the skipped
    input and the bias, and a normalisation of it: LayerNormalization from opset 17 on, ReduceMean, Sub, Sqrt … below
    and for the root mean square. SimplifiedLayerNormalization, and LayerNormalization in models below opset 17, which
    ONNX Runtime writes into the standard domain though it lacks them, are written out likewise. Float16 and
    bfloat16 are normalised in float32.

    Why TensorRT wants it: They are operators of ONNX Runtime alone, left behind where a model was saved after its
    optimiser had run. TensorRT has no importer for them, or, for those of the standard domain, no valid model.

    Example: com.microsoft::SkipLayerNormalization(x, s, gamma, beta) becomes Add, LayerNormalization.

    When it declines: The element type is not known; the axis counts from the front and the rank is not known; the
    mean or deviation that the Skip variants give for training is read.
    """

    name = "decompose_fused_layer_normalization"
    operators = frozenset(
        {
            "com.microsoft::SkipLayerNormalization",
            "com.microsoft::SkipSimplifiedLayerNormalization",
            "SimplifiedLayerNormalization",
            "LayerNormalization",
        }
    )
    oldest_opset = 7

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """All but the LayerNormalization that the opset has: that one is no operator of ONNX Runtime's."""
        if node.op == "LayerNormalization" and edit.opset >= _FIRST_STANDARD_OPSET:
            return False
        return super().wants(node, edit)

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        return _after_sum(node, emit) if node.op.startswith("Skip") else _of_one_input(node, emit)


def _after_sum(node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
    if any(is_used(output, emit.edit) for output in node.outputs[1:3]):
        raise DeclinedError("its mean or inverse deviation is read, which only training needs")
    centred = node.op == "SkipLayerNormalization"
    wanted = Normalization(
        axes=(-1,),
        epsilon=node.attrs.get("epsilon", _SKIP_EPSILON),
        dtype=element_type(emit, *node.inputs[:3]),
        centred=centred,
    )
    bias = optional_input(node, 4 if centred else 3)
    total = summed(emit, (node.inputs[0], node.inputs[1], bias))
    shift = optional_input(node, 3) if centred else None
    return layer_normalized(emit, total, wanted, node.inputs[2], shift), None, None, total


def _of_one_input(node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
    source, scale = node.inputs[:2]
    centred = node.op == "LayerNormalization"
    wanted = Normalization(
        axes=_last_axes(node, emit),
        epsilon=node.attrs.get("epsilon", _EPSILON),
        dtype=element_type(emit, source, scale),
        centred=centred,
    )
    found = normalized_with_statistics(emit, source, wanted, scale, optional_input(node, 2) if centred else None)
    return (found.result, found.mean, found.inverse_deviation) if centred else (found.result, found.inverse_deviation)


def _last_axes(node: gs.Node, emit: Emitter) -> tuple[int, ...]:
    axis = int(node.attrs.get("axis", -1))
    first = axis if axis < 0 else axis - len(known_shape(emit, node.inputs[0]))
    return tuple(range(first, 0))
