"""What a quantisation method is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import onnx

from trt_opt.graph.index import GraphIndex
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.values.calibration import TensorRange
from trt_opt.values.placement import Placement


@dataclass(frozen=True, slots=True)
class OpsetNeed:
    """The opsets in which a method's graph can be written.

    Attributes:
        required: Without it, the method cannot be used.
        wanted: With it, the graph is written best.
    """

    required: int
    wanted: int


class QuantizationMethod(Protocol):
    """Decides what is quantised, and writes it into a graph. Stateless; `METHODS` holds one of each."""

    name: str
    """As written after --quantization."""

    needs_data: bool
    """Whether activations are quantised, so that their ranges must be known."""

    def label(self, request: PrecisionRequest) -> str:
        """What tables call it: "INT8"."""

    def opset_need(self, request: PrecisionRequest) -> OpsetNeed:
        """The opsets it can be written in."""

    def placement(self, index: GraphIndex, request: PrecisionRequest) -> Placement:
        """Where quantisers go, and the decision about every node.

        Args:
            index: The float model: batch normalisations folded, types inferred, node names unique.
            request: What was asked for.

        Raises:
            UnsupportedModelError: There is nothing it could quantise.
        """

    def written(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, TensorRange], request: PrecisionRequest
    ) -> onnx.ModelProto:
        """A copy of the float model with the placement in it; what is not quantised is still float32.

        Raises:
            StaleError: A range that the placement needs is missing.
        """
