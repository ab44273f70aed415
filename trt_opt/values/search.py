"""How an INT8/FP16 assignment was found that keeps a model's accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trt_opt.values.accuracy import Comparison, Verdict
from trt_opt.values.improvement import ImprovementReport

SearchKind = Literal["budget", "floor"]
"""A budget that was asked for, or the floor below which plain INT8 counts as ruined."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One assignment that was tried.

    Attributes:
        step: What led to it: "INT8 as placed", "ranges: auto", "equalize_channels", "layers to float".
        int8_share: Share of the MACs of convolutions and products that are INT8, 0 … 1; None where no shape is known.
        spared: How many layers had been left in float for accuracy.
        sqnr_db: SQNR of the worst output, dB; None without an error.
        metric: The metric's value; None without one.
        drop: Points of the metric lost against the float model; None without one.
        agreement: Least share of equal top-1 answers over the outputs, percent; None without such answers.
        met: Whether the budget was met on the samples searched with; of an SQNR, with one standard error to spare.
    """

    step: str
    int8_share: float | None
    spared: int
    sqnr_db: float | None
    metric: float | None
    drop: float | None
    agreement: float | None
    met: bool


@dataclass(frozen=True, slots=True)
class SparedLayer:
    """A layer left in float because INT8 costs too much there.

    Attributes:
        node: Its name.
        op_type: Its operator.
        macs_share: Its share of all MACs, 0 … 1; None where a shape is not known.
        damage_db: SQNR at the graph's worst output with this layer alone in INT8, dB; None where it was not measured.
        reason: Why, in one sentence.
    """

    node: str
    op_type: str
    macs_share: float | None
    damage_db: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search did and found.

    Attributes:
        kind: What it was for.
        goal: The bounds in words: "top-1 drop at most 0.5 points".
        verdict: Of the samples reported on, which the search never saw; of a floor, of the samples searched with.
        reason: Why.
        samples_searched: How many samples steered the search.
        samples_reported: How many others the verdict rests on; 0 for a floor.
        searched: The answer against the float model on the samples searched with.
        reported: The same on the others; None for a floor.
        int8_share: Share of the MACs of convolutions and products that are INT8, 0 … 1; None where no shape is known.
        placed_share: The same before the search.
        ranges: The calibrator whose ranges were taken; "auto" chose per tensor by measured error.
        ranges_before: The calibrator that was asked for.
        improvements: What each rewrite that was tried gained.
        spared: The layers left in float.
        curve: Every assignment tried, in the order of INT8 compute, most first.
        checks: How many assignments were run end to end.
        recalled: How many of them were known from an interrupted search.
        seed: What the choices by chance came from.
    """

    kind: SearchKind
    goal: str
    verdict: Verdict
    reason: str
    samples_searched: int
    samples_reported: int
    searched: Comparison | None
    reported: Comparison | None
    int8_share: float | None
    placed_share: float | None
    ranges: str
    ranges_before: str
    improvements: tuple[ImprovementReport, ...]
    spared: tuple[SparedLayer, ...]
    curve: tuple[CurvePoint, ...]
    checks: int
    recalled: int
    seed: int = 0
