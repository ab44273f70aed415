import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibrators import CalibratorError, amax_per_channel


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.data(),
)
def test_each_channel_has_its_largest_magnitude(weights, data):
    """The result is max |w| over all axes but the channel's, for every axis, negative ones included."""
    axis = data.draw(st.integers(-weights.ndim, weights.ndim - 1))
    found = amax_per_channel(weights, axis)
    assert found.dtype == np.float32
    expected = [np.abs(np.take(weights, channel, axis)).max() for channel in range(weights.shape[axis])]
    np.testing.assert_array_equal(found, expected)


def test_a_channel_of_zeros_is_zero():
    """Zeros, also negative ones, give a positive 0.0 and leave the other channels alone."""
    found = amax_per_channel(np.array([[0.0, -0.0], [0.0, -3.0]]), 0)
    np.testing.assert_array_equal(found, [0.0, 3.0])
    assert not np.signbit(found).any()


def test_integers_and_half_floats_are_taken():
    """-128 in int8 counts as 128; float16 is widened."""
    np.testing.assert_array_equal(amax_per_channel(np.array([[-128, 3]], np.int8), 0), [128.0])
    np.testing.assert_array_equal(amax_per_channel(np.array([[65504, -1]], np.float16), 1), [65504.0, 1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_unusable_values_name_their_channel(bad):
    """NaN, infinity and what float32 cannot hold are refused with the channel."""
    weights = np.ones((4, 3))
    weights[2, 1] = bad
    with pytest.raises(CalibratorError, match="1 of 4 channels of the weights, first channel 2"):
        amax_per_channel(weights, 0)


@pytest.mark.parametrize(
    ("weights", "axis", "message"),
    [
        (np.ones((2, 3)), 2, "no axis 2"),
        (np.float32(1), 0, "no axis 0"),
        (np.ones((2, 0)), 0, "no elements"),
        (np.array(["a"]), 0, "real numbers"),
        (np.ones(2, np.complex64), 0, "real numbers"),
    ],
)
def test_what_has_no_channels_is_refused(weights, axis, message):
    """A missing axis, no elements, or no numbers are errors that say so."""
    with pytest.raises(CalibratorError, match=message):
        amax_per_channel(weights, axis)
