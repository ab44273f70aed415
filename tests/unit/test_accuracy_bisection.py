"""The search over rankings, with budgets made of numbers instead of models."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_opt.accuracy_search.bisection import Layers, Suspect, fewest_spared


class Counted:
    """A budget on the sum of the damages left in INT8, which counts how often it is asked."""

    def __init__(self, suspects: list[Suspect], allowed: float) -> None:
        self._damages = {suspect.node: suspect.damage for suspect in suspects}
        self._allowed = allowed
        self.asked: list[Layers] = []

    def __call__(self, spared: Layers) -> float:
        self.asked.append(spared)
        return self._allowed - sum(damage for node, damage in self._damages.items() if node not in spared)


def suspects_of(*damages: float, macs: int = 100) -> list[Suspect]:
    return [Suspect(f"n{number}", damage, macs) for number, damage in enumerate(damages)]


def test_a_budget_that_is_met_at_once_costs_one_check() -> None:
    """Nothing is spared, and nothing else is tried."""
    suspects = suspects_of(1, 2, 3)
    budget = Counted(suspects, 100)
    assert fewest_spared(suspects, budget).spared == frozenset()
    assert len(budget.asked) == 1


def test_the_one_guilty_layer_of_many_is_the_only_one_spared() -> None:
    """Among 200 layers, with fewer checks than 4·log2(200)."""
    damages = [0.001] * 200
    damages[137] = 5.0
    suspects = suspects_of(*damages)
    budget = Counted(suspects, 1.0)
    assert fewest_spared(suspects, budget).spared == {"n137"}
    assert len(budget.asked) <= 4 * math.ceil(math.log2(200))


def test_no_set_of_layers_is_checked_twice() -> None:
    """A check is a run over all samples."""
    suspects = suspects_of(*(float(number % 7) for number in range(40)))
    budget = Counted(suspects, 30)
    fewest_spared(suspects, budget)
    assert len(budget.asked) == len(set(budget.asked))


def test_small_layers_go_before_a_large_one() -> None:
    """The large layer does the most damage; two small ones free as much of the budget at a tenth of its compute."""
    suspects = [Suspect("large", 3.0, 1000), Suspect("a", 2.0, 50), Suspect("b", 2.0, 50)]
    assert fewest_spared(suspects, Counted(suspects, 3.5)).spared == {"a", "b"}


def test_a_layer_that_need_not_be_spared_is_put_back() -> None:
    """The ranking begins with a large layer that a small one further down makes unnecessary."""
    suspects = [Suspect("large", 3.0, 1000), Suspect("small", 2.9, 900)]

    def margin(spared: Layers) -> float:
        return 1.0 if "small" in spared else -1.0

    assert fewest_spared(suspects, margin).spared == {"small"}


def test_a_budget_out_of_reach_gives_the_best_that_was_seen() -> None:
    """Its margin stays below 0, and the answer is the one with the largest."""
    suspects = suspects_of(3, 2, 1)
    found = fewest_spared(suspects, Counted(suspects, -0.5))
    assert found.margin == pytest.approx(-0.5)
    assert found.spared == {"n0", "n1", "n2"}


def test_without_layers_there_is_nothing_to_spare() -> None:
    """The only answer is what the model gives as it is."""
    found = fewest_spared([], lambda _: -1.0)
    assert (found.spared, found.margin) == (frozenset(), -1.0)


@given(
    damages=st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=60),
    allowed=st.floats(0, 50),
)
def test_the_answer_meets_every_budget_that_can_be_met_with_few_checks(damages: list[float], allowed: float) -> None:
    """Where damages add up: the answer's margin is not below 0, and the checks are bounded by the logarithm."""
    suspects = suspects_of(*damages)
    budget = Counted(suspects, allowed)
    found = fewest_spared(suspects, budget)
    assert found.margin >= 0
    assert budget(found.spared) == found.margin
    assert len(budget.asked) <= 3 + 5 * math.ceil(math.log2(len(damages) + 1))


def test_the_order_of_the_suspects_does_not_matter() -> None:
    """Equal damages are ranked by name."""
    suspects = suspects_of(*[1.0] * 9)
    forwards = fewest_spared(suspects, Counted(suspects, 4.5))
    backwards = fewest_spared(suspects[::-1], Counted(suspects, 4.5))
    assert forwards == backwards
