"""What the base against itself says of a machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_opt.errors import DataError
from trt_opt.regress.pilot import pilot_noise
from trt_opt.values.regression import PilotNoise


def learnt(noise: float, shift: float = 0.0) -> PilotNoise:
    """From fifty rounds of two sides, the second slower by `shift` in logarithms."""
    rng = np.random.default_rng(1)
    base, again = (np.exp(rng.normal(0, noise, 50)) for _ in range(2))
    return pilot_noise(base.tolist(), (again * math.exp(shift)).tolist(), blocks=10, confidence=0.99)


def test_a_noisier_machine_tells_less() -> None:
    """The floor grows with the noise, and the spread is that of a difference of two rounds."""
    quiet, loud = learnt(0.01), learnt(0.04)
    assert quiet.floor < loud.floor
    assert quiet.spread == pytest.approx(0.01 * math.sqrt(2), rel=0.3)
    assert quiet.rounds == 50


def test_a_machine_that_prefers_one_side_tells_less() -> None:
    """A shift between two sides that are the same is part of the floor."""
    shifted = learnt(0.01, shift=0.05)
    assert shifted.shift == pytest.approx(0.05, abs=0.01)
    assert shifted.floor > 0.05


def test_one_wild_round_in_ten_is_not_the_spread() -> None:
    """The spread is robust."""
    rng = np.random.default_rng(2)
    base, again = np.exp(rng.normal(0, 0.01, 50)), np.exp(rng.normal(0, 0.01, 50))
    again[::10] *= 5
    assert pilot_noise(base.tolist(), again.tolist(), blocks=10, confidence=0.99).spread < 0.03


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=20), st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(base: list[float], factor: float) -> None:
    """The same figures in other units are the same noise."""
    again = base[::-1]
    one = pilot_noise(base, again, blocks=5, confidence=0.99)
    other = pilot_noise([factor * x for x in base], [factor * x for x in again], blocks=5, confidence=0.99)
    assert other.floor == pytest.approx(one.floor, abs=1e-9)
    assert other.spread == pytest.approx(one.spread, abs=1e-9)
    assert abs(one.shift) <= one.floor + 1e-12


@pytest.mark.parametrize("wrong", [[], [1.0] * 4, [1.0] * 9 + [math.nan], [1.0] * 9 + [0.0]])
def test_what_is_no_pilot_is_refused(wrong: list[float]) -> None:
    """Nothing, too little, and figures that are no times."""
    with pytest.raises(DataError):
        pilot_noise(wrong, wrong, blocks=5, confidence=0.99)
