"""Polygraphy's comparator behind the tolerance check."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polygraphy.comparator import IterationResult, SimpleCompareFunc
from polygraphy.logger import G_LOGGER

from trt_opt.compare import Limits, Tolerances, tolerance
from trt_opt.compare.tolerance import ToleranceCheck
from trt_opt.errors import RequestError


def accepted(reference: object, candidate: object, **tolerances: object) -> bool:
    check = ToleranceCheck(Tolerances(**tolerances))  # type: ignore[arg-type]
    return check.accepts(np.asarray(reference), np.asarray(candidate))


def test_an_element_may_keep_either_tolerance() -> None:
    """Beyond atol and within rtol is accepted, as is the reverse; beyond both is refused."""
    assert accepted(np.float32([1000]), np.float32([1001]), atol=0.1, rtol=0.01)
    assert accepted(np.float32([0.001]), np.float32([0.002]), atol=0.1, rtol=0.01)
    assert not accepted(np.float32([10]), np.float32([11]), atol=0.1, rtol=0.01)


def test_relative_means_relative_to_the_reference() -> None:
    """An error of 1 on a reference of 10 is 10 %, not the 9.1 % of the candidate."""
    assert not accepted(np.float32([10]), np.float32([11]), atol=0.0, rtol=0.095)
    assert accepted(np.float32([11]), np.float32([10]), atol=0.0, rtol=0.095)


def test_nan_is_refused_and_equal_infinity_accepted() -> None:
    """No tolerance is wide enough for NaN."""
    assert not accepted(np.float32([1]), np.float32([np.nan]), atol=1e30, rtol=1e30)
    assert accepted(np.float32([-np.inf]), np.float32([-np.inf]), atol=0.0, rtol=0.0)
    assert not accepted(np.float32([1.0]), np.float32([np.inf]), atol=1e30, rtol=1e30)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_every_type_is_judged(dtype: str) -> None:
    """Booleans and integers too, where 0 and 1 must not pass for equal or wrap around."""
    zero, one = np.zeros((2, 3), dtype), np.ones((2, 3), dtype)
    assert accepted(one, one)
    assert not accepted(zero, one, atol=0.5, rtol=0.5)
    assert not accepted(one, zero, atol=0.5, rtol=0.5)
    assert accepted(np.zeros((0, 3), dtype), np.zeros((0, 3), dtype))


def test_a_statistic_replaces_the_elements() -> None:
    """One bad element of many is beyond "max" and within "mean"."""
    reference, candidate = np.ones(1000, np.float32), np.ones(1000, np.float32)
    candidate[0] = 2
    assert accepted(reference, candidate, atol=0.01, rtol=0.01, statistic="mean")
    assert not accepted(reference, candidate, atol=0.01, rtol=0.01, statistic="max")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    atol=st.sampled_from([0.0, 1e-3, 1e-2, 0.5]),
    rtol=st.sampled_from([0.0, 1e-3, 0.1, 10.0]),
    noise=st.sampled_from([0.0, 1e-3, 1e-2]),
    strange=st.sampled_from([None, np.nan, np.inf, 0.0]),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_pieces_are_judged_like_the_whole(
    seed: int, atol: float, rtol: float, noise: float, strange: float | None, dtype: str
) -> None:
    """What Polygraphy says of a large output in pieces is what it says of all of it at once."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(5, 100)).astype(dtype)
    candidate = (reference + noise * rng.uniform(-1, 1, size=reference.shape)).astype(dtype)
    if strange is not None:
        candidate[rng.integers(5), rng.integers(100)] = strange
    function = SimpleCompareFunc(atol=atol, rtol=rtol, infinities_compare_equal=True)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1), np.errstate(all="ignore"):
        whole = function(IterationResult({"y": candidate}), IterationResult({"y": reference}))["y"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tolerance, "PIECE_ELEMENTS", 64)
        assert accepted(reference, candidate, atol=atol, rtol=rtol) == bool(whole)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Polygraphy's log stays silent even for refused outputs, and its level is put back."""
    before = G_LOGGER.module_severity.get()
    accepted(np.float32([0, 1]), np.float32([np.nan, 9]))
    accepted(np.float32([0, 1]), np.float32([0, 1]))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert G_LOGGER.module_severity.get() == before


def test_bad_limits_are_refused_before_anything_runs() -> None:
    """NaN, negative tolerances and a percentage above 100 are no limits."""
    for bad in (
        {"min_sqnr_db": np.nan},
        {"max_drop": np.nan},
        {"atol": -1.0},
        {"rtol": np.nan},
        {"min_agreement": 101},
    ):
        with pytest.raises(RequestError):
            Limits(**bad)
    with pytest.raises(RequestError):
        Tolerances(atol=np.nan)


def test_one_tolerance_decides_alone() -> None:
    """With --atol only, no relative tolerance lets an element pass, and the reverse."""
    assert Limits(atol=0.1).tolerances == Tolerances(0.1, 0.0)
    assert Limits(rtol=0.1).tolerances == Tolerances(0.0, 0.1)
    assert Limits(min_sqnr_db=30).tolerances is None
    assert (Limits().any, Limits(max_drop=0.0).any) == (False, True)
