"""Made-up timings with the troubles of real machines: of rounds in turns, and of nights in a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class Run:
    """How an A/B run is made up.

    Attributes:
        launches: How often the processes are started.
        rounds: Rounds in a launch.
        sides: Base, base again, candidate.
        noise: Standard deviation of a round's logarithm.
    """

    launches: int = 10
    rounds: int = 5
    sides: int = 3
    noise: float = 0.02

    @property
    def shape(self) -> tuple[int, int, int]:
        """[launches, rounds, sides]."""
        return self.launches, self.rounds, self.sides


def quiet(run: Run, rng: Generator) -> Floats:
    """Log-normal noise, independent from round to round and from side to side."""
    return rng.normal(0, run.noise, run.shape)


def turns(run: Run, rng: Generator) -> Floats:
    """When each side had its turn, 0 … 1 over the run: [launches, rounds, sides]; the order is drawn in every round."""
    order = rng.permuted(np.broadcast_to(np.arange(run.sides), run.shape), axis=-1)
    first = np.arange(run.launches * run.rounds).reshape(run.launches, run.rounds, 1) * run.sides
    return np.asarray((first + order) / (run.launches * run.rounds * run.sides), np.float64)


def drifting(run: Run, rng: Generator) -> Floats:
    """A machine that becomes 20 % slower over the run, as one does that heats up."""
    return quiet(run, rng) + 0.2 * turns(run, rng)


def warming(run: Run, rng: Generator) -> Floats:
    """Every launch begins 10 % fast or slow and settles within two rounds."""
    begin = rng.normal(0, 0.1, (run.launches, 1, 1)) * np.exp(-np.arange(run.rounds) / 1.0)[None, :, None]
    return quiet(run, rng) + begin


def two_clocks(run: Run, rng: Generator) -> Floats:
    """A clock that jumps between two states 15 % apart, at any turn with a chance of 10 %, for all sides."""
    when = np.argsort(turns(run, rng), axis=None)
    state = np.cumsum(rng.random(run.launches * run.rounds * run.sides) < 0.1) % 2
    slow = np.empty(state.size)
    slow[when] = state
    return quiet(run, rng) + 0.15 * slow.reshape(run.shape)


def coin_clocks(run: Run, rng: Generator) -> Floats:
    """A clock whose state is drawn anew at every turn, 15 % slower in 3 of 10."""
    return quiet(run, rng) + 0.15 * (rng.random(run.shape) < 0.3)


def outliers(run: Run, rng: Generator) -> Floats:
    """One round in ten meets somebody else's work and takes half as long again, on average."""
    hit = rng.random(run.shape) < 0.1
    return quiet(run, rng) + np.log1p(hit * rng.exponential(0.5, run.shape))


def heavy_tails(run: Run, rng: Generator) -> Floats:
    """Student noise with 2 degrees of freedom: no finite variance; as wide in the middle as the noise asked for."""
    return np.asarray(run.noise * rng.standard_t(2, run.shape), np.float64)


def memory(shape: tuple[int, ...], remembered: float, rng: Generator) -> Floats:
    """Standard normal noise that remembers a share of itself from step to step along the first axis."""
    steps = rng.normal(0, np.sqrt(1 - remembered**2), shape)
    steps[0] /= np.sqrt(1 - remembered**2)
    for index in range(1, len(steps)):
        steps[index] += remembered * steps[index - 1]
    return steps


def autocorrelated(run: Run, rng: Generator) -> Floats:
    """Each process' noise remembers 80 % from round to round; weather of 5 % that all share remembers 95 %."""
    own = memory((run.rounds, run.launches, run.sides), 0.8, rng).transpose(1, 0, 2)
    weather = memory((run.launches * run.rounds,), 0.95, rng).reshape(run.launches, run.rounds, 1)
    return np.asarray(run.noise * own + 0.05 * weather, np.float64)


def dealt(run: Run, rng: Generator) -> Floats:
    """Each process is dealt a speed of its own when it starts, with a deviation of 1 %, and keeps it."""
    return quiet(run, rng) + rng.normal(0, 0.01, (run.launches, 1, run.sides))


AB_NOISES: Mapping[str, Callable[[Run, Generator], Floats]] = {
    "log-normal": quiet,
    "drift through the run": drifting,
    "drift within launches": warming,
    "two clocks that stay": two_clocks,
    "two clocks by chance": coin_clocks,
    "outliers": outliers,
    "heavy tails": heavy_tails,
    "autocorrelated": autocorrelated,
    "each process its own speed": dealt,
}


def nights_quiet(nights: int, noise: float, rng: Generator) -> Floats:
    """Log-normal noise, independent from night to night."""
    return rng.normal(0, noise, nights)


def nights_drifting(nights: int, noise: float, rng: Generator) -> Floats:
    """A season: 1 % up and down over 90 nights, beginning anywhere."""
    season = np.sin(2 * np.pi * (np.arange(nights) / 90 + rng.random()))
    return nights_quiet(nights, noise, rng) + 0.01 * season


def nights_wandering(nights: int, noise: float, rng: Generator) -> Floats:
    """A level that takes a step of 0.1 % every night, up or down."""
    return nights_quiet(nights, noise, rng) + np.cumsum(rng.normal(0, 0.001, nights))


def nights_two_clocks(nights: int, noise: float, rng: Generator) -> Floats:
    """A clock that is 8 % slower in 3 of 10 nights, by chance."""
    return nights_quiet(nights, noise, rng) + 0.08 * (rng.random(nights) < 0.3)


def nights_outliers(nights: int, noise: float, rng: Generator) -> Floats:
    """One night in 30 meets somebody else's work and is slower by 15 %, on average."""
    hit = rng.random(nights) < 1 / 30
    return nights_quiet(nights, noise, rng) + np.log1p(hit * rng.exponential(0.15, nights))


def nights_heavy_tails(nights: int, noise: float, rng: Generator) -> Floats:
    """Student noise with 3 degrees of freedom; as wide in the middle as the noise asked for."""
    return np.asarray(noise * rng.standard_t(3, nights), np.float64)


def nights_autocorrelated(nights: int, noise: float, rng: Generator) -> Floats:
    """Noise that remembers 50 % of itself from night to night."""
    return noise * memory((nights,), 0.5, rng)


NIGHT_NOISES: Mapping[str, Callable[[int, float, Generator], Floats]] = {
    "log-normal": nights_quiet,
    "a season": nights_drifting,
    "wandering": nights_wandering,
    "two clocks by chance": nights_two_clocks,
    "outliers": nights_outliers,
    "heavy tails": nights_heavy_tails,
    "autocorrelated": nights_autocorrelated,
}
