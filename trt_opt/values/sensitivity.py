"""What INT8 costs in every layer of a model, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trt_opt.values.samples import DataProvenance

LossKind = Literal["noise", "none", "ruined", "unmeasured"]
"""Whether there is a figure. "none": the numbers are the float model's; "ruined": NaN or infinity where the float model
has none, or an error where the float model has nothing but zeros; "unmeasured": it was not run, or there was nothing to
compare.
"""

Cause = Literal[
    "none",
    "ruined",
    "clipping",
    "channels",
    "large-values",
    "small-values",
    "outliers",
    "cancellation",
    "weight-outliers",
    "weights",
    "rounding",
]
"""What dominates a layer's own error; `LayerSensitivity.reason` says it in words."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How far a tensor is from the float model's, over all samples it was measured on.

    Attributes:
        kind: Whether there is a figure.
        sqnr_db: 10·log10(signal energy / error energy), energies pooled over all elements and samples; None unless the
            kind is "noise".
        output: The graph output it is about, the worst; None at a layer's own output, or where nothing was measured.
        samples: On how many samples.
    """

    kind: LossKind
    sqnr_db: float | None = None
    output: str | None = None
    samples: int = 0


@dataclass(frozen=True, slots=True)
class ActivationStatistics:
    """A quantised input of a layer, in the float model, over all calibration samples.

    Attributes:
        operand: Which input of the node.
        tensor: Its name.
        low: The smallest element.
        high: The largest element.
        threshold: The largest magnitude that INT8 holds there: 127 steps.
        rms: Root of the mean square.
        saturated: Share of elements beyond the threshold, 0 … 1.
        vanishing: Share of the elements other than zero that round to zero, 0 … 1.
        sqnr_db: The tensor's own SQNR, before any layer reads it, dB; None without an error.
        clipped_energy: Share of the rounding and clipping error's energy that comes from clipping, 0 … 1.
        channels: How many channels: entries of axis 1 for convolutions, else of the last axis; 0 without such an axis.
        wide_channels: How many of them, by a gap, reach much further than the others; 0 without a gap.
        channel_low: The smallest magnitude that a channel reaches.
        channel_middle: The same of the channel in the middle.
        channel_rest: The largest of those that are not among the wide ones.
        made_by: The operator that wrote it, looked for through data movement and sums: "square", "Softmax", "Conv" …;
            "input" for a graph input.
    """

    operand: int
    tensor: str
    low: float
    high: float
    threshold: float
    rms: float
    saturated: float
    vanishing: float
    sqnr_db: float | None
    clipped_energy: float
    channels: int
    wide_channels: int
    channel_low: float
    channel_middle: float
    channel_rest: float
    made_by: str

    @property
    def extreme(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def outlier_ratio(self) -> float:
        """The largest magnitude over the rms; 0 where all is zero."""
        return self.extreme / self.rms if self.rms else 0.0


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """A layer's constant weights, channel by channel of the output.

    Attributes:
        channels: How many channels have a scale of their own; 1 with one scale for all.
        dead_channels: How many hold nothing but zeros.
        largest: The largest magnitude.
        smallest_range: The largest magnitude of the channel with the smallest, dead ones left out.
        outlier_ratio: The largest ratio of a channel's largest magnitude to its rms.
        outlier_channels: How many channels have a ratio at least half as large.
    """

    channels: int
    dead_channels: int
    largest: float
    smallest_range: float
    outlier_ratio: float
    outlier_channels: int


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """One quantised layer.

    Attributes:
        node: Its name.
        op_type: Its operator.
        position: Its place among the quantised layers in graph order, from 0.
        own: It alone in INT8, at its own output, fed what the float model feeds it.
        output: It alone in INT8, at the graph's worst output.
        own_cumulative: Everything in INT8, at this layer's output.
        output_cumulative: All layers up to and including this one in INT8, at the graph's worst output.
        macs: Multiply-accumulate operations of one run; None where it does none, or a shape is not known.
        macs_share: Their share of the model's, 0 … 1; None likewise.
        activations: Its quantised inputs that are computed at run time.
        weights: Its weights; None without constant ones.
        from_weights: Share of the error at its own output that comes from rounding its weights, 0 … 1; None without an
            error.
        cause: What dominates its own error.
        reason: The same in one sentence.
    """

    node: str
    op_type: str
    position: int
    own: Loss
    output: Loss
    own_cumulative: Loss
    output_cumulative: Loss
    macs: int | None
    macs_share: float | None
    activations: tuple[ActivationStatistics, ...]
    weights: WeightStatistics | None
    from_weights: float | None
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class SensitivityReport:
    """What INT8 costs in every layer of a model.

    Attributes:
        model: The ONNX file.
        layers: The quantised layers, worst first: by their damage at the graph's output, those for which it was not
            measured behind the others by the error at their own output.
        outputs: Everything in INT8: the loss at each floating-point output.
        calibration: What ranges, statistics and errors at layers' own outputs rest on.
        end_to_end: What the figures at the graph's outputs rest on: the evaluation data if there are any.
        calibrator: The calibrator as text.
        samples_each: On how many samples each layer was switched to INT8 by itself; 0 without a floating-point output.
        notes: What to know about the figures.
    """

    model: str
    layers: tuple[LayerSensitivity, ...]
    outputs: tuple[Loss, ...]
    calibration: DataProvenance
    end_to_end: DataProvenance
    calibrator: str
    samples_each: int
    notes: tuple[str, ...] = ()
