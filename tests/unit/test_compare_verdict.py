"""Verdicts at their edges."""

from __future__ import annotations

import numpy as np

from trt_opt.compare import Limits
from trt_opt.compare.matching import Matching, matching_of
from trt_opt.compare.scores import TaskTotals
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.verdict import Measured, verdict_of


def measured(right: tuple[int, int] = (100, 100), rows: int = 100, elements: int = 4) -> Measured:
    totals = OutputTotals("y")
    totals.add(np.ones((1, elements), np.float32), np.ones((1, elements), np.float32))
    tasks = [TaskTotals(rows, top1_right=count) for count in right]
    return Measured(1, Matching({"y": "y"}), (totals,), tasks[0], tasks[1])


def test_a_limit_met_exactly_is_met() -> None:
    """One row of a hundred is 1 point, though in floating point 1 - 0.99 is more than 0.01."""
    assert 100 * (1.0 - 0.99) > 1
    assert verdict_of(measured((100, 99)), Limits(max_drop=1))[0] == "PASS"
    assert verdict_of(measured((100, 98)), Limits(max_drop=1))[0] == "FAIL"
    agreeing = measured()
    agreeing.outputs[0].rows, agreeing.outputs[0].rows_agreeing = 1000, 999
    assert verdict_of(agreeing, Limits(min_agreement=99.9))[0] == "PASS"


def test_a_gain_is_no_drop() -> None:
    """A candidate that is right more often than the reference passes."""
    assert verdict_of(measured((90, 95)), Limits(max_drop=0))[0] == "PASS"


def test_nothing_compared_is_inconclusive() -> None:
    """No sample, no shared output, no element, unequal numbers of labelled rows: with limits, and still no pass."""
    limits = Limits(min_sqnr_db=0, max_drop=0)
    none = Measured(0, None, (), TaskTotals(), TaskTotals())
    assert verdict_of(none, limits)[0] == "INCONCLUSIVE"
    apart = Measured(5, matching_of(["a", "b"], ["c"]), (), TaskTotals(5), TaskTotals(5))
    verdict, reason = verdict_of(apart, limits)
    assert verdict == "INCONCLUSIVE"
    assert "only the reference has the output a, b" in reason
    assert verdict_of(measured(elements=0), Limits(max_drop=0))[0] == "INCONCLUSIVE"
    uneven = measured()
    uneven.candidate_task.rows = 99
    assert verdict_of(uneven, Limits(max_drop=0))[0] == "INCONCLUSIVE"


def test_a_failure_outweighs_what_could_not_be_told() -> None:
    """FAIL stays FAIL when another limit could not be checked."""
    verdict, reason = verdict_of(measured((100, 50)), Limits(max_drop=1, min_agreement=101 - 1, atol=None))
    assert (verdict, reason) == ("FAIL", "top-1 accuracy drops by 50.00 points, not by at most 1")


def test_matching_is_by_name_first() -> None:
    """Swapped outputs are matched by name; only entirely different names fall back to the order."""
    assert matching_of(["a", "b"], ["b", "a"]).pairs == {"a": "a", "b": "b"}
    assert matching_of(["a", "b"], ["c", "d"]) == Matching({"a": "c", "b": "d"}, by_position=True)
    assert matching_of(["a", "b"], ["a", "c"]) == Matching({"a": "a"}, False, ("b",), ("c",))
