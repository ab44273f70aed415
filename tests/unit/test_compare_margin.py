"""How far inside a budget a candidate is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_opt.compare import METRICS, Limits, margin
from trt_opt.compare.matching import Matching
from trt_opt.compare.measured import Measured
from trt_opt.compare.scores import TaskTotals
from trt_opt.compare.totals import OutputTotals
from trt_opt.compare.verdict import judgement_of
from trt_opt.values.accuracy import Comparison

CLASSES = 4


def comparison(right: tuple[int, int] = (90, 88), error: float = 0.1, rows: int = 100, **limits: float) -> Comparison:
    """A hundred rows, the reference all ones, every element off by `error`, and as many right answers as given."""
    totals = OutputTotals("y")
    reference = np.ones((rows, CLASSES), np.float32)
    totals.add(reference, (reference + np.float32(error)).astype(np.float32))
    tasks = [TaskTotals(rows, top1_right=count, fewest_classes=CLASSES) for count in right]
    measured = Measured(rows, Matching({"y": "y"}), (totals,), tasks[0], tasks[1])
    judged = judgement_of(measured, Limits(**limits))
    accuracies = [task.accuracy() for task in tasks]
    return Comparison(
        "r", "c", rows, measured.output_accuracies(), *accuracies, judged.verdict, judged.reason, judged.metric
    )


def test_every_bound_counts_in_its_own_unit() -> None:
    """Points of drop, dB, points of agreement; of several bounds the worst counts."""
    found = comparison()
    assert margin(found, Limits(max_drop=5)) == pytest.approx(3)
    assert margin(found, Limits(max_drop=1.5)) == pytest.approx(-0.5)
    assert margin(found, Limits(min_sqnr_db=15)) == pytest.approx(5, abs=1e-4)
    assert margin(found, Limits(min_agreement=99)) == pytest.approx(1)
    assert margin(found, Limits(max_drop=5, min_sqnr_db=19, min_agreement=98)) == pytest.approx(1, abs=1e-4)


def test_a_bound_met_exactly_is_met() -> None:
    """One row of a hundred is 1 point, though 1 - 0.99 is more than 0.01 in floating point."""
    assert margin(comparison((100, 99)), Limits(max_drop=1)) == 0
    output = replace(comparison().outputs[0], rows=1000, top1_agreement=0.999)
    assert margin(replace(comparison(), outputs=(output,)), Limits(min_agreement=99.9)) == 0


def test_what_cannot_be_told_is_infinitely_far_outside() -> None:
    """NaN outputs, a NaN metric, no labels for a drop, no answers to agree, nothing compared."""
    found = comparison(error=math.nan)
    assert margin(found, Limits()) == -math.inf
    assert margin(found, Limits(max_drop=100)) == -math.inf
    good = comparison()
    assert margin(replace(good, metric=None), Limits(max_drop=100)) == -math.inf
    broken = replace(good.metric, candidate=math.nan, drop_points=math.nan)  # type: ignore[type-var]
    assert margin(replace(good, metric=broken), Limits(min_sqnr_db=0)) == -math.inf
    dense = replace(good, outputs=(replace(good.outputs[0], rows=0, top1_agreement=None),))
    assert margin(dense, Limits(min_agreement=1)) == -math.inf
    assert margin(replace(good, outputs=()), Limits()) == -math.inf
    assert margin(good, Limits(atol=1)) == -math.inf  # was compared without tolerances


def test_no_noise_and_no_bound_are_infinitely_far_inside() -> None:
    """Identical outputs have no SQNR; silence that became noise has none either, and fails."""
    same = comparison(error=0)
    assert margin(same, Limits(min_sqnr_db=500)) == math.inf
    assert margin(same, Limits()) == math.inf
    silent = replace(same.outputs[0], identical=False, sqnr_db=None, max_abs_error=0.5)
    assert margin(replace(same, outputs=(silent,)), Limits(min_sqnr_db=0)) == -math.inf


def test_the_metric_of_the_limits_decides_the_drop() -> None:
    """Agreement lost, in points, instead of right answers."""
    assert margin(comparison(metric=METRICS["agreement"]), Limits(max_drop=2)) == 2  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    right=st.tuples(st.integers(60, 100), st.integers(0, 100)),
    error=st.sampled_from([0.0, 0.01, 0.1, 3.0]),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "max_drop": st.sampled_from([0.0, 0.5, 1.0, 7.0, 30.0]),
            "min_sqnr_db": st.sampled_from([0.0, 20.0, 39.0]),
            "min_agreement": st.sampled_from([0.0, 99.9, 100.0]),
        },
    ),
)
def test_the_sign_is_the_verdict(right: tuple[int, int], error: float, limits: dict[str, float]) -> None:
    """PASS is 0 or more, FAIL is less, whatever the bounds."""
    found = comparison(right, error, **limits)
    inside = margin(found, Limits(**limits)) >= 0
    assert found.verdict == ("INCONCLUSIVE" if not limits else "PASS" if inside else "FAIL"), found.reason
