"""A search's answer as a value."""

from __future__ import annotations

from collections.abc import Mapping

from trt_opt.accuracy_search.budget import Budget
from trt_opt.accuracy_search.judging import Judge
from trt_opt.accuracy_search.search import Answer
from trt_opt.accuracy_search.state import Assignment, Compute
from trt_opt.sensitivity.end_to_end import Damage
from trt_opt.values.accuracy import Comparison, Verdict
from trt_opt.values.search import SearchReport, SparedLayer

FEW_INT8_PCT = 50.0
"""Below this share of MACs in INT8 the user is told that INT8 does little for this model."""


def report_of(
    answer: Answer,
    judge: Judge,
    budget: Budget,
    assignment: Assignment,
    reasons: Mapping[str, str],
    *,
    recalled: int,
) -> SearchReport:
    """What was searched and found.

    A floor's verdict is that of the samples searched with. A budget's is open until `Decision.reported` knows that of
    the others.

    Args:
        answer: What the search ended with.
        judge: What it asked.
        budget: What it aimed at.
        assignment: The answer's graph.
        reasons: Layer left in float → why.
        recalled: How many comparisons were known from before.
    """
    compute, searched = judge.compute(answer.state), judge.comparison(answer.state, frozenset(answer.spared))
    verdict, reason = OPEN if budget.is_asked_for else _floor_verdict(answer, budget, searched)
    return SearchReport(
        kind="budget" if budget.is_asked_for else "floor",
        goal=budget.goal,
        verdict=verdict,
        reason=reason,
        samples_searched=len(budget.search),
        samples_reported=0,
        searched=searched,
        reported=None,
        int8_share=compute.share(assignment.source.quantized_nodes),
        placed_share=judge.compute(answer.first).share(answer.first.source.quantized_nodes),
        ranges=answer.state.table.calibrator,
        ranges_before=answer.first.table.calibrator,
        improvements=answer.improvements,
        spared=_spared(answer.spared, assignment, compute, reasons),
        curve=tuple(judge.curve),
        checks=judge.checks,
        recalled=recalled,
        seed=answer.seed,
    )


def notes_on(report: SearchReport) -> tuple[str, ...]:
    """What the user should know."""
    notes: list[str] = []
    count = len(report.spared)
    if report.kind == "floor" and count:
        notes.append(
            f"{count} layer{'s' * (count != 1)} stay{'s' * (count == 1)} in float because INT8 would ruin the output; "
            "`trt-opt sensitivity` shows why, --int8-all quantises all"
        )
    if report.kind == "floor" and report.verdict != "PASS":
        notes.append(f"INT8 ruins this model as far as calibration samples tell: {report.reason}")
    share = report.int8_share
    if share is not None and 100 * share < FEW_INT8_PCT:
        told = f"only {100 * share:.0f} % of the multiply-accumulates are left in INT8"
        notes.append(f"{told}: compare with --fp16 alone")
    return tuple(notes)


OPEN: tuple[Verdict, str] = ("INCONCLUSIVE", "not judged on samples that the search never saw")


def _floor_verdict(answer: Answer, budget: Budget, searched: Comparison) -> tuple[Verdict, str]:
    found = searched.sqnr_db
    told = "no error" if found is None else f"{found:.1f} dB"
    return ("PASS", told) if answer.margin >= -budget.slack else ("FAIL", f"{told} at best")


def _spared(
    spared: Mapping[str, Damage | None], assignment: Assignment, compute: Compute, reasons: Mapping[str, str]
) -> tuple[SparedLayer, ...]:
    """The layers left in float, the one that does most damage first."""
    nodes = assignment.source.index.nodes

    def rank(node: str) -> float:
        damage = spared[node]
        return -(damage.energy or 0.0) if damage is not None else 0.0

    return tuple(
        SparedLayer(
            node,
            nodes[node].op_type,
            compute.share([node]) if node in compute.macs else None,
            damage.output_db if (damage := spared[node]) is not None else None,
            reasons[node],
        )
        for node in sorted(spared, key=rank)
    )
