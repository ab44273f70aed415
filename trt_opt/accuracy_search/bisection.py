"""Which layers to leave in float: a search over rankings whose checks grow with the logarithm of the layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Layers = frozenset[str]

Margin = Callable[[Layers], float]
"""Layers left in float → how far inside the budget (0 or more) or outside (below 0) the model then is. Expensive."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A layer that could be left in float.

    Attributes:
        node: Its name.
        damage: What it alone does to the output in INT8: error energy over signal energy.
        macs: What leaving it in float takes away from INT8, multiply-accumulates; at least 1.
    """

    node: str
    damage: float
    macs: int


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a search.

    Attributes:
        spared: The layers to leave in float.
        margin: How far inside the budget that is; below 0 where nothing met it, and this is the best seen.
    """

    spared: Layers
    margin: float


def fewest_spared(suspects: Sequence[Suspect], margin: Margin) -> Found:
    """The layers to leave in float so that the budget is met and the fewest multiply-accumulates leave INT8.

    Two rankings are tried: by damage, which touches few layers, and by damage for each multiply-accumulate, which costs
    little compute. On each, bisection finds the shortest beginning that meets the budget. From the cheaper answer,
    layers are then put back into INT8 one by one, the largest first, as long as the budget stays met; the number of
    attempts is bounded by that of the bisection. Bisection takes it that sparing more layers is better; where that is
    not so the answer still meets the budget, for every answer was checked, but may spare more than it had to.

    Args:
        suspects: The layers in INT8; order does not matter.
        margin: Checks a set of layers; called for a set once at most.

    Returns:
        Its margin is below 0 where not even all layers in float meet the budget.
    """
    asked = _Asked(margin)
    everything = frozenset(suspect.node for suspect in suspects)
    if asked(frozenset()) >= 0 or not suspects:
        return Found(frozenset(), asked(frozenset()))
    rankings = [_ranked(suspects, lambda suspect: suspect.damage)]
    if asked(everything) < 0:
        return _best_seen(rankings[0], asked)
    rankings.append(_ranked(suspects, lambda suspect: suspect.damage / suspect.macs))
    answers = [_shortest_beginning(ranking, asked) for ranking in rankings]
    costs = {suspect.node: suspect.macs for suspect in suspects}
    spared = min(answers, key=lambda nodes: (sum(costs[node] for node in nodes), len(nodes)))
    spared = _with_some_put_back(spared, costs, asked, attempts=_steps(len(suspects)))
    return Found(spared, asked(spared))


class _Asked:
    """Remembers every answer."""

    def __init__(self, margin: Margin) -> None:
        self._margin = margin
        self.seen: dict[Layers, float] = {}

    def __call__(self, spared: Layers) -> float:
        if spared not in self.seen:
            self.seen[spared] = self._margin(spared)
        return self.seen[spared]


def _ranked(suspects: Sequence[Suspect], key: Callable[[Suspect], float]) -> list[str]:
    """The nodes, the worst first; equal ones by name, so that the answer does not depend on the order given."""
    return [suspect.node for suspect in sorted(suspects, key=lambda suspect: (-key(suspect), suspect.node))]


def _shortest_beginning(ranking: Sequence[str], asked: _Asked) -> Layers:
    """The shortest beginning of a ranking that meets the budget, given that none of it does not and all of it does."""
    too_few, enough = 0, len(ranking)
    # The guilty are few: doubling finds a short beginning without a check near the middle of a long ranking.
    while 2 * (too_few or 0.5) < enough:
        middle = max(1, 2 * too_few)
        if asked(frozenset(ranking[:middle])) >= 0:
            enough = middle
            break
        too_few = middle
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if asked(frozenset(ranking[:middle])) >= 0:
            enough = middle
        else:
            too_few = middle
    return frozenset(ranking[:enough])


def _with_some_put_back(spared: Layers, costs: dict[str, int], asked: _Asked, *, attempts: int) -> Layers:
    for node in sorted(spared, key=lambda node: (-costs[node], node))[:attempts]:
        if asked(spared - {node}) >= 0:
            spared = spared - {node}
    return spared


def _best_seen(ranking: Sequence[str], asked: _Asked) -> Found:
    """Nothing meets the budget: the best of some beginnings of the ranking, each twice as long as the one before."""
    length = 1
    while length < len(ranking):
        asked(frozenset(ranking[:length]))
        length *= 2
    best = max(asked.seen.values())
    # What costs less compute wins where margins are equal.
    spared = min((nodes for nodes, found in asked.seen.items() if found == best), key=len)
    return Found(spared, best)


def _steps(layers: int) -> int:
    return math.ceil(math.log2(layers + 1))
