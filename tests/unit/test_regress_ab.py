"""A candidate against a base, from the rounds of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_opt.errors import RequestError
from trt_opt.regress.ab import ABLimits, judge_ab, share_from_text
from trt_opt.regress.blocks import block_medians
from trt_opt.regress.location import bootstrap_interval, pseudo_median, student_quantile
from trt_opt.values.regression import PilotNoise

LIMITS = ABLimits()

times = st.lists(st.floats(0.01, 1000), min_size=10, max_size=25)
few_examples = settings(max_examples=40, deadline=None)


def noisy(
    slowdown: float = 0.0, noise: float = 0.02, rounds: int = 50, seed: int = 0
) -> tuple[list[float], list[float]]:
    """Rounds of two sides with log-normal noise around 5 ms."""
    rng = np.random.default_rng(seed)
    base = 5 * np.exp(rng.normal(0, noise, rounds))
    return base.tolist(), (5 * (1 + slowdown) * np.exp(rng.normal(0, noise, rounds))).tolist()


def test_a_slower_candidate_fails_with_its_slowdown() -> None:
    """5 % in noise of 2 % is found by the default number of rounds, and told."""
    effect, verdict, reason = judge_ab(*noisy(0.05), None, LIMITS)
    assert verdict == "FAIL"
    assert effect is not None
    assert effect.interval[0] < math.log(1.05) < effect.interval[1]
    assert "slower by" in reason and "99 % confidence" in reason


def test_the_same_speed_passes() -> None:
    """A slowdown of the floor is excluded where there is none."""
    assert judge_ab(*noisy(), None, LIMITS)[1] == "PASS"


def test_a_faster_candidate_passes() -> None:
    """An improvement is no regression, however large."""
    assert judge_ab(*noisy(-0.3), None, LIMITS)[1] == "PASS"


def test_noise_that_hides_the_floor_is_inconclusive() -> None:
    """Where a slowdown of the floor cannot be excluded, nothing passes."""
    _, verdict, reason = judge_ab(*noisy(noise=0.2), None, LIMITS)
    assert verdict == "INCONCLUSIVE"
    assert "cannot be excluded" in reason


def test_a_sure_slowdown_below_the_floor_passes() -> None:
    """Confidence alone is not enough: 1 % does not matter, however sure."""
    effect, verdict, _ = judge_ab(*noisy(0.01, noise=0.001), None, LIMITS)
    assert effect is not None and effect.interval[0] > 0
    assert verdict == "PASS"


def test_a_large_effect_without_confidence_does_not_fail() -> None:
    """The floor alone is not enough: three slow launches of five are chance."""
    _, verdict, _ = judge_ab([1.0] * 5, [1.0, 1.0, 1.3, 1.3, 1.3], None, ABLimits(blocks=5))
    assert verdict == "INCONCLUSIVE"


def test_a_candidate_cannot_fail_by_less_than_the_base_differs_from_itself() -> None:
    """The pilot's floor raises the bar for FAIL, and never lowers it for PASS."""
    base, candidate = noisy(0.05)
    pilot = PilotNoise(rounds=50, spread=0.05, shift=0.06, floor=0.08)
    _, verdict, reason = judge_ab(base, candidate, pilot, LIMITS)
    assert verdict == "INCONCLUSIVE"
    assert "8.3 %" in reason


def test_a_fifth_of_slow_rounds_does_not_fool_it() -> None:
    """Outliers on the candidate's side alone, fewer than half of a launch, are no regression."""
    base, candidate = noisy(noise=0.005)
    candidate[::5] = [3 * value for value in candidate[::5]]
    assert judge_ab(base, candidate, None, LIMITS)[1] == "PASS"


def test_a_clock_that_jumps_for_both_does_not_fool_it() -> None:
    """What happens to a round of both sides cancels."""
    base, candidate = noisy()
    clock = [1.0 if index % 7 < 4 else 1.4 for index in range(50)]
    shaken = ([value * factor for value, factor in zip(side, clock, strict=True)] for side in (base, candidate))
    assert judge_ab(*shaken, None, LIMITS)[1] == "PASS"


def test_the_base_again_makes_the_bounds_closer() -> None:
    """The pilot's second base tells of the base as well as the first."""
    rng = np.random.default_rng(3)
    base, again, candidate = (np.exp(rng.normal(0, 0.02, 200)).tolist() for _ in range(3))
    alone, _, _ = judge_ab(base, candidate, None, LIMITS)
    both, _, _ = judge_ab(base, candidate, None, LIMITS, again=again)
    assert alone is not None and both is not None
    assert np.ptp(both.interval) < np.ptp(alone.interval)


@few_examples
@given(times, st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
def test_the_unit_of_time_does_not_matter(base: list[float], factor: float, seed: int) -> None:
    """Both sides in other units are the same effect."""
    candidate = np.random.default_rng(seed).permutation(base).tolist()
    effect, verdict, _ = judge_ab(base, candidate, None, LIMITS)
    scaled, again, _ = judge_ab([factor * x for x in base], [factor * x for x in candidate], None, LIMITS)
    assert effect is not None and scaled is not None
    assert scaled.worse == pytest.approx(effect.worse, abs=1e-9)
    assert scaled.interval == pytest.approx(effect.interval, abs=1e-9)
    assert again == verdict


@few_examples
@given(st.integers(0, 2**32 - 1), st.integers(10, 60), st.floats(0.001, 0.5))
def test_sides_swapped_turn_the_effect_around(seed: int, rounds: int, noise: float) -> None:
    """What is slower by so much one way is faster by as much the other way."""
    base, candidate = noisy(0.1, noise, rounds, seed)
    there, _, _ = judge_ab(base, candidate, None, LIMITS)
    back, _, _ = judge_ab(candidate, base, None, LIMITS)
    assert there is not None and back is not None
    assert back.worse == pytest.approx(-there.worse, abs=1e-9)
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]), abs=1e-9)


@few_examples
@given(times, st.data())
def test_the_effect_lies_between_its_bounds(base: list[float], data: st.DataObject) -> None:
    """Whatever the figures are, and PASS and FAIL are never both true."""
    candidate = data.draw(st.lists(st.floats(0.01, 1000), min_size=len(base), max_size=len(base)))
    effect, verdict, _ = judge_ab(base, candidate, None, LIMITS)
    assert effect is not None
    low, high = effect.interval
    assert low <= effect.worse <= high
    assert (verdict == "PASS") == (high < effect.floor)
    assert (verdict == "FAIL") == (effect.worse >= effect.floor and low > 0)


@few_examples
@given(times, st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0]), st.data())
def test_what_is_no_time_never_passes(base: list[float], wrong: float, data: st.DataObject) -> None:
    """NaN, infinity, zero and negative times are INCONCLUSIVE on any side, and told."""
    spoiled = list(base)
    spoiled[data.draw(st.integers(0, len(base) - 1))] = wrong
    for sides in ((base, spoiled), (spoiled, base)):
        effect, verdict, reason = judge_ab(*sides, None, LIMITS)
        assert (effect, verdict) == (None, "INCONCLUSIVE")
        assert "no times" in reason
    assert judge_ab(base, base, None, LIMITS, again=spoiled)[1] == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("base", "candidate", "why"),
    [
        ([], [], "the base has no rounds"),
        ([1.0] * 10, [], "the candidate has no rounds"),
        ([1.0] * 10, [1.0] * 9, "different numbers"),
        ([1.0] * 4, [1.0] * 4, "too few"),
    ],
)
def test_sides_that_cannot_be_compared_are_inconclusive(base: list[float], candidate: list[float], why: str) -> None:
    """Nothing, unequal counts and too little never pass."""
    effect, verdict, reason = judge_ab(base, candidate, None, LIMITS)
    assert (effect, verdict) == (None, "INCONCLUSIVE")
    assert why in reason


def test_figures_that_repeat_themselves_are_judged() -> None:
    """No scatter at all is no reason to fail or to divide by zero."""
    assert judge_ab([2.0] * 20, [2.0] * 20, None, LIMITS)[1] == "PASS"
    assert judge_ab([2.0] * 20, [2.1] * 20, None, LIMITS)[1] == "FAIL"


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"floor": math.nan}, {"confidence": 1.0}, {"blocks": 4}])
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    """A floor of nothing, certainty, and too few launches."""
    with pytest.raises(RequestError):
        ABLimits(**wrong)  # type: ignore[arg-type]


def test_a_share_is_read_with_and_without_its_sign() -> None:
    """2% and 0.02 are the same; 2 is neither."""
    assert share_from_text("2%") == share_from_text(" 0.02 ") == 0.02
    for wrong in ("2", "0", "-1%", "nan", "two", ""):
        with pytest.raises(RequestError):
            share_from_text(wrong)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 31.821), (2, 6.965), (3, 4.541), (4, 3.747), (9, 2.821), (29, 2.462)]
)
def test_students_quantile_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    """At 99 %, one-sided."""
    assert student_quantile(0.99, freedom) == pytest.approx(quantile, rel=0.01)


def test_the_pseudo_median_is_the_median_of_averages() -> None:
    """1, 2 and 9: the averages are 1, 1.5, 2, 5, 5.5 and 9, their median is 3.5."""
    assert float(pseudo_median(np.array([1.0, 2.0, 9.0]))) == 3.5


def test_bounds_hold_as_often_as_they_say() -> None:
    """Of 400 samples of ten from a normal distribution, the bound at 95 % is wrong in about 20."""
    rng = np.random.default_rng(0)
    wrong = sum(bootstrap_interval(rng.normal(size=10), 0.95)[1][0] > 0 for _ in range(400))
    assert 8 <= wrong <= 32


def test_few_launches_are_held_less_sure_than_the_bootstrap_alone_would() -> None:
    """Of 400 samples of five at 99 %, the lower bound is wrong in a few, where plain percentiles are in twenty."""
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=5) for _ in range(400)]
    wrong = sum(bootstrap_interval(sample, 0.99)[1][0] > 0 for sample in samples)
    assert wrong <= 10


def test_blocks_are_neighbours() -> None:
    """Ten rounds in five blocks are five pairs of neighbours; more blocks than rounds are one per round."""
    ratios = np.arange(10.0)
    assert block_medians(ratios, 5).tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert block_medians(ratios, 50).tolist() == ratios.tolist()
