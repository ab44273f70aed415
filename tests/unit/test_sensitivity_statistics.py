"""Statistics of quantised tensors against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from trt_opt.sensitivity.statistics import ActivationSums, channel_axis
from trt_opt.values.sensitivity import ActivationStatistics


def statistics(array: np.ndarray, scale: float, axis: int | None = 1) -> ActivationStatistics:
    found = ActivationSums(scale, axis)
    half = len(array) // 2
    found.add(array[:half])
    found.add(array[half:])
    return found.statistics(0, "x", "Conv")


def test_range_rms_and_shares_are_those_of_all_samples_together() -> None:
    """Two samples, more elements than one piece holds, some beyond the threshold and some rounded to zero."""
    array = np.random.default_rng(0).standard_normal((4, 8, 40, 41)).astype(np.float32)
    array[:, 0] = 0
    scale, threshold = 2 / 127, 2.0
    found = statistics(array, scale)
    codes = np.abs(array / np.float32(scale))
    quantised = np.clip(np.rint(array / np.float32(scale)), -127, 127) * scale
    error = np.square((array - quantised).astype(np.float64))
    clipped = codes.round() > 127
    assert (found.low, found.high) == (array.min(), array.max())
    assert found.threshold == pytest.approx(threshold)
    assert found.rms == pytest.approx(np.sqrt(np.square(array.astype(np.float64)).mean()), rel=1e-4)
    assert found.saturated == pytest.approx(clipped.mean(), rel=1e-6)
    assert found.vanishing == pytest.approx(((codes.round() == 0) & (array != 0)).sum() / (array != 0).sum(), rel=1e-6)
    assert found.clipped_energy == pytest.approx(error[clipped].sum() / error.sum(), rel=1e-3)
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.square(array).sum() / error.sum()), abs=0.01)
    assert found.outlier_ratio == pytest.approx(np.abs(array).max() / found.rms)


def test_channels_that_reach_further_by_a_gap_are_counted() -> None:
    """Two of sixteen; a channel of zeros is no channel to speak of."""
    array = np.random.default_rng(1).uniform(-1, 1, (2, 16, 9)).astype(np.float32)
    array[:, [3, 9]] *= 50
    array[:, 4] = 0
    found = statistics(array, 1.0)
    assert (found.channels, found.wide_channels) == (16, 2)
    rest = np.abs(np.delete(array, [3, 9], axis=1))
    assert found.channel_rest == rest.max()
    reach = np.sort(np.abs(np.delete(array, 4, axis=1)).max((0, 2)))
    assert (found.channel_low, found.channel_middle) == (reach[0], reach[7])


def test_channels_without_a_gap_have_no_group() -> None:
    """A geometric row of ranges: each reaches twice as far as the next."""
    array = np.geomspace(1, 2**15, 16, dtype=np.float32).reshape(1, 16, 1).repeat(2, 0)
    assert statistics(array, 1.0).wide_channels == 0


@pytest.mark.parametrize("array", [np.zeros((2, 0), np.float32), np.zeros((2, 3), np.float32)], ids=["empty", "zeros"])
def test_nothing_has_statistics_too(array: np.ndarray) -> None:
    """No element, or no element but zero: shares of 0, no error."""
    found = statistics(array, 1.0)
    assert (found.rms, found.saturated, found.vanishing, found.sqnr_db) == (0.0, 0.0, 0.0, None)
    assert found.outlier_ratio == 0.0


def test_samples_of_other_lengths_have_no_channels_there() -> None:
    """A last axis that is the length of a sequence."""
    found = ActivationSums(1.0, -1)
    found.add(np.ones((2, 5), np.float32))
    found.add(np.ones((2, 7), np.float32))
    found.add(np.ones((2, 7), np.float32))
    assert found.statistics(0, "x", "Conv").channels == 0


@pytest.mark.parametrize(
    ("operator", "rank", "axis"), [("Conv", 3, 1), ("MatMul", 4, -1), ("Add", 4, 1), ("Add", 3, -1)]
)
def test_channels_lie_where_the_operator_has_them(operator: str, rank: int, axis: int) -> None:
    """Images have them first, products last."""
    assert channel_axis(operator, rank) == axis
