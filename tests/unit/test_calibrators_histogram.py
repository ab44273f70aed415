import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibrators import CalibratorError, Histogram
from calibrators.chunks import CHUNK

FLOATS = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda kind: hnp.arrays(
        kind, st.integers(0, 60), elements={"allow_nan": False, "allow_infinity": False, "allow_subnormal": True}
    )
)


def histogram_of(*arrays, bins=64):
    histogram = Histogram(bins)
    for array in arrays:
        histogram.observe(array)
    return histogram


@given(FLOATS)
def test_counts_are_those_of_exact_arithmetic(array):
    """A bin holds exactly the elements with i·width <= |x| < (i + 1)·width; zeros are counted apart."""
    histogram = histogram_of(array)
    magnitudes = [abs(Fraction(float(x))) for x in array]
    assert histogram.zeros == sum(x == 0 for x in magnitudes)
    assert histogram.count == len(magnitudes)
    expected = np.zeros(64, np.int64)
    for x in filter(None, magnitudes):
        expected[math.floor(x / Fraction(histogram.width))] += 1
    np.testing.assert_array_equal(histogram.counts, expected)


@given(FLOATS, st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=200)
def test_order_split_and_merging_change_nothing(array, random, parts):
    """Shuffled, split into batches, or split over histograms that are merged: the same state, exactly."""
    whole = histogram_of(array)
    shuffled = array.copy()
    random.shuffle(shuffled)
    batches = np.array_split(shuffled, parts)
    assert histogram_of(*batches) == whole
    merged = Histogram(64)
    for batch in batches:
        merged.merge(histogram_of(batch))
    assert merged == whole


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_the_upper_half_of_the_bins_holds_the_largest_magnitude(array):
    """At least half of the bins lie below the largest magnitude, and it lies inside the range."""
    histogram = histogram_of(array)
    if histogram.extreme:
        assert histogram.width * 32 <= histogram.extreme < histogram.width * 64
        assert histogram.used == math.floor(histogram.extreme / histogram.width) + 1


def test_widening_far_keeps_every_count():
    """Data that outgrow the range by more doublings than there are bins end up in the first bin."""
    histogram = histogram_of(np.array([1e-20, 2e-20], np.float32), np.array([1e20], np.float32))
    assert histogram.counts[0] == 2
    assert histogram.count == 3


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, 3 * CHUNK + 17])
@pytest.mark.parametrize("zero_share", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("signed", [True, False])
def test_chunks_agree_with_numpy(size, zero_share, signed):
    """Arrays longer than a chunk, dense or mostly zero, signed or not, are counted as numpy.histogram counts them."""
    random = np.random.default_rng(size)
    array = random.standard_normal(size).astype(np.float32)
    array = np.where(random.random(size) < zero_share, np.float32(0), array if signed else np.abs(array))
    histogram = histogram_of(array, bins=4096)
    expected = np.histogram(np.abs(array[array != 0]), 4096, range=(0, histogram.width * 4096))[0]
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.zeros == np.count_nonzero(array == 0)
    assert (histogram.low, histogram.high) == (array.min(), array.max())


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint8, np.int16, np.int32, np.uint64, np.int64, ">f4", ">f8"])
def test_other_element_types_are_converted(kind):
    """Integers, booleans and foreign byte orders count like the same numbers in float64."""
    array = np.array([0, 1, 1, 0, 1, 100 if kind is not np.bool_ else 1], kind)
    assert histogram_of(array) == histogram_of(array.astype(np.float64))


def test_the_most_negative_integer_has_a_magnitude():
    """-128 in int8 counts as 128, which int8 cannot hold."""
    assert histogram_of(np.array([-128], np.int8)).extreme == 128.0


def test_memory_layout_does_not_matter():
    """Transposed, strided and 0-d arrays count like their elements."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert histogram_of(array.transpose(2, 0, 1)) == histogram_of(array)
    assert histogram_of(array[:, ::2, ::-1]) == histogram_of(array[:, ::2].ravel())
    assert histogram_of(np.float32(3.5)) == histogram_of(np.array([3.5]))


def test_subnormals_and_the_largest_floats_fit():
    """float32's smallest subnormal and largest number, and float64's, are counted in one histogram each."""
    for kind in (np.float32, np.float64):
        limits = np.finfo(kind)
        tiny, huge = np.array([limits.smallest_subnormal, 0]), np.array([limits.max, limits.min])
        small, large = histogram_of(tiny), histogram_of(huge)
        assert (small.count, small.zeros, small.extreme) == (2, 1, limits.smallest_subnormal)
        assert large.counts[63] == 2
        large.merge(small)
        assert (large.counts[0], large.zeros) == (1, 1)


def test_zeros_alone_leave_the_range_undefined():
    """Positive and negative zeros are counted, the extremes are a positive 0.0, and there is no bin width."""
    histogram = histogram_of(np.array([-0.0, 0.0, -0.0]))
    assert (histogram.zeros, histogram.count, histogram.extreme, histogram.used) == (3, 3, 0.0, 0)
    assert math.copysign(1, histogram.low) == math.copysign(1, histogram.extreme) == 1.0
    with pytest.raises(CalibratorError, match="nothing but zeros"):
        _ = histogram.width


def test_no_data_is_an_error():
    """Without a single element there are no extremes: an empty array does not count as data."""
    histogram = histogram_of(np.empty((0, 3), np.float32))
    for name in ("low", "high", "extreme"):
        with pytest.raises(CalibratorError, match="no data"):
            getattr(histogram, name)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, CHUNK + 5, -1])
def test_nan_and_infinity_are_errors_and_change_nothing(kind, bad, where):
    """A bad element anywhere, also after chunks that were sound, is refused, and nothing of its array is counted."""
    histogram = histogram_of(np.ones(3, np.float32))
    before = pickle.dumps(histogram)
    array = np.full(2 * CHUNK, 2, kind)
    array[where] = bad
    with pytest.raises(CalibratorError, match="NaN or infinity"):
        histogram.observe(array)
    assert histogram == pickle.loads(before)


@pytest.mark.parametrize(
    "array",
    [np.ones(2, np.complex64), np.array(["a"]), np.array([None]), np.ones(1, "M8[s]"), np.ones(1, np.longdouble)],
)
def test_what_is_no_real_number_is_refused(array):
    """Complex numbers, texts, objects, dates and floats of more than 64 bits have no range."""
    if array.dtype == np.float64:
        pytest.skip("long double is float64 on this platform")
    with pytest.raises(CalibratorError, match="real numbers"):
        histogram_of(array)


@given(FLOATS)
def test_coarsening_is_counting_in_fewer_bins(array):
    """A coarsened histogram is the one that would have been counted in so many bins."""
    assert histogram_of(array, bins=64).coarsened(8) == histogram_of(array, bins=8)


def test_bins_must_fit():
    """Bins come in powers of two; histograms merge and coarsen only where the bins allow it."""
    for bins in (0, 1, 100, -4, 1 << 21):
        with pytest.raises(CalibratorError, match="power of two"):
            Histogram(bins)
    with pytest.raises(CalibratorError, match="merged"):
        Histogram(8).merge(Histogram(16))
    with pytest.raises(CalibratorError, match="16 bins were asked for"):
        Histogram(8).coarsened(16)


def test_counts_cannot_be_changed_from_outside():
    """The counts handed out are read-only."""
    with pytest.raises(ValueError, match="read-only"):
        histogram_of(np.ones(1)).counts[0] = 5


def test_threads_do_not_disturb_each_other():
    """Histograms filled in several threads at once are those filled one after another."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(5 * CHUNK).astype(np.float32) * 2**i for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(histogram_of, arrays)) == [histogram_of(array) for array in arrays]
