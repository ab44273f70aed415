"""What the user asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trt_opt.datasets.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class PrecisionRequest:
    """The precisions of a graph.

    Attributes:
        method: The quantisation method, by its name in `methods.METHODS`; None leaves the graph in float.
        fp16: FP16 in what is left.
        io_fp16: FP16 graph inputs and outputs too.
        exclude: Nodes to leave in float.
        spared: Nodes to leave in float too, and why: what a measurement found.
        wide: Nodes that stay FP32, where they are not quantised, although FP16 was asked for, and why.
        activation_products: MatMuls of two activations are quantised too.
        weights: What weights-only quantisation stores: "int8" or "int4".
        block_size: How many INT4 weights share one scale.
        typed: Whether the types in the graph decide every precision; if not, flags of the builder do.
        image: With integer inputs: how the UINT8 image that goes in becomes the float input; None for an INT8 input.
    """

    method: str | None = None
    fp16: bool = False
    io_fp16: bool = False
    exclude: tuple[str, ...] = ()
    spared: Mapping[str, str] = field(default_factory=dict)
    wide: Mapping[str, str] = field(default_factory=dict)
    activation_products: bool = False
    weights: str = "int8"
    block_size: int = 128
    typed: bool = True
    image: Preprocess | None = None
