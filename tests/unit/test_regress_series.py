"""The newest figures of a series against its past."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_opt.errors import RequestError
from trt_opt.regress.metrics import METRICS
from trt_opt.regress.segments import change_points, memory_of
from trt_opt.regress.series import SeriesLimits, judge_series

LATENCY, TOP1, SIZE = METRICS["latency_ms"], METRICS["top1"], METRICS["engine_bytes"]
THROUGHPUT = METRICS["throughput_per_s"]

few_examples = settings(max_examples=40, deadline=None)


def nights(count: int, noise: float = 0.01, seed: int = 0) -> list[float]:
    """Latencies around 5 ms with log-normal noise."""
    return (5 * np.exp(np.random.default_rng(seed).normal(0, noise, count))).tolist()


def slower(values: list[float], factor: float, count: int) -> list[float]:
    """The last figures, slower."""
    return [*values[:-count], *(factor * value for value in values[-count:])]


def first_failure(values: list[float], count: int) -> int | None:
    """In which of the last nights the check fails first, from 1; None in none."""
    before = len(values) - count
    verdicts = [judge_series(values[: before + night], LATENCY).verdict for night in range(1, count + 1)]
    return verdicts.index("FAIL") + 1 if "FAIL" in verdicts else None


@pytest.mark.parametrize("seed", range(10))
def test_a_small_lasting_shift_is_found_within_five_nights(seed: int) -> None:
    """3 % in nights that scatter by 0.7 %."""
    assert first_failure(slower(nights(45, 0.007, seed), 1.03, 5), 5) is not None


def test_a_large_shift_is_found_in_its_first_night() -> None:
    """Half as slow again, after six nights only."""
    assert judge_series([*nights(6), 7.5], LATENCY).verdict == "FAIL"


def test_the_check_says_what_it_saw() -> None:
    """Baseline, effect with bounds, and where the new level begins."""
    judged = judge_series(slower(nights(45, 0.005), 1.03, 5), LATENCY)
    assert judged.baseline == pytest.approx(5, rel=0.01)
    assert judged.effect is not None
    low, high = judged.effect.interval
    assert 0 < low < math.log(1.03) < high
    assert judged.change_points == (40,)
    assert "over the last 5" in judged.reason


def test_a_quiet_series_passes_night_after_night() -> None:
    """No alarm in fifty nights of 1 % noise."""
    values = nights(60, seed=4)
    assert {judge_series(values[:count], LATENCY).verdict for count in range(10, 61)} == {"PASS"}


def test_one_slow_night_among_quiet_ones_asks_for_another_measurement() -> None:
    """A single outlier that a short history does not explain is INCONCLUSIVE; if the next night is as before, PASS."""
    values = nights(20, 0.005)
    assert judge_series([*values, 5.5], LATENCY).verdict == "INCONCLUSIVE"
    assert judge_series([*values, 5.5, 5.0], LATENCY).verdict == "PASS"


def test_a_series_that_has_outliers_explains_one_more() -> None:
    """A night like ones that were there before, and went, is no alarm; one twice as bad is."""
    values = nights(70, 0.005)
    for night in (10, 25, 44):
        values[night] = 5.6
    assert judge_series([*values, 5.55], LATENCY).verdict == "PASS"
    assert judge_series([*values, 5.9], LATENCY).verdict == "INCONCLUSIVE"
    assert judge_series([*values, 6.6], LATENCY).verdict == "FAIL"


def test_nights_on_two_clocks_are_no_regression() -> None:
    """Three slow nights in a row, in a series where a third of the nights are slow by chance."""
    clock = np.random.default_rng(5).random(60) < 0.35
    values = [value * (1.08 if slow else 1.0) for value, slow in zip(nights(60, 0.003), clock, strict=True)]
    assert judge_series([*values, 5.4, 5.4, 5.4], LATENCY).verdict != "FAIL"


def test_an_improvement_is_told_and_never_fails() -> None:
    """Faster nights pass, and the reason says so."""
    judged = judge_series(slower(nights(45, 0.005), 0.9, 3), LATENCY)
    assert judged.verdict == "PASS"
    assert judged.reason.startswith("better: ")


def test_after_an_improvement_the_baseline_moves() -> None:
    """Falling back to what was there before the improvement is a regression."""
    values = slower(nights(60, 0.005), 0.9, 20)
    judged = judge_series([*values, 5.0, 5.0, 5.0], LATENCY)
    assert judged.verdict == "FAIL"
    assert judged.baseline == pytest.approx(4.5, rel=0.01)


def test_a_change_for_the_worse_is_an_alarm_until_it_has_settled() -> None:
    """It fails for ten nights; then it is the level, and what follows is held against it."""
    values = slower(nights(60, 0.005), 1.1, 20)
    verdicts = [judge_series(values[: 40 + night], LATENCY).verdict for night in range(3, 21)]
    assert set(verdicts[:8]) == {"FAIL"}
    assert set(verdicts[8:]) == {"PASS"}
    assert judge_series(values, LATENCY).change_points == (40,)


def test_what_the_user_accepted_is_the_level_at_once() -> None:
    """With `accepted`, nothing from before that night is held against it."""
    values = slower(nights(40, 0.005), 1.1, 7)
    assert judge_series(values, LATENCY).verdict == "FAIL"
    assert judge_series(values, LATENCY, accepted=33).verdict == "PASS"
    assert judge_series(values, LATENCY, accepted=38).verdict == "INCONCLUSIVE"


def test_an_accuracy_that_repeats_itself_fails_by_its_floor() -> None:
    """Three equal figures are history enough, and exactly half a point lost counts."""
    assert judge_series([0.98] * 3 + [0.975], TOP1).verdict == "FAIL"
    assert judge_series([0.98] * 3 + [0.976], TOP1).verdict == "PASS"
    assert judge_series([0.98] * 3 + [0.99], TOP1).verdict == "PASS"
    assert judge_series([0.98] * 2 + [0.9], TOP1).verdict == "INCONCLUSIVE"


def test_a_better_accuracy_is_the_new_baseline() -> None:
    """What was won cannot be lost again without an alarm."""
    judged = judge_series([0.97] * 10 + [0.98] * 4 + [0.97], TOP1)
    assert judged.verdict == "FAIL"
    assert judged.baseline == pytest.approx(0.98)


def test_a_bigger_engine_fails() -> None:
    """Sizes are held by their ratio."""
    assert judge_series([1000000.0] * 5 + [1100000.0], SIZE).verdict == "FAIL"
    assert judge_series([1000000.0] * 5 + [1010000.0], SIZE).verdict == "PASS"
    assert judge_series([1000000.0] * 5 + [500000.0], SIZE).verdict == "PASS"


@pytest.mark.parametrize("count", range(5))
def test_too_little_history_is_inconclusive(count: int) -> None:
    """Fewer than five earlier figures that scatter tell nothing, however bad the newest is."""
    judged = judge_series([*nights(count, 0.02), 50.0], LATENCY)
    assert judged.verdict == "INCONCLUSIVE"
    assert "not enough history" in judged.reason
    assert judged.baseline is None and judged.effect is None


def test_a_series_that_scatters_too_much_is_inconclusive() -> None:
    """Where a lasting change of 15 % would not show, no night passes."""
    judged = judge_series(nights(30, 0.5), LATENCY)
    assert judged.verdict == "INCONCLUSIVE"
    assert "scatter" in judged.reason


@few_examples
@given(st.integers(0, 2**32 - 1), st.integers(6, 40), st.floats(1e-3, 1e3), st.sampled_from([1.0, 1.04, 1.5]))
def test_the_unit_of_time_does_not_matter(seed: int, count: int, factor: float, shift: float) -> None:
    """The same series in other units is the same judgement."""
    values = slower(nights(count, 0.01, seed), shift, 3)
    one, other = judge_series(values, LATENCY), judge_series([factor * value for value in values], LATENCY)
    assert one.verdict == other.verdict
    assert one.change_points == other.change_points
    if one.effect is not None and other.effect is not None and one.baseline is not None:
        assert other.effect.worse == pytest.approx(one.effect.worse, abs=1e-9)
        assert other.baseline == pytest.approx(factor * one.baseline)


@few_examples
@given(st.integers(0, 2**32 - 1), st.integers(6, 40), st.sampled_from([1.0, 1.04, 1.5]))
def test_a_throughput_is_judged_as_the_latency_it_stands_for(seed: int, count: int, shift: float) -> None:
    """Higher-is-better is lower-is-better turned around."""
    values = slower(nights(count, 0.01, seed), shift, 3)
    assert judge_series([1 / value for value in values], THROUGHPUT).verdict == judge_series(values, LATENCY).verdict


@few_examples
@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=20),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0]),
    st.data(),
)
def test_what_is_no_figure_never_passes(values: list[float], wrong: float, data: st.DataObject) -> None:
    """NaN, infinity, zero and negative times anywhere are INCONCLUSIVE, and told."""
    spoiled = list(values)
    spoiled[data.draw(st.integers(0, len(values) - 1))] = wrong
    judged = judge_series(spoiled, LATENCY)
    assert judged.verdict == "INCONCLUSIVE"
    assert "is no latency" in judged.reason


def test_nothing_is_inconclusive() -> None:
    """An empty series, and one with nothing since what was accepted."""
    assert judge_series([], LATENCY).verdict == "INCONCLUSIVE"
    assert judge_series([1.0] * 10, LATENCY, accepted=10).verdict == "INCONCLUSIVE"


@few_examples
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=40), st.floats(0.001, 1000))
def test_a_figure_no_worse_than_all_before_never_fails(values: list[float], newest: float) -> None:
    """Whatever the history, the best figure of all is no regression by itself."""
    judged = judge_series([*values, min(newest, *values)], LATENCY)
    assert judged.verdict != "FAIL" or "over the last" in judged.reason


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"floor": math.inf}, {"confidence": 1.0}, {"settled": 5}])
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    """A floor of nothing, certainty, and an alarm that ends before it could be raised."""
    with pytest.raises(RequestError):
        SeriesLimits(**wrong)  # type: ignore[arg-type]


def test_change_points_are_where_the_level_changes() -> None:
    """Two steps, up and down, and no third one."""
    rng = np.random.default_rng(0)
    levels = np.repeat([0.0, 0.05, 0.01], 20) + rng.normal(0, 0.005, 60)
    assert change_points(levels, 0.02) == (20, 40)


def test_spikes_are_no_change_points() -> None:
    """Single figures far off are no level."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.005, 60)
    values[[7, 30, 52]] += 0.5
    assert change_points(values, 0.02) == ()


@pytest.mark.parametrize("seed", range(30))
def test_noise_that_remembers_itself_has_no_change_points(seed: int) -> None:
    """Neighbours that agree are not as many witnesses."""
    rng = np.random.default_rng(seed)
    values = np.zeros(60)
    for index in range(1, 60):
        values[index] = 0.6 * values[index - 1] + rng.normal(0, 0.02)
    assert change_points(values, 0.02) == ()


def test_a_change_is_put_where_it_is_or_nowhere_yet() -> None:
    """A new level that is still too short to be one does not borrow from the old one."""
    quiet = np.random.default_rng(0).normal(0, 0.005, 45)
    for count, expected in ((1, ()), (2, ()), (4, ()), (5, (40,)), (6, (39,))):
        values = quiet.copy()
        values[-count:] -= 0.1
        assert change_points(values, 0.02) == expected


def test_memory_is_the_lag_one_correlation_or_nothing() -> None:
    """About 0.6 where it is, and zero for independent noise, a constant, and too few figures."""
    rng = np.random.default_rng(2)
    values = np.zeros(400)
    for index in range(1, 400):
        values[index] = 0.6 * values[index - 1] + rng.normal()
    assert memory_of(values) == pytest.approx(0.6, abs=0.15)
    assert memory_of(np.ones(40)) == 0
    assert memory_of(np.arange(7.0)) == 0
