"""The search: ranges, then rewrites, then layers back to float, until the budget is met."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from trt_opt.accuracy_search.bisection import Found, Suspect, fewest_spared
from trt_opt.accuracy_search.budget import Budget
from trt_opt.accuracy_search.judging import Judge
from trt_opt.accuracy_search.reasons import FP16_TOO_COARSE
from trt_opt.accuracy_search.state import State, suspects_from
from trt_opt.accuracy_search.steps import Steps
from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.sensitivity.end_to_end import Damage, damages
from trt_opt.sensitivity.layers import quantized_layers
from trt_opt.values.accuracy import Comparison
from trt_opt.values.improvement import ImprovementReport
from trt_opt.values.progress import Progress

SAMPLES_FOR_DAMAGE = 32
"""How many calibration samples rank the layers."""

ALL_FLOAT = "all layers to float"


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a search ends with.

    Attributes:
        state: The model with the steps that were kept.
        spared: Layer → what it alone does to the output; the layers left in float.
        margin: How far inside the budget that is on the samples searched with.
        first: The model before the search.
        seed: What choices by chance came from.
        improvements: What each rewrite that was tried did.
    """

    state: State
    spared: Mapping[str, Damage | None]
    margin: float
    first: State
    seed: int
    improvements: tuple[ImprovementReport, ...] = ()

    @property
    def is_as_placed(self) -> bool:
        """Whether the search changed nothing, and had not to."""
        return self.state is self.first and not self.spared and self.margin >= 0


class Search:
    """One search.

    Args:
        state: INT8 as placed and calibrated.
        judge: Runs assignments.
        steps: Makes better states.
        budget: What is aimed at. Where nobody asked, ranges are tried once alone, which saves a third of the time.
        progress: Told what is best so far.
    """

    def __init__(self, state: State, judge: Judge, steps: Steps, budget: Budget, progress: Progress) -> None:
        self._first = state
        self._state = state
        self._judge = judge
        self._steps = steps
        self._slack = budget.slack
        self._is_asked_for = budget.is_asked_for
        self._progress = progress
        self._margin = 0.0
        self._reports: list[ImprovementReport] = []

    def run(self) -> Answer:
        """Stops at the first step that meets the budget."""
        self._margin = self._judge.margin(self._state, step="INT8 as placed")
        self._tell()
        self._choose_ranges()
        for improvement in self._steps.wanted:
            if self._margin >= 0:
                break
            before = self._state.source
            state, report = self._steps.with_improvement(self._state, improvement)
            self._reports.append(self._tried(state, report))
            if self._state.source is not before and self._is_asked_for:
                self._choose_ranges()
        if self._margin >= -self._slack:
            return self._answer(Found(frozenset(), self._margin), {})
        return self._spare_layers()

    def _choose_ranges(self) -> None:
        """Keeps the best of all calibrators' ranges; the first that meets the budget is enough."""
        if self._margin >= 0 or not (self._is_asked_for or self._steps.calibrator_is_open):
            return
        begun = self._state.table.calibrator
        for state in self._steps.with_other_ranges(self._state):
            if state.table.calibrator != begun:
                self._kept_if_better(state, f"ranges: {state.table.calibrator}")
            if self._margin >= 0:
                return

    def _tried(self, state: State | None, report: ImprovementReport) -> ImprovementReport:
        """The report of a rewrite with what it did to the whole model; the state is kept if that became better."""
        before = self._judge.comparison(self._state, frozenset()).sqnr_db
        if state is None:
            return replace(report, before_db=before, after_db=before)
        after = self._judge.comparison(state, frozenset()).sqnr_db
        return replace(report, before_db=before, after_db=after, kept=self._kept_if_better(state, report.name))

    def _kept_if_better(self, state: State, step: str) -> bool:
        """Keeps a state whose margin grew; where it stayed, as that of a share of few rows does, the SQNR decides."""
        margin = self._judge.margin(state, step=step)
        before, after = (_sqnr_db(self._judge.comparison(side, frozenset())) for side in (self._state, state))
        if not (margin, after) > (self._margin, before):
            return False
        self._state, self._margin = state, margin
        self._tell()
        return True

    def _spare_layers(self) -> Answer:
        damage = {entry.node: entry for entry in self._damages()}
        suspects = suspects_from(damage.values(), self._judge.compute(self._state))
        self._widen(suspects)

        def margin(spared: Iterable[str]) -> float:
            inside = self._judge.margin(self._state, spared, step="layers to float")
            self._tell()
            return inside + self._slack

        found = fewest_spared(suspects, margin)
        return self._answer(Found(found.spared, found.margin - self._slack), damage)

    def _widen(self, suspects: list[Suspect]) -> None:
        """Keeps layers in FP32 where not even all in FP16 meet the budget: what INT8 ruins, FP16 may ruin too."""
        everything = frozenset(suspect.node for suspect in suspects)
        plain = self._state
        if not plain.request.fp16 or self._judge.margin(plain, everything, step=ALL_FLOAT) >= -self._slack:
            return

        def margin(wide: Iterable[str]) -> float:
            return self._judge.margin(_with_wide(plain, wide), everything, step="layers to FP32") + self._slack

        found = fewest_spared(suspects, margin)
        if found.spared and found.margin > self._judge.margin(plain, everything, step=ALL_FLOAT) + self._slack:
            self._state = _with_wide(plain, found.spared)

    def _damages(self) -> tuple[Damage, ...]:
        layers = quantized_layers(self._state.source, self._state.table.ranges, self._state.corrections)
        samples = EvenlySpread(self._steps.calibration, SAMPLES_FOR_DAMAGE)
        return damages(self._state.source, layers, samples, self._progress)

    def _answer(self, found: Found, damage: Mapping[str, Damage]) -> Answer:
        return Answer(
            self._state,
            {node: damage.get(node) for node in sorted(found.spared)},
            found.margin,
            self._first,
            self._steps.recipe.seed,
            tuple(self._reports),
        )

    def _tell(self) -> None:
        """Says what is best so far of a budget that was asked for."""
        if not self._is_asked_for:
            return
        best = self._judge.best
        share = "-" if best.int8_share is None else f"{100 * best.int8_share:.1f} % of MACs in INT8"
        figures = [f"drop {best.drop:.2f} points"] if best.drop is not None else []
        figures += [f"{best.agreement:.2f} % same answers"] if best.agreement is not None else []
        figures += [f"{best.sqnr_db:.1f} dB"] if best.sqnr_db is not None else []
        told = "meets the budget" if best.met else "misses the budget"
        self._progress.note(f"best so far {told}: {', '.join([share, *figures])}")


def _sqnr_db(found: Comparison) -> float:
    """The worst output's, infinite without an error."""
    return math.inf if found.sqnr_db is None else found.sqnr_db


def _with_wide(state: State, wide: Iterable[str]) -> State:
    """The state with these layers in FP32 where they are not in INT8."""
    nodes = sorted(wide)
    if not nodes:
        return state
    request = replace(state.request, wide=dict.fromkeys(nodes, FP16_TOO_COARSE))
    return replace(state, name=f"{state.name} + FP32 for {', '.join(nodes)}", request=request)
