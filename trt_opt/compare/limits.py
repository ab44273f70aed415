"""What a candidate must keep to."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from trt_opt.compare.metrics import Metric
from trt_opt.errors import RequestError

ErrorStatistic = Literal["elemwise", "max", "mean", "median"]
"""What of a sample's errors is held against the tolerances; the names are Polygraphy's `check_error_stat`."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How Polygraphy's comparator judges one output of one sample.

    An element is accepted if its error is within *either* tolerance, which is not NumPy's `allclose` (the sum).

    Attributes:
        atol: Absolute tolerance.
        rtol: Tolerance relative to the reference's element; 0 leaves the decision to `atol`.
        statistic: "elemwise" looks at every element, the others at one figure per output.
    """

    atol: float = 1e-5
    rtol: float = 1e-5
    statistic: ErrorStatistic = "elemwise"

    def __post_init__(self) -> None:
        if not (self.atol >= 0 and self.rtol >= 0):
            raise RequestError(f"tolerances must be 0 or more, not {self.atol} and {self.rtol}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a verdict; None leaves a figure unbounded, and all None leaves the verdict open.

    Attributes:
        min_sqnr_db: Least SQNR of every floating-point output, dB.
        max_drop: Most that `metric` may lose against the reference, in points (hundredths).
        min_agreement: Least share of equal top-1 answers, in percent, of every output that has such answers.
        atol: Absolute tolerance that every output of every sample must keep.
        rtol: Relative tolerance likewise; an element may keep either.
        metric: What `max_drop` speaks of, and what is told besides; None for top-1 accuracy where there are labels.
            It is no bound by itself.
    """

    min_sqnr_db: float | None = None
    max_drop: float | None = None
    min_agreement: float | None = None
    atol: float | None = None
    rtol: float | None = None
    metric: Metric | None = None

    def __post_init__(self) -> None:
        for name in ("min_sqnr_db", "max_drop"):
            if math.isnan(getattr(self, name) or 0.0):
                raise RequestError(f"the limit {name} is not a number")
        for name in ("atol", "rtol"):
            if not (getattr(self, name) or 0.0) >= 0:
                raise RequestError(f"the limit {name} must be 0 or more, not {getattr(self, name)}")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 100:
            raise RequestError(f"the least agreement is a percentage, not {self.min_agreement}")
        if self.max_drop is not None and self.metric is not None and not self.metric.has_drop:
            raise RequestError(
                f"a drop is told in points, and {self.metric.text} is not", hint="--min-sqnr DB, without --max-drop"
            )

    @property
    def any(self) -> bool:
        """Whether there is a bound at all."""
        bounds = (field.name for field in dataclasses.fields(self) if field.name != "metric")
        return any(getattr(self, name) is not None for name in bounds)

    @property
    def tolerances(self) -> Tolerances | None:
        """What `atol` and `rtol` say; the one that is missing is 0, so that the other decides alone."""
        if self.atol is None and self.rtol is None:
            return None
        return Tolerances(self.atol or 0.0, self.rtol or 0.0)
