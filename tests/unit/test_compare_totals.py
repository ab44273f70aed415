"""The sums from which every figure of an output follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trt_opt.compare.totals import PIECE_ELEMENTS, OutputTotals
from trt_opt.errors import UnsupportedModelError
from trt_opt.values.accuracy import OutputAccuracy

Array = NDArray[np.generic]


def figures(*samples: tuple[Array, Array]) -> OutputAccuracy:
    totals = OutputTotals("y")
    for reference, candidate in samples:
        totals.add(reference, candidate)
    return totals.accuracy()


def floats(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def test_figures_are_those_of_the_definitions() -> None:
    """Every figure equals its formula over all elements, across the pieces of a large output."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(3, PIECE_ELEMENTS // 2 + 7)).astype(np.float32)
    candidate = (reference + 0.01 * rng.normal(size=reference.shape)).astype(np.float32)
    r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    found = figures((reference, candidate))
    assert found.elements == r.size
    assert found.max_abs_error == np.abs(r - c).max()
    assert found.mean_abs_error == pytest.approx(np.abs(r - c).mean(), rel=1e-12)
    assert found.sqnr_db == pytest.approx(10 * np.log10((r**2).sum() / ((r - c) ** 2).sum()), abs=1e-9)
    assert found.cosine == pytest.approx(np.dot(r, c) / np.linalg.norm(r) / np.linalg.norm(c), rel=1e-12)
    assert not found.identical


def test_sqnr_pools_energies() -> None:
    """A loud sample with noise and a quiet one without: the energies add up; per-sample decibels are not averaged."""
    loud = (floats(100, 100), floats(101, 101))
    quiet = (floats(1, 1), floats(1.001, 1.001))
    found = figures(loud, quiet)
    pooled = 10 * math.log10((20_000 + 2) / (2 + 2e-6))
    assert found.sqnr_db == pytest.approx(pooled, abs=1e-3)
    assert abs(found.sqnr_db - (40 + 60) / 2) > 5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000)), min_size=1, max_size=8), st.integers(0, 8), st.data()
)
def test_merged_totals_are_those_of_all_samples(shapes: list[tuple[int, int]], cut: int, data: st.DataObject) -> None:
    """Splitting the samples between two machines and shuffling them changes nothing."""
    samples = []
    for size, seed in shapes:
        rng = np.random.default_rng(seed)
        reference = rng.normal(size=(2, size)).astype(np.float32)
        candidate = reference + rng.choice([0, 0.1, np.nan], size=reference.shape, p=[0.6, 0.39, 0.01]).astype(
            np.float32
        )
        samples.append((reference, candidate))
    whole, left, right = OutputTotals("y"), OutputTotals("y"), OutputTotals("y")
    for sample in samples:
        whole.add(*sample)
    for index, sample in enumerate(data.draw(st.permutations(samples))):
        (left if index < cut else right).add(*sample)
    left.merge(right)
    for name in set(OutputTotals.__slots__) - {"name"}:
        assert getattr(left, name) == pytest.approx(getattr(whole, name), rel=1e-12), name


def test_identical_outputs_have_no_sqnr() -> None:
    """Equal outputs are identical, with cosine 1 and no SQNR, which would be infinite."""
    same = floats(1, -2, 3)
    found = figures((same, same.copy()))
    assert found.identical
    assert (found.max_abs_error, found.sqnr_db, found.cosine) == (0.0, None, pytest.approx(1.0))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_candidate_that_is_not_finite_has_no_figures(broken: float) -> None:
    """NaN or infinity in one element makes every figure NaN, and the element is counted."""
    found = figures((floats(1, 2, 3), floats(1, broken, 3)))
    assert found.not_finite == 1
    assert all(math.isnan(value) for value in (found.max_abs_error, found.mean_abs_error, found.sqnr_db, found.cosine))
    assert not found.identical


def test_equal_infinities_are_equal() -> None:
    """A mask of minus infinity on both sides is left out of the energies and is no error."""
    found = figures((floats(1, -np.inf, 3), floats(1, -np.inf, 3)))
    assert (found.identical, found.max_abs_error, found.not_finite, found.elements) == (True, 0.0, 0, 3)


def test_a_reference_with_nan_is_not_measured() -> None:
    """NaN in the reference is counted against the reference, not the candidate, even where both have it."""
    totals = OutputTotals("y")
    totals.add(floats(np.nan, np.nan, np.inf, 1), floats(1, np.nan, 1, 1))
    assert (totals.reference_not_finite, totals.candidate_not_finite) == (3, 0)
    assert totals.unequal == 2
    assert math.isnan(totals.accuracy().max_abs_error)


def test_half_precision_is_compared_in_double() -> None:
    """FP16 outputs whose squares overflow FP16 have exact energies."""
    reference, candidate = np.float32([[60000.0]]), np.float16([[59968.0]])
    found = figures((reference, candidate))
    assert found.max_abs_error == 32.0
    assert found.sqnr_db == pytest.approx(20 * math.log10(60000 / 32), abs=1e-9)


def test_integers_have_errors_and_no_sqnr() -> None:
    """Class numbers differ by counts that mean nothing as energy; 64-bit numbers are told apart beyond 2^53."""
    found = figures((np.array([3, 2**53, 7]), np.array([3, 2**53 + 1, 7])))
    assert (found.sqnr_db, found.identical, found.top1_agreement) == (None, False, 2 / 3)


def test_other_shapes_are_counted_not_compared() -> None:
    """Shapes that could be broadcast are still different shapes."""
    totals = OutputTotals("y")
    assert not totals.add(np.zeros((1, 3), np.float32), np.zeros((3,), np.float32))
    assert (totals.shapes_differ, totals.elements, totals.accuracy().identical) == (1, 0, False)


def test_nothing_compared_is_not_identical() -> None:
    """An output without elements is neither identical nor without error."""
    found = figures((np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)))
    assert not found.identical
    assert math.isnan(found.max_abs_error)


def test_text_cannot_be_compared() -> None:
    """An output of strings is refused by name."""
    with pytest.raises(UnsupportedModelError, match="y: an output of"):
        figures((np.array(["a"]), np.array(["a"])))
