"""How far two runs of a model are apart, and whether that is acceptable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trt_opt.values.metric import Interval, MetricAccuracy, wilson_interval

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
"""INCONCLUSIVE is never a pass: nothing compared, unequal counts, or an invalid measurement."""

WORST_FIRST: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
"""Of several verdicts the first of these is the whole's."""


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
        is_float: Whether both sides hold floating-point numbers, so that there is an SQNR.
        rows: Rows with a top-1 answer.
        agreement_interval: Wilson's 95 % interval of `top1_agreement`; None where that is.
        sqnr_interval_db: 95 % interval of `sqnr_db` from resampled samples, its upper end infinite where most of them
            show no error; None with fewer than two samples, and where `sqnr_db` is None or NaN.
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
    is_float: bool = True
    rows: int = 0
    agreement_interval: Interval | None = None
    sqnr_interval_db: Interval | None = None


@dataclass(frozen=True, slots=True)
class TaskAccuracy:
    """Right answers against labels.

    Attributes:
        rows: How many labelled rows were judged.
        top1: Share right, 0 … 1.
        top5: Share with the label among the first five, or None with fewer than six classes.
        top1_interval: Wilson's 95 % interval of `top1`; follows from it and `rows`.
        top5_interval: Likewise; None where `top5` is.
    """

    rows: int
    top1: float
    top5: float | None
    top1_interval: Interval = (0.0, 1.0)
    top5_interval: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "top1_interval", wilson_interval(self.top1, self.rows))
        object.__setattr__(self, "top5_interval", None if self.top5 is None else wilson_interval(self.top5, self.rows))


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
        metric: What was asked for by its name; the top-1 accuracy where nothing was and there are labels.
    """

    reference: str
    candidate: str
    samples: int
    outputs: tuple[OutputAccuracy, ...]
    reference_task: TaskAccuracy | None
    candidate_task: TaskAccuracy | None
    verdict: Verdict
    reason: str
    metric: MetricAccuracy | None = None

    @property
    def sqnr_db(self) -> float | None:
        """The worst output's SQNR in dB, NaN if one is; None where no output has one."""
        values = [output.sqnr_db for output in self.outputs if output.sqnr_db is not None]
        return min(values, key=lambda value: -math.inf if math.isnan(value) else value, default=None)

    @property
    def top1_agreement(self) -> float | None:
        """The least share of equal top-1 answers over the outputs, 0 … 1; None where no output has such answers."""
        shares = (output.top1_agreement for output in self.outputs)
        return min((share for share in shares if share is not None), default=None)
