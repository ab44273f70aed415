"""What calibration found out: the ranges of tensors, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trt_opt.errors import DataError
from trt_opt.values.samples import DataProvenance
from trt_opt.values.shapes import ShapeRange, ValueRange


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The range of one tensor over all samples.

    Attributes:
        low: The smallest element seen.
        high: The largest element seen.
        amax: The threshold the calibrator chose: INT8's 127 stands for it. None where only the extremes were asked for.
        count: How many elements were seen.
    """

    low: float
    high: float
    amax: float | None
    count: int

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise DataError(f"a range needs low <= high, not {self.low} and {self.high}")

    @property
    def extreme(self) -> float:
        """The largest magnitude seen."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """Ranges by tensor name, and everything they depend on.

    Attributes:
        model_sha256: The fingerprint of the float graph that was run.
        data: The samples.
        calibrator: The algorithm as text: "entropy(bins=2048, levels=128)".
        ranges: Tensor name → range.
        shapes: Graph input → the shapes its samples had; the default of an engine's optimization profile.
        values: Small integer input → the values its samples had, for engines in which it decides a shape.
        chosen: Tensor → the candidate whose threshold it got, where they were chosen apart: "mse", "0.8 x minmax" …
    """

    model_sha256: str
    data: DataProvenance
    calibrator: str
    ranges: Mapping[str, TensorRange]
    shapes: Mapping[str, ShapeRange]
    values: Mapping[str, ValueRange] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
