import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrators import CalibratorError, Entropy, Histogram, MinMax
from calibrators.expected_error import squared_error

RANDOM = np.random.default_rng(2017)
NORMAL = RANDOM.standard_normal(200_000)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


DATA = {
    "uniform": RANDOM.uniform(-1, 1, 200_000),
    "gaussian": NORMAL,
    "gaussian_100_elements": NORMAL[:100],
    "gaussian_1000_elements": NORMAL[:1000],
    "laplace": RANDOM.laplace(size=200_000),
    "student_t": RANDOM.standard_t(3, 200_000),
    "lognormal": np.exp(NORMAL),
    "exponential_4000_elements": RANDOM.exponential(50, 4000),
    "relu": np.maximum(NORMAL, 0),
    "relu_mostly_zero": np.maximum(NORMAL - 1.5, 0),
    "relu6": np.clip(NORMAL * 4, 0, 6),
    "silu": NORMAL * 2 / (1 + np.exp(-NORMAL * 2)),
    "sigmoid": 1 / (1 + np.exp(-5 * NORMAL)),
    "softmax": softmax(RANDOM.standard_normal((200, 1000)) * 4).ravel(),
    "outliers": np.append(NORMAL, [50.0, -60.0]),
    "bimodal": np.append(RANDOM.normal(0.02, 0.01, 100_000), RANDOM.normal(5, 0.1, 100)),
    "ten_distinct_values": RANDOM.choice(NORMAL[:10], 10_000),
    "ten_elements": NORMAL[:10],
    "two_elements": np.array([1.0, -0.25]),
    "one_element": np.array([3.3]),
    "constant": np.full(1000, 3.3),
    "image": RANDOM.integers(0, 256, 100_000) / 255,
}


def histogram_of(array, bins=4096):
    histogram = Histogram(bins)
    histogram.observe(array)
    return histogram


def sqnr_db(array, amax):
    scale = amax / 127
    error = array - np.clip(np.rint(array / scale), -127, 127) * scale
    energy = float((error**2).sum())
    return math.inf if energy == 0 else 10 * math.log10(float((array**2).sum()) / energy)


def plain_divergence(counts, size, levels):
    """KL(P || Q) for one number of bins, bin by bin as the slides have it."""
    reference = counts[:size].copy()
    reference[-1] += counts[size:].sum()
    group = [index * levels // size for index in range(size)]
    sums, filled = [0.0] * levels, [0] * levels
    for index in range(size):
        sums[group[index]] += counts[index]
        filled[group[index]] += reference[index] > 0
    candidate = np.array([sums[g] / filled[g] if reference[i] > 0 else 0.0 for i, g in enumerate(group)])
    if candidate.sum() == 0:
        return math.inf
    if reference[-1] > 0 and candidate[-1] == 0:
        candidate[-1] = 1.0
    p, q = reference / reference.sum(), candidate / candidate.sum()
    return math.fsum(p[i] * math.log(p[i] / q[i]) for i in range(size) if p[i] > 0)


def plain_threshold(histogram, spec):
    """The whole search without running sums."""
    counts = histogram.counts[: histogram.used].astype(np.float64)
    extreme = histogram.extreme
    budget = squared_error(histogram, extreme / histogram.width)
    clipping = [sum(counts[j] * (j - i) ** 2 for j in range(i, len(counts))) for i in range(len(counts))]
    beyond = [sum(counts[i:]) for i in range(len(counts))]
    rare = sum(counts) / 100_000
    allowed = next(i for i in range(len(counts)) if clipping[i] <= budget or beyond[i] <= rare)
    counts[0] = min(counts[0], counts[1])
    sizes = list(range(max(allowed, spec.levels), len(counts) + 1))
    divergences = [plain_divergence(counts, size, spec.levels) for size in sizes]
    best = max(size for size, d in zip(sizes, divergences, strict=True) if d <= min(divergences) + 1e-12)
    return min((best + 0.5) * histogram.width, extreme)


@pytest.mark.parametrize("name", DATA)
def test_the_vectorised_search_finds_the_plain_ones_threshold(name):
    """Running sums choose the very threshold that the bin-by-bin search of the published scheme chooses."""
    spec = Entropy(bins=128, levels=32)
    histogram = histogram_of(DATA[name], bins=256)
    assert spec.amax(histogram) == plain_threshold(histogram, spec)


@pytest.mark.parametrize("name", DATA)
def test_entropy_is_never_much_worse_than_minmax(name):
    """Whatever the data, the threshold costs at most 3 dB of SQNR against no clipping, measured on the data."""
    histogram = histogram_of(DATA[name])
    amax = Entropy().amax(histogram)
    assert sqnr_db(DATA[name], amax) > min(sqnr_db(DATA[name], histogram.extreme), 60.0) - 3.1


@pytest.mark.parametrize("name", ["outliers", "laplace", "relu", "student_t"])
def test_long_tails_are_clipped_to_advantage(name):
    """Where a few elements stretch the range, entropy clips them, and all others are represented better."""
    array, histogram = DATA[name], histogram_of(DATA[name])
    amax = Entropy().amax(histogram)
    assert amax < 0.99 * histogram.extreme
    others = array[np.abs(array) <= amax]
    assert others.size > 0.999 * array.size
    assert sqnr_db(others, amax) > sqnr_db(others, histogram.extreme)


@pytest.mark.parametrize("name", ["uniform", "image", "sigmoid", "relu6", "constant", "one_element", "ten_elements"])
def test_data_without_a_tail_are_hardly_clipped(name):
    """Where large values are as frequent as small ones, or few, the threshold stays within 1 % of the largest."""
    histogram = histogram_of(DATA[name])
    assert Entropy().amax(histogram) >= 0.99 * histogram.extreme


def test_a_single_far_outlier_does_not_set_the_range():
    """One element a thousand times the others' spread is clipped, though nothing lies between it and them."""
    array = np.append(NORMAL, 1000.0)
    assert Entropy().amax(histogram_of(array)) < 100.0


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_zeros_do_not_move_the_threshold(share):
    """A ReLU's zeros, however many, leave the threshold of the other elements as it is."""
    positive = np.abs(NORMAL)
    zeros = np.zeros(int(positive.size * share / (1 - share)))
    assert Entropy().amax(histogram_of(np.append(positive, zeros))) == Entropy().amax(histogram_of(positive))


def test_a_spike_beside_zero_does_not_ruin_the_threshold():
    """Nearly all elements just beside zero (as after SiLU or GELU) do not pull the threshold onto the spike."""
    array = np.append(np.abs(NORMAL), np.full(5 * NORMAL.size, 1e-6))
    assert Entropy().amax(histogram_of(array)) > 3.0


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.sampled_from([1, 7, 128]),
)
@settings(max_examples=150)
def test_the_threshold_lies_within_the_data(values, levels):
    """The threshold is at most the largest magnitude, above 0 unless all elements are zero, and never NaN."""
    histogram = histogram_of(np.array(values), bins=512)
    amax = Entropy(bins=256, levels=levels).amax(histogram)
    assert amax <= histogram.extreme
    assert (amax > 0.0) == (histogram.extreme > 0.0)


@given(st.integers(-100, 90))
@settings(max_examples=20)
def test_scaling_by_a_power_of_two_scales_the_threshold(exponent):
    """The choice depends on the distribution's shape alone."""
    array = np.maximum(NORMAL[:20_000], 0).astype(np.float32)
    plain = Entropy().amax(histogram_of(array))
    assert Entropy().amax(histogram_of(np.ldexp(array, exponent))) == math.ldexp(plain, exponent)


def test_a_finer_histogram_gives_the_same_threshold():
    """One fine histogram serves calibrators of several resolutions; a coarser one than asked for is refused."""
    spec = Entropy(bins=512)
    assert spec.amax(histogram_of(NORMAL, bins=4096)) == spec.amax(histogram_of(NORMAL, bins=1024))
    with pytest.raises(CalibratorError, match="1024 bins were asked for and 512"):
        spec.amax(histogram_of(NORMAL, bins=512))


def test_wrong_specifications_are_refused():
    """Bins are a power of two, levels lie between 1 and the bins."""
    for bins, levels in ((1000, 128), (0, 1), (64, 128), (128, 0)):
        with pytest.raises(CalibratorError, match="entropy needs"):
            Entropy(bins, levels)


def test_zeros_and_no_data():
    """All-zero data give 0.0 and no data are an error, as for every calibrator."""
    assert Entropy().amax(histogram_of(np.zeros(9))) == MinMax().amax(histogram_of(np.zeros(9))) == 0.0
    with pytest.raises(CalibratorError, match="no data"):
        Entropy().amax(Histogram())
