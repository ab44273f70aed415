"""Verdicts at their edges."""

from __future__ import annotations

import numpy as np

from trt_opt.compare import METRICS, SMALLEST_SAMPLE, Limits
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


def test_a_few_rows_tell_no_drop_and_no_agreement() -> None:
    """Below the smallest sample neither PASS nor FAIL, whatever the drop; at it, both."""
    for right, verdict in (((3, 3), "PASS"), ((3, 0), "FAIL")):
        few = measured((right[0], right[1]), rows=3)
        assert verdict_of(few, Limits(max_drop=0.5)) == (
            "INCONCLUSIVE",
            "3 rows cannot tell a drop of 0.5 points: give at least 20; one row is 33.33 points",
        )
        enough = measured((20 * right[0] // 3, 20 * right[1] // 3), rows=SMALLEST_SAMPLE)
        assert verdict_of(enough, Limits(max_drop=0.5))[0] == verdict
    few = measured()
    few.outputs[0].rows, few.outputs[0].rows_agreeing = 19, 19
    assert verdict_of(few, Limits(min_agreement=99))[0] == "INCONCLUSIVE"
    few.outputs[0].rows, few.outputs[0].rows_agreeing = 20, 20
    assert verdict_of(few, Limits(min_agreement=99))[0] == "PASS"


def test_a_coarse_row_is_told_and_changes_nothing() -> None:
    """75 rows and half a point: one row is 1.33 points; with 300 rows, or a budget of 0, there is nothing to tell."""
    assert verdict_of(measured((75, 75), rows=75), Limits(max_drop=0.5)) == (
        "PASS",
        "top-1 accuracy drops by 0.00 points, at most 0.5; one row is 1.33 points",
    )
    assert "one row" not in verdict_of(measured((300, 300), rows=300), Limits(max_drop=0.5))[1]
    assert "one row" not in verdict_of(measured((75, 75), rows=75), Limits(max_drop=0))[1]


def test_a_reference_no_better_than_chance_judges_nobody() -> None:
    """Of ten classes: 9.8 % and 14 % of 100 rows may be chance, 30 % is not; top-5 has a chance of a half."""

    def guessing(right: int, classes: int | None = 10, name: str = "top1") -> tuple[str, str]:
        rows = 1000 if right == 98 else 100
        found = measured((right, right), rows=rows)
        for task in (found.reference_task, found.candidate_task):
            task.fewest_classes, task.top5_right = classes, right
        return verdict_of(found, Limits(max_drop=1, metric=METRICS[name]))

    assert guessing(98) == (
        "INCONCLUSIVE",
        "the reference itself is right in 9.8 % of 1000 rows, and chance is 10 %: the labels or the preprocessing do "
        "not fit",
    )
    assert guessing(0)[0] == guessing(14)[0] == "INCONCLUSIVE"
    assert guessing(30)[0] == guessing(14, None)[0] == "PASS"
    assert guessing(30, name="top5")[0] == guessing(55, name="top5")[0] == "INCONCLUSIVE"
    assert guessing(80, name="top5")[0] == "PASS"


def test_a_reference_that_guesses_fails_nobody_either() -> None:
    """What was right by chance is no loss."""
    found = measured((12, 0), rows=100)
    found.reference_task.fewest_classes = 10
    assert verdict_of(found, Limits(max_drop=1))[0] == "INCONCLUSIVE"
