"""Errors at outputs: pooled, and never good where something is not a number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trt_opt.sensitivity.output_errors import PIECE_ELEMENTS, GraphSums, OutputSums, decibels


def sums(reference: np.ndarray, candidate: np.ndarray) -> OutputSums:
    found = OutputSums()
    found.add(reference, candidate)
    return found


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_error_and_signal_are_pooled_over_pieces_and_samples(kind: type) -> None:
    """The same as one sum over everything in float64."""
    generator = np.random.default_rng(0)
    expected = [generator.standard_normal((3, PIECE_ELEMENTS)).astype(kind) for _ in range(2)]
    found = [array + generator.standard_normal(array.shape).astype(kind) * kind(0.1) for array in expected]
    total = OutputSums()
    for pair in zip(expected, found, strict=True):
        total.add(*pair)
    whole, other = np.stack(expected).astype(np.float64), np.stack(found).astype(np.float64)
    assert total.relative == pytest.approx(((whole - other) ** 2).sum() / (whole**2).sum(), rel=1e-2)
    assert total.elements == whole.size


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_bad(broken: float) -> None:
    """NaN or infinity where the float model has a number, even one among many."""
    expected = np.ones(100, np.float32)
    found = expected.copy()
    found[7] = broken
    assert sums(expected, found).relative == math.inf
    assert decibels(math.inf) == -math.inf


def test_what_is_not_a_number_in_the_float_model_is_left_out() -> None:
    """NaN there says nothing; equal infinities are in order; a lost infinity is not."""
    expected = np.array([np.nan, np.inf, 1, 2], np.float32)
    assert sums(expected, np.array([5, np.inf, 1, 2], np.float32)).relative == 0.0
    assert sums(expected, np.array([5, 3, 1, 2], np.float32)).relative == math.inf
    assert sums(np.full(3, np.nan, np.float32), np.ones(3, np.float32)).relative is None


def test_an_error_beside_nothing_is_infinitely_bad_and_none_at_all_is_exact() -> None:
    """A float output of zeros only."""
    zeros = np.zeros(4, np.float32)
    assert sums(zeros, zeros).relative == 0.0
    assert sums(zeros, zeros + 1).relative == math.inf
    assert decibels(0.0) is None


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_very_small_and_very_large_numbers_keep_their_error(size: float) -> None:
    """Their squares do not fit float32."""
    expected = np.full(16, size, np.float32)
    assert sums(expected, expected * np.float32(1.1)).relative == pytest.approx(0.01, rel=1e-3)


def test_outputs_of_other_shapes_count_as_lost() -> None:
    """Everything in both is error: 0 dB and less, but a figure."""
    found = sums(np.ones(4, np.float32), np.ones(2, np.float32))
    assert found.relative == pytest.approx(1.5)


def test_sums_add_up_and_the_worst_output_is_named() -> None:
    """Integer outputs are not looked at."""
    total = GraphSums()
    one = np.ones(4, np.float32)
    for _ in range(2):
        total.add({"good": one, "bad": one, "index": np.arange(3)}, {"good": one, "bad": one * 2, "index": np.zeros(3)})
    assert set(total.outputs) == {"good", "bad"}
    assert total.worst() == ("bad", 1.0)
    half = OutputSums()
    half.add(one, one * 2)
    half.merge(half)
    assert (half.error, half.signal, half.elements) == (8.0, 8.0, 8)
    assert GraphSums().worst() is None
