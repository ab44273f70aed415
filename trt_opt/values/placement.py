"""Where Q/DQ pairs go, before any scale is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from trt_opt.values.precision import LayerDecision

FormatName = Literal["int8", "int4", "fp8"]
"""The number format of a quantised tensor; "fp8" is E4M3FN."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One input of one node."""

    node: str
    index: int


@dataclass(frozen=True, slots=True)
class ActivationQuantizer:
    """A Q/DQ pair on a tensor, read by some of its readers.

    Attributes:
        tensor: The tensor quantised.
        range_of: The tensor whose calibrated range gives the scale: itself, or one whose scale it must share.
        readers: The inputs that read the quantised tensor.
    """

    tensor: str
    range_of: str
    readers: tuple[Reader, ...]


@dataclass(frozen=True, slots=True)
class WeightQuantizer:
    """Constant weights stored in a small number format.

    Attributes:
        reader: The input that reads the weights.
        tensor: The weights.
        axis: The axis with one scale per channel, or the one that is cut into blocks; None for one scale for all.
        number_format: What a weight is stored as.
        block_size: How many neighbours on the axis share one scale; None without blocks.
    """

    reader: Reader
    tensor: str
    axis: int | None
    number_format: FormatName = "int8"
    block_size: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """All Q/DQ pairs of a graph, and the decision about every node.

    Attributes:
        activations: Pairs on activations, in graph order.
        weights: Quantised weights, in graph order.
        layers: One decision per node of the top-level graph; what is not quantised is "fp32" at this point.
        activation_format: What activations are quantised to.
        calibrated: Tensors whose ranges are wanted for another reason than a pair.
    """

    activations: tuple[ActivationQuantizer, ...] = ()
    weights: tuple[WeightQuantizer, ...] = ()
    layers: tuple[LayerDecision, ...] = ()
    activation_format: FormatName = "int8"
    calibrated: tuple[str, ...] = ()

    @property
    def ranges_needed(self) -> tuple[str, ...]:
        """The tensors to calibrate, each once, in graph order."""
        return tuple(dict.fromkeys((*(quantizer.range_of for quantizer in self.activations), *self.calibrated)))


@dataclass(frozen=True, slots=True)
class Taps:
    """What the data pass shall look at.

    Attributes:
        calibrated: Tensors that need a threshold from the calibrator.
        watched: Tensors of which only the extremes are needed (FP16 overflow).
    """

    calibrated: tuple[str, ...] = ()
    watched: tuple[str, ...] = field(default=())

    @property
    def all(self) -> tuple[str, ...]:
        """Every tapped tensor, each once."""
        return tuple(dict.fromkeys(self.calibrated + self.watched))
