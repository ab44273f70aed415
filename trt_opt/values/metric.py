"""What a metric says of a reference and of a candidate, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

Interval = tuple[float, float]
"""The two ends of a 95 % confidence interval."""

Unit = Literal["share", "dB"]

Z = NormalDist().inv_cdf(0.975)
"""The normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class MetricAccuracy:
    """A reference and a candidate by one metric; more is better.

    Attributes:
        name: "top1", "sqnr", or "package.module:function" for the user's own.
        unit: A share, 0 … 1, or dB.
        reference: The reference's value; 1 where the reference is right by definition, None where that is no number.
        candidate: The candidate's value; NaN where it could not be computed, None where there is no noise (dB).
        interval: Of `candidate`; None where the samples do not tell.
        drop_points: 100·(reference - candidate); None for dB.
        drop_interval_points: Of `drop_points`, from the differences row by row or sample by sample.
        rows: What the value is averaged over: rows of answers, or samples.
        samples: How many samples were run.
    """

    name: str
    unit: Unit
    reference: float | None
    candidate: float | None
    interval: Interval | None
    drop_points: float | None
    drop_interval_points: Interval | None
    rows: int
    samples: int

    @property
    def short_name(self) -> str:
        """The name as a table's heading: the function without its module."""
        return self.name.rpartition(":")[2]


def wilson_interval(share: float, rows: int) -> Interval:
    """Wilson's 95 % score interval of a share of rows, 0 … 1: what a data set of this size can tell.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927), 209-212.

    Args:
        share: 0 … 1.
        rows: At least 1.
    """
    z2 = Z * Z
    middle = share + z2 / (2 * rows)
    spread = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * rows)) / rows)
    scale = 1 + z2 / rows
    # The share itself is always inside, which rounding would deny at 0 and 1.
    return max(0.0, min(share, (middle - spread) / scale)), min(1.0, max(share, (middle + spread) / scale))
