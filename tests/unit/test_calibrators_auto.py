"""Candidate thresholds, and what a threshold clips, from one histogram."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators import Auto, CalibratorError, Entropy, Histogram, MinMax, Mse, Percentile
from calibrators.auto import SAME_WITHIN
from calibrators.expected_error import squared_error


def histogram_of(array, bins=4096):
    histogram = Histogram(bins)
    histogram.observe(array)
    return histogram


HEAVY_TAIL = np.random.default_rng(0).standard_t(3, 100_000)


def test_candidates_fall_and_differ():
    """Candidates go from minmax down, each more than a fiftieth below the one before."""
    found = Auto().thresholds(histogram_of(HEAVY_TAIL))
    values = np.array(list(found.values()))
    assert next(iter(found)) == "minmax"
    assert values[0] == np.abs(HEAVY_TAIL).max()
    assert np.all(values[1:] < values[:-1] * (1 - SAME_WITHIN))


@pytest.mark.parametrize("spec", [MinMax(), Entropy(), Mse(), Percentile(99.9), Percentile(99.99)], ids=str)
def test_every_calibrator_is_among_the_candidates(spec):
    """Each calibrator's threshold is a candidate, or lies within a fiftieth below a larger one."""
    histogram = histogram_of(HEAVY_TAIL)
    found = np.array(list(Auto().thresholds(histogram).values()))
    nearest = found[found >= spec.amax(histogram)].min()
    assert spec.amax(histogram) >= nearest * (1 - SAME_WITHIN)


def test_names_tell_what_gave_the_threshold():
    """A candidate's name is a calibrator's, or a fraction of the largest magnitude."""
    found = Auto().thresholds(histogram_of(HEAVY_TAIL))
    assert found["percentile(99.9)"] == Percentile(99.9).amax(histogram_of(HEAVY_TAIL))
    assert found["0.5 x minmax"] == 0.5 * np.abs(HEAVY_TAIL).max()


@pytest.mark.parametrize("array", [HEAVY_TAIL, np.random.default_rng(1).standard_normal(1000)])
def test_by_itself_auto_takes_the_smallest_squared_error(array):
    """Without a model, no candidate's expected squared error is smaller than that of the threshold given."""
    histogram = histogram_of(array)

    def error(threshold):
        return squared_error(histogram, threshold / histogram.width)

    assert error(Auto().amax(histogram)) == min(map(error, Auto().thresholds(histogram).values()))


def test_zeros_and_no_data():
    """Zeros have one candidate, 0; no data is an error."""
    assert Auto().thresholds(histogram_of(np.zeros(5))) == {"minmax": 0.0}
    assert Auto().amax(histogram_of(np.zeros(5))) == 0.0
    with pytest.raises(CalibratorError, match="no data"):
        Auto().thresholds(histogram_of(np.zeros(0)))


def test_share_above_a_threshold():
    """The share of elements above a magnitude is exact where it lies on a bin's edge; zeros count among all."""
    array = np.concatenate([np.zeros(50), np.arange(-25, 25) + 0.5])
    histogram = histogram_of(array, bins=32)
    assert histogram.width == 1.0
    for magnitude, count in ((0.0, 50), (10.0, 30), (24.0, 2), (24.5, 0), (100.0, 0)):
        assert histogram.share_above(magnitude) == count / 100
    assert histogram_of(np.zeros(4)).share_above(0.0) == 0.0
    with pytest.raises(CalibratorError, match="no data"):
        Histogram(32).share_above(1.0)
