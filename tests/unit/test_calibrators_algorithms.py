import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibrators import (
    CALIBRATORS,
    Auto,
    CalibratorError,
    Entropy,
    Histogram,
    MinMax,
    Mse,
    Percentile,
    Range,
    calibrator_from_text,
)
from calibrators.expected_error import squared_error

SPECS = [MinMax(), Entropy(), Percentile(), Percentile(50.0), Mse(), Mse(steps=7), Auto()]
FINITE = {"allow_nan": False, "allow_infinity": False}
ARRAYS = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda kind: hnp.arrays(kind, st.integers(1, 30), elements=FINITE)
)
every_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


def range_of(spec, *arrays):
    observer = spec.observer()
    for array in arrays:
        observer.observe(array)
    return observer.range()


def quantised(array, amax):
    scale = amax / 127
    return np.clip(np.rint(array / scale), -127, 127) * scale


@every_spec
@settings(deadline=None)  # mse and auto try many thresholds, which takes its time on a busy machine
@given(array=ARRAYS, random=st.randoms(use_true_random=False), parts=st.integers(1, 4))
def test_ranges_ignore_order_split_and_merging(spec, array, random, parts):
    """Every calibrator gives exactly one range for the same data, however they came in."""
    shuffled = array.copy()
    random.shuffle(shuffled)
    merged = spec.observer()
    for batch in np.array_split(shuffled, parts):
        observer = spec.observer()
        observer.observe(batch)
        merged.merge(observer)
    assert merged.range() == range_of(spec, *np.array_split(shuffled, parts)) == range_of(spec, array)


@every_spec
@given(array=ARRAYS)
def test_ranges_lie_within_the_data(spec, array):
    """low, high and count are the data's own; amax is at most the largest magnitude and 0.0 for zeros only."""
    found = range_of(spec, array)
    assert (found.low, found.high, found.count) == (array.min(), array.max(), array.size)
    assert found.amax <= np.abs(array).max()
    assert (found.amax > 0.0) == bool(array.any())


@every_spec
@given(array=hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e300, 1e300)))
def test_inside_the_range_the_error_is_half_a_step(spec, array):
    """|x - dequantise(quantise(x))| <= scale / 2 for every element that is not clipped."""
    amax = range_of(spec, array).amax
    if amax > 1e-290:
        inside = array[np.abs(array) <= amax]
        assert np.all(np.abs(inside - quantised(inside, amax)) <= amax / 127 / 2 * (1 + 1e-9))


@every_spec
def test_all_zero_data_have_amax_zero(spec):
    """A tensor of zeros is data: its amax is 0.0, the sign that the caller has to choose a scale."""
    assert range_of(spec, np.zeros((2, 3), np.float32), np.float32(-0.0)) == Range(0.0, 0.0, 0.0, 7)


@every_spec
def test_no_data_is_an_error(spec):
    """Neither a new observer nor one that saw empty arrays has a range."""
    with pytest.raises(CalibratorError, match="no data"):
        range_of(spec)
    with pytest.raises(CalibratorError, match="no data"):
        range_of(spec, np.empty((0, 4), np.float32))


@every_spec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_errors(spec, bad):
    """NaN or infinity is refused, and the observer is what it was before."""
    observer = spec.observer()
    observer.observe(np.array([1.0, 2.0]))
    with pytest.raises(CalibratorError, match="NaN or infinity"):
        observer.observe(np.append(np.full(100_000, 3.0), bad))
    assert observer.range() == range_of(spec, np.array([1.0, 2.0]))


@every_spec
def test_one_histogram_serves_all_calibrators(spec):
    """A calibrator reads the same threshold from a shared histogram as from its own observer."""
    array = np.random.default_rng(0).laplace(size=10_000).astype(np.float32)
    histogram = Histogram()
    histogram.observe(array)
    assert spec.amax(histogram) == range_of(spec, array).amax


@every_spec
def test_observers_travel_between_processes(spec):
    """An observer survives pickling, so that machines can each calibrate a part."""
    observer = spec.observer()
    observer.observe(np.arange(-9.0, 5.0))
    assert pickle.loads(pickle.dumps(observer)).range() == observer.range()


def test_observers_of_different_calibrators_do_not_merge():
    """Merging what was collected for another algorithm or other arguments is refused."""
    for one, other in ((MinMax(), Entropy()), (Entropy(), MinMax()), (Mse(), Entropy()), (Mse(5), Mse(6))):
        with pytest.raises(CalibratorError, match="can be merged"):
            one.observer().merge(other.observer())


@pytest.mark.parametrize("percent", [1.0, 50.0, 99.0, 99.9, 99.99, 100.0])
@pytest.mark.parametrize("zeros", [0, 30_000])
def test_percentile_is_that_of_the_magnitudes(percent, zeros):
    """Within a bin's width the percentile of |x| without the zeros, which have no say."""
    array = np.random.default_rng(1).standard_normal(20_000)
    histogram = Histogram()
    histogram.observe(np.append(array, np.zeros(zeros)))
    expected = np.percentile(np.abs(array), percent)
    neighbours = np.diff(np.sort(np.abs(array)))[int(percent / 100 * (array.size - 1)) - 1 :][:2].max()
    assert abs(Percentile(percent).amax(histogram) - expected) <= histogram.width + neighbours


def test_percentile_100_clips_nothing():
    """All of the magnitudes reach up to exactly the largest."""
    assert range_of(Percentile(100.0), np.array([0.1, -0.7, 0.3])).amax == 0.7


@pytest.mark.parametrize("threshold", [0.5, 2.0, 3.7, 5.2])
def test_expected_error_is_the_measured_one(threshold):
    """The error read off the histogram is that of quantising the elements, clipping included, within 1 %."""
    array = np.random.default_rng(2).standard_normal(500_000)
    histogram = Histogram()
    histogram.observe(array)
    measured = float(((array - quantised(array, threshold)) ** 2).sum())
    found = squared_error(histogram, threshold / histogram.width) * histogram.width**2
    assert found == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("shape", ["standard_normal", "standard_exponential", "standard_cauchy"])
def test_mse_finds_the_smallest_measured_error(shape):
    """No threshold of the grid has an error more than 1 % below that of the one chosen."""
    array = getattr(np.random.default_rng(3), shape)(50_000)
    found = range_of(Mse(steps=50), array)
    grid = np.abs(array).max() * np.arange(1, 51) / 50
    errors = [float(((array - quantised(array, amax)) ** 2).sum()) for amax in grid]
    chosen = float(((array - quantised(array, found.amax)) ** 2).sum())
    assert chosen <= min(errors) * 1.01


@pytest.mark.parametrize(
    "spec", [MinMax(), Entropy(1024, 64), Percentile(99.9), Percentile(99.99999), Mse(steps=3), Auto()]
)
def test_text_round_trips(spec):
    """`calibrator_from_text` reads what `str` wrote, and the name alone gives the defaults."""
    assert calibrator_from_text(str(spec)) == spec
    assert calibrator_from_text(f" {spec.name}() ") == calibrator_from_text(spec.name) == type(spec)()


def test_text_is_as_documented():
    """The notation is name(argument=value, …), the bare name without arguments."""
    assert str(Entropy()) == "entropy(bins=2048, levels=128)"
    assert str(MinMax()) == "minmax"
    assert calibrator_from_text("percentile(percent=99)") == Percentile(99.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entrpy", "known are entropy, minmax, percentile, mse, auto. Did you mean entropy?"),
        ("kl", "known are entropy, minmax, percentile, mse, auto$"),
        ("entropy(bins=many)", "bins of entropy must be of type int, not 'many'"),
        ("entropy(bins=2048.5)", "must be of type int"),
        ("entropy(bin=2048)", "entropy does not understand 'bin=2048': it takes bins, levels"),
        ("percentile(99.9)", "it takes percent"),
        ("minmax(bins=3)", "it takes no arguments"),
        ("mse(steps=3, steps=4)", "given steps twice"),
        ("mse(steps=0)", "at least one threshold"),
        ("percentile(percent=0)", "above 0"),
        ("percentile(percent=nan)", "above 0"),
        ("percentile(percent=100.1)", "at most at 100"),
        ("entropy(", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_wrong_text_says_what_is_wrong(text, message):
    """Each mistake has its own message; an unknown name lists the known ones and the closest."""
    with pytest.raises(CalibratorError, match=message.replace("(", r"\(").replace("?", r"\?")):
        calibrator_from_text(text)


def test_the_registry_is_read_only():
    """The calibrators by name cannot be changed from outside."""
    known = {"entropy": Entropy, "minmax": MinMax, "percentile": Percentile, "mse": Mse, "auto": Auto}
    assert dict(CALIBRATORS) == known
    with pytest.raises(TypeError):
        CALIBRATORS["mine"] = MinMax  # type: ignore[index]
