"""ArrayFeatureExtractor as Gather."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trt_opt.passes.emitter import Emitter
from trt_opt.passes.mathematics.standard_opset import ForeignNodePass
from trt_opt.passes.node_pass import DeclinedError


class ArrayFeatureExtractorToGather(ForeignNodePass):
    """Replaces ArrayFeatureExtractor by Gather.

    What it does: Gathers along the last axis with the indices laid out in one; a vector becomes a row.

    Why TensorRT wants it: It has no operators of the machine learning domain.

    Example: ArrayFeatureExtractor(x [N, 4], i [1, 2]) becomes Gather(x, Reshape(i, [-1]), axis=1).

    When it declines: The rank of the data is not known.
    """

    name = "array_feature_extractor_to_gather"
    operators = frozenset({"ai.onnx.ml::ArrayFeatureExtractor"})

    def replacement(self, node: gs.Node, emit: Emitter) -> Sequence[gs.Tensor]:
        """See the class."""
        source, indices = node.inputs
        rank = emit.edit.rank(source)
        if rank is None:
            raise DeclinedError("the rank of its data is not known")
        data = emit.unsqueeze(source, [0]) if rank == 1 else source
        return (emit("Gather", data, emit.reshape(indices, [-1]), axis=-1),)
