"""LayerNormalization that also gives its mean and inverse deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trt_opt.graph.query import dtype_name
from trt_opt.passes.base import GraphEdit
from trt_opt.passes.emitter import Emitter
from trt_opt.passes.node_pass import DeclinedError, NodePass, is_used, optional_input

_FIRST_OPSET = 17


class LayerNormalizationStatistics(NodePass):
    """Computes the mean and the inverse deviation beside LayerNormalization, not in it.

    What it does: LayerNormalization keeps its first output only. The mean, where it is read, becomes a ReduceMean, the
    inverse deviation the reciprocal of the root of the variance plus epsilon, both in the type of `stash_type`.

    Why TensorRT wants it: Its LayerNormalization has one output; that one is kept in one layer.

    Example: y, mean = LayerNormalization(x, scale) becomes y = LayerNormalization(x, scale), mean = ReduceMean(x).

    When it declines: The rank of the input is not known. Nodes with one output are left alone.
    """

    name = "layer_normalization_statistics"
    operators = frozenset({"LayerNormalization"})
    oldest_opset = _FIRST_OPSET

    def wants(self, node: gs.Node, edit: GraphEdit) -> bool:
        """With one output, TensorRT takes it as it is."""
        return super().wants(node, edit) and any(output.name for output in node.outputs[1:])

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor | None]:
        """See the class."""
        source, rank = node.inputs[0], emit.edit.rank(node.inputs[0])
        if rank is None:
            raise DeclinedError("the rank of its input is not known")
        axis, epsilon = int(node.attrs.get("axis", -1)) % rank, float(node.attrs.get("epsilon", 1e-5))
        stash = int(node.attrs.get("stash_type", TensorProto.FLOAT))
        result = emit(
            "LayerNormalization",
            source,
            node.inputs[1],
            optional_input(node, 2),
            axis=axis,
            epsilon=epsilon,
            stash_type=stash,
        )
        used = [len(node.outputs) > position and is_used(node.outputs[position], emit.edit) for position in (1, 2)]
        mean = deviation = None
        if any(used):
            mean = emit.reduce("ReduceMean", emit.cast(source, dtype_name(stash)), list(range(axis, rank)))
        if used[1]:
            deviation = _inverse_deviation(emit, mean, epsilon, list(range(axis, rank)))
        return result, mean if used[0] else None, deviation


def _inverse_deviation(emit: Emitter, mean: gs.Tensor, epsilon: float, axes: list[int]) -> gs.Tensor:
    """In the type of the mean; the input in that type is what the mean was taken of."""
    wide = emit.nodes[-1].inputs[0]
    centred = emit("Sub", wide, mean)
    variance = emit.reduce("ReduceMean", emit("Mul", centred, centred), axes)
    shift = emit.cast(np.float32(epsilon), _dtype_of_cast(wide))
    made: gs.Tensor = emit("Reciprocal", emit("Sqrt", emit("Add", variance, shift)))
    return made


def _dtype_of_cast(tensor: gs.Tensor) -> str:
    return dtype_name(int(tensor.inputs[0].attrs["to"]))
