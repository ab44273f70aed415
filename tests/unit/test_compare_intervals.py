"""How sure a figure is."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from trt_opt.compare.intervals import bootstrap_interval, mean_interval, paired_interval
from trt_opt.compare.measured import Energies, PairedRows
from trt_opt.compare.totals import OutputTotals
from trt_opt.values.accuracy import TaskAccuracy
from trt_opt.values.metric import Z


def rejected_by_search(lost: int, gained: int, rows: int, delta: float) -> bool:
    """The score test with the likeliest shares found by trying many, not by Tango's formula."""
    gained_share = np.linspace(max(0.0, -delta), (1 - delta) / 2, 400_001)[1:-1]
    lost_share = gained_share + delta
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (
            np.where(lost > 0, lost * np.log(lost_share), 0.0)
            + np.where(gained > 0, gained * np.log(gained_share), 0.0)
            + (rows - lost - gained) * np.log1p(-lost_share - gained_share)
        )
    best = int(np.nanargmax(likelihood))
    variance = lost_share[best] + gained_share[best] - delta**2
    return abs(lost - gained - rows * delta) > Z * math.sqrt(rows * variance)


@pytest.mark.parametrize(("lost", "gained", "rows"), [(12, 2, 50), (3, 0, 40), (7, 7, 100), (1, 9, 30), (30, 5, 40)])
def test_paired_interval_is_what_the_score_test_keeps(lost: int, gained: int, rows: int) -> None:
    """Just inside both ends the difference is kept, just outside it is rejected."""
    low, high = paired_interval(lost, gained, rows)
    assert low < (lost - gained) / rows < high
    for end, outward in ((low, -1e-3), (high, 1e-3)):
        assert not rejected_by_search(lost, gained, rows, end - outward)
        assert rejected_by_search(lost, gained, rows, end + outward)


def test_no_discordant_row_still_has_a_width() -> None:
    """z²/(rows + z²) to either side, which shrinks as rows are added and is under 1 point from 381 rows on."""
    for rows in (1, 3, 20, 450):
        low, high = paired_interval(0, 0, rows)
        assert high == pytest.approx(Z**2 / (rows + Z**2), abs=1e-9)
        assert low == pytest.approx(-high, abs=1e-12)
    assert paired_interval(0, 0, 381)[1] < 0.01 < paired_interval(0, 0, 380)[1]


def test_paired_interval_knows_its_limits() -> None:
    """All rows lost: from (rows - z²)/(rows + z²) to 1, and the mirrored counts give the mirrored interval."""
    low, high = paired_interval(20, 0, 20)
    assert (low, high) == (pytest.approx((20 - Z**2) / (20 + Z**2)), 1.0)
    assert paired_interval(0, 20, 20) == pytest.approx((-high, -low))


def test_paired_interval_covers_the_true_difference() -> None:
    """Of 2000 data sets of 100 rows, about 95 of 100 intervals hold the true drop."""
    generator = np.random.default_rng(3)
    lost, gained = 0.06, 0.02
    found = [paired_interval(int(b), int(c), 100) for b, c, _ in generator.multinomial(100, [lost, gained, 0.92], 2000)]
    covered = np.mean([low <= lost - gained <= high for low, high in found])
    assert 0.93 < covered < 0.98


def test_paired_rows_count_both_ways() -> None:
    """Lost and gained rows are counted apart, over several samples; no row gives no interval."""
    rows = PairedRows()
    assert rows.drop_interval_points() is None
    rows.add(np.array([True, True, False]), np.array([True, False, True]))
    rows.add(np.array([True]), np.array([False]))
    assert (rows.rows, rows.lost, rows.gained) == (4, 2, 1)
    assert rows.drop_interval_points() == pytest.approx([100 * end for end in paired_interval(2, 1, 4)])


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    """With many samples, mean ± 1.96 standard errors; the same data give the same interval."""
    scores = np.random.default_rng(0).normal(0.7, 0.1, 2000)
    low, high = mean_interval(scores)  # type: ignore[misc]
    error = Z * scores.std() / math.sqrt(len(scores))
    assert low == pytest.approx(scores.mean() - error, abs=0.2 * error)
    assert high == pytest.approx(scores.mean() + error, abs=0.2 * error)
    assert mean_interval(scores) == (low, high)


def test_bootstrap_needs_numbers_and_two_samples() -> None:
    """One sample, none, or NaN among them: there is nothing to say."""
    for scores in (np.zeros(0), np.ones(1), np.array([0.5, np.nan, 0.6])):
        assert mean_interval(scores) is None
    assert bootstrap_interval(np.zeros((5, 2)), lambda sums: sums[:, 0] / sums[:, 1]) is None


def energies_of(errors: list[float]) -> Energies:
    found = Energies()
    for error in errors:
        one = OutputTotals("y")
        one.add(np.ones((1, 4), np.float32), np.full((1, 4), 1 + error, np.float32))
        found.add(one)
    return found


def test_sqnr_interval_is_about_the_pooled_value() -> None:
    """Equal samples have no width, unequal ones do, and it holds the pooled SQNR."""
    low, high = energies_of([0.1] * 10).sqnr_interval_db()  # type: ignore[misc]
    assert (low, high) == pytest.approx((20, 20), abs=1e-3)
    low, high = energies_of([0.1, 0.01] * 20).sqnr_interval_db()  # type: ignore[misc]
    pooled = 10 * math.log10(2 / (0.1**2 + 0.01**2))
    assert low < pooled - 0.5 < pooled + 0.5 < high


def test_a_single_sample_with_noise_leaves_the_sqnr_open_above() -> None:
    """Many resampled data sets do without it, so no upper end is known; the lower one is."""
    low, high = energies_of([0.1, *[0.0] * 9]).sqnr_interval_db()  # type: ignore[misc]
    assert 20 < low < 30
    assert high == math.inf


def test_cosine_interval_holds_the_cosine() -> None:
    """From the same energies; it never leaves -1 … 1."""
    generator = np.random.default_rng(0)
    found, totals = Energies(), OutputTotals("y")
    for _ in range(50):
        reference = generator.normal(size=(1, 8)).astype(np.float32)
        one = OutputTotals("y")
        one.add(reference, reference + generator.normal(0, 0.2, size=(1, 8)).astype(np.float32))
        found.add(one)
        totals.merge(one)
    low, high = found.cosine_interval()  # type: ignore[misc]
    assert low < (totals.cosine or 0) < high <= 1


def test_shares_carry_their_intervals() -> None:
    """Top-5 likewise; more rows make the interval narrower."""
    widths = []
    for rows in (10, 100, 1000):
        found = TaskAccuracy(rows, 0.5, 0.9)
        assert found.top5_interval is not None
        assert found.top5_interval[0] < 0.9 < found.top5_interval[1]
        widths.append(found.top1_interval[1] - found.top1_interval[0])
    assert all(wide > narrow for wide, narrow in pairwise(widths))
    assert TaskAccuracy(10, 0.5, None).top5_interval is None
