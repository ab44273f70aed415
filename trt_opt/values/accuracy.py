"""How far two runs of a model are apart, and whether that is acceptable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
"""INCONCLUSIVE is never a pass: nothing compared, unequal counts, or an invalid measurement."""


@dataclass(frozen=True, slots=True)
class OutputAccuracy:
    """One output of a candidate against the same output of the reference, over all samples.

    Attributes:
        name: The output.
        elements: How many elements were compared.
        max_abs_error: The largest absolute difference; NaN where NaN or infinity is on one side only, or nothing
            was compared.
        mean_abs_error: The mean absolute difference; NaN likewise.
        cosine: Cosine similarity of all elements as one vector; None where a side is all zero, NaN likewise.
        sqnr_db: 10·log10(Σ reference² / Σ (reference - candidate)²), the energies pooled over all samples;
            None where the error is zero, the reference is all zero, or the output holds integers; NaN likewise.
        identical: Whether every element is equal.
        top1_agreement: Share of rows whose arg-max agrees, 0 … 1, for outputs that look like class scores; share of
            equal elements for outputs that look like class numbers (int32, int64); None for all others.
        within_tolerance: Share of samples that Polygraphy's comparator accepts, 0 … 1; None where no tolerance was
            given.
        not_finite: Elements that are NaN or infinite in the candidate, and something else in the reference.
    """

    name: str
    elements: int
    max_abs_error: float
    mean_abs_error: float
    cosine: float | None
    sqnr_db: float | None
    identical: bool
    top1_agreement: float | None
    within_tolerance: float | None
    not_finite: int = 0


@dataclass(frozen=True, slots=True)
class TaskAccuracy:
    """Right answers against labels.

    Attributes:
        rows: How many labelled rows were judged.
        top1: Share right, 0 … 1.
        top5: Share with the label among the first five, or None with fewer than six classes.
    """

    rows: int
    top1: float
    top5: float | None

    @property
    def top1_interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval of `top1`: what a data set of this size can tell.

        Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
        American Statistical Association 22 (1927), 209-212.
        """
        z2 = NormalDist().inv_cdf(0.975) ** 2
        middle = self.top1 + z2 / (2 * self.rows)
        spread = math.sqrt(z2 * (self.top1 * (1 - self.top1) + z2 / (4 * self.rows)) / self.rows)
        scale = 1 + z2 / self.rows
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a reference.

    Attributes:
        reference: What the reference is: "FP32 on ONNX Runtime".
        candidate: What the candidate is: "INT8 simulated on ONNX Runtime".
        samples: How many samples both ran.
        outputs: One entry per output.
        reference_task: The reference against the labels, if there are labels.
        candidate_task: The candidate against the labels.
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: Why.
    """

    reference: str
    candidate: str
    samples: int
    outputs: tuple[OutputAccuracy, ...]
    reference_task: TaskAccuracy | None
    candidate_task: TaskAccuracy | None
    verdict: Verdict
    reason: str

    @property
    def sqnr_db(self) -> float | None:
        """The worst output's SQNR in dB, NaN if one is; None where no output has one."""
        values = [output.sqnr_db for output in self.outputs if output.sqnr_db is not None]
        return min(values, key=lambda value: -math.inf if math.isnan(value) else value, default=None)
