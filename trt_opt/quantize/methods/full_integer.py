"""Full-integer quantisation: static quantisation, with integers as graph inputs and outputs too."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.integer_ends import with_integer_ends, with_ranges_of_ends
from trt_opt.quantize.methods.policy import policy_placement
from trt_opt.quantize.methods.static import Static
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement


class FullInteger(Static):
    """Activations and weights as `Static` has them; float inputs and outputs become INT8, or a UINT8 image.

    `quantize.integer_ends.integer_ends` tells what the caller of the result has to do.
    """

    name = "full-integer"

    def label(self, request: PrecisionRequest) -> str:
        """What tables call it."""
        return f"{super().label(request)} with integer ends"

    def placement(self, index: GraphIndex, request: PrecisionRequest) -> Placement:
        """The static method's, and the ranges of inputs and outputs, which stay integers where all layers are spared.

        Raises:
            RequestError: An image is asked for, and there is no input for it.
        """
        placed = policy_placement(index, request, "INT8", may_be_empty=bool(request.spared))
        return with_ranges_of_ends(placed, index, request.image)

    def written(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], request: PrecisionRequest
    ) -> onnx.ModelProto:
        """The static method's graph with integer ends."""
        model = super().written(index, placement, ranges, request)
        return with_integer_ends(model, index, placement, ranges, request)
