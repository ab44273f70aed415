import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrators import CalibrationCache, CalibratorError, cache_from_text, text_from_cache

WRITTEN = """TRT-8601-EntropyCalibration2
input: 3c010a14
(Unnamed Layer* 64) [Shuffle]_output: 0
model/block:0/add 1: 3f800000
tiny: 1
"""
NAMES = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" :"), min_size=1).filter(
    lambda name: name == name.strip()
)
SCALES = st.floats(0.0, float(np.finfo(np.float32).max), width=32).map(abs)


def test_a_cache_is_read():
    """Names with colons and spaces, a scale of 0 and dropped leading zeros are understood."""
    cache = cache_from_text(WRITTEN)
    assert (cache.version, cache.algorithm) == ("8.6.1", "EntropyCalibration2")
    assert list(cache.scales) == ["input", "(Unnamed Layer* 64) [Shuffle]_output", "model/block:0/add 1", "tiny"]
    assert cache.scales["input"] == struct.unpack(">f", bytes.fromhex("3c010a14"))[0]
    assert cache.scales["model/block:0/add 1"] == 1.0
    assert cache.scales["(Unnamed Layer* 64) [Shuffle]_output"] == 0.0
    assert cache.scales["tiny"] == np.finfo(np.float32).smallest_subnormal


def test_a_cache_is_written_as_it_was_read():
    """Writing what was read gives the same text."""
    assert text_from_cache(cache_from_text(WRITTEN)) == WRITTEN


@pytest.mark.parametrize(
    "kind", [str.encode, lambda text: memoryview(text.encode()), lambda text: bytearray(text, "utf-8")]
)
def test_bytes_and_views_are_read(kind):
    """TensorRT hands a memoryview to the calibrator, a file gives bytes."""
    assert cache_from_text(kind(WRITTEN)) == cache_from_text(WRITTEN)


def test_line_ends_and_blank_lines_do_not_matter():
    """Windows line ends, empty lines and a missing last line end are accepted."""
    assert cache_from_text(WRITTEN.replace("\n", "\r\n\r\n").rstrip()) == cache_from_text(WRITTEN)


@given(st.dictionaries(NAMES, SCALES), st.sampled_from(["8.5.3", "8.6.1", "10.3.0", "10.14.1"]))
def test_caches_round_trip(scales, version):
    """Every cache is read back as it was written."""
    cache = CalibrationCache(version, "MinMaxCalibration", scales)
    assert cache_from_text(text_from_cache(cache)) == cache


@pytest.mark.parametrize(
    ("version", "number"),
    [("8.6.1", "8601"), ("8.6.1.6", "8601"), ("7.2", "7200"), ("10.3.0", "100300"), ("10.14.1.48", "101401")],
)
def test_the_header_holds_the_version_as_a_number(version, number):
    """The major number counts 1000 up to TensorRT 9 and 10000 from 10 on."""
    assert text_from_cache(CalibrationCache(version, "X", {})) == f"TRT-{number}-X\n"


@pytest.mark.parametrize("number", ["8XXX", "0860", "86010", "x"])
def test_a_header_with_a_made_up_version_is_read(number):
    """Tools that write caches put placeholders there; the scales are what matters."""
    cache = cache_from_text(f"TRT-{number}-EntropyCalibration2\na: 3f800000\n")
    assert (cache.version, cache.scales) == (None, {"a": 1.0})


@pytest.mark.parametrize("digits", ["7f800000", "7fc00000", "ffc00000"])
def test_infinity_and_nan_are_no_scales_but_no_reason_to_refuse_the_file(digits):
    """The tensor is told apart; the others keep their scales, and nothing of it is written."""
    cache = cache_from_text(f"TRT-8601-X\na: {digits}\nb: 3f800000\n")
    assert (cache.not_finite, cache.scales) == (("a",), {"b": 1.0})
    assert text_from_cache(cache) == "TRT-8601-X\nb: 3f800000\n"


@pytest.mark.parametrize("kind", [str, str.encode])
def test_a_byte_order_mark_is_skipped(kind):
    """Windows editors put one in front."""
    assert cache_from_text(kind("\ufeff" + WRITTEN)) == cache_from_text(WRITTEN)


def test_an_unknown_version_is_none_and_cannot_be_written():
    """A header's number of no known scheme is read as no version; writing then needs one."""
    cache = cache_from_text("TRT-12-EntropyCalibration2\n")
    assert cache.version is None
    with pytest.raises(CalibratorError, match="needs the TensorRT version"):
        text_from_cache(cache)


@pytest.mark.parametrize("version", ["8", "8.x", "8.10.1", "10.100.0", "8.6.100", ""])
def test_a_wrong_version_cannot_be_written(version):
    """A version that the header cannot hold is refused."""
    with pytest.raises(CalibratorError, match="version"):
        text_from_cache(CalibrationCache(version, "X", {}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: .* found nothing"),
        ("input: 3c010a14\n", "line 1: TRT-"),
        ("TRT-8601\n", "line 1"),
        ("TRT-8601-X\ninput\n", "line 2: <tensor name>"),
        ("TRT-8601-X\na: 0\n\n: 3c010a14\n", "line 4"),
        ("TRT-8601-X\ninput: 3c010a14f\n", "line 2"),
        ("TRT-8601-X\ninput: 0.5\n", "line 2"),
        ("TRT-8601-X\ninput:\n", "line 2"),
        ("TRT-8601-X\na: bf800000\n", "line 2: .* -1.0"),
        ("TRT-8601-X\na: 0\nb: ff800000\n", "line 3: .* -inf"),
        ("TRT-8601-X\na: 0\nb: 1\na: 2\n", "line 4: the tensor 'a' occurs twice"),
        (b"TRT-8601-X\n\xff: 0\n", "line 2: not UTF-8"),
    ],
)
def test_malformed_caches_are_refused_with_the_line(content, message):
    """The message names the line and what was expected there."""
    with pytest.raises(CalibratorError, match=message):
        cache_from_text(content)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb: 0", "a\u2028b"])
def test_names_that_cannot_be_written_are_refused(name):
    """A name that would not be read back as it is makes no cache."""
    with pytest.raises(CalibratorError, match="cannot be written"):
        CalibrationCache("8.6.1", "X", {name: 1.0})


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 1e39])
def test_scales_that_are_none_are_refused(scale):
    """A scale is a float32 that is finite and not negative."""
    with pytest.raises(CalibratorError, match="scale of 'a'"):
        CalibrationCache("8.6.1", "X", {"a": scale})


def test_scales_are_rounded_to_float32():
    """The cache holds what the file can hold; a negative zero is a zero."""
    cache = CalibrationCache("8.6.1", "X", {"a": 0.1, "b": -0.0})
    assert cache.scales["a"] == float(np.float32(0.1)) != 0.1
    assert text_from_cache(cache).endswith("b: 0\n")
