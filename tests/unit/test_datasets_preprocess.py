"""The text and the table that say how an image becomes an input."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_opt.datasets import Preprocess, preprocess_from_table, preprocess_from_text
from trt_opt.errors import RequestError

IMAGENET = "resize=256,crop=224,layout=NCHW,color=RGB,scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


def test_the_usual_text_is_understood() -> None:
    """Every option lands in its field."""
    assert preprocess_from_text(IMAGENET) == Preprocess(
        resize=256, crop=(224, 224), scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )


def test_sizes_are_width_times_height() -> None:
    """320x240 is 320 wide."""
    preprocess = preprocess_from_text("resize=320x240,crop=300x200")
    assert preprocess.resized((1000, 500)) == (320, 240)
    assert preprocess.crop == preprocess.fixed_size == (300, 200)


def test_resize_to_the_shorter_side_keeps_the_aspect_rounded_down() -> None:
    """As torchvision's Resize: 640x427 becomes 383x256, not 384x256."""
    preprocess = preprocess_from_text("resize=256")
    assert preprocess.resized((640, 427)) == (383, 256)
    assert preprocess.resized((427, 640)) == (256, 383)
    assert preprocess.fixed_size is None


def test_a_table_says_the_same_as_the_text() -> None:
    """Numbers, lists and texts, as TOML gives them."""
    table = {
        "resize": 256,
        "crop": [224, 224],
        "layout": "NCHW",
        "scale": "1/255",
        "mean": [0.485, 0.456, 0.406],
        "std": "0.229:0.224:0.225",
    }
    assert preprocess_from_table(table) == preprocess_from_text(IMAGENET)


sizes = st.tuples(st.integers(64, 500), st.integers(64, 500))
numbers = st.floats(-1e9, 1e9).map(lambda value: value + 0.0)


@given(
    resize=st.none() | st.integers(64, 500) | sizes,
    crop=st.none() | st.tuples(st.integers(1, 64), st.integers(1, 64)),
    scale=st.sampled_from([1.0, 1 / 255, 1 / 127.5, 5e-324, -0.1]) | numbers.filter(bool),
    mean=st.tuples(numbers) | st.tuples(numbers, numbers, numbers),
    std=st.tuples(numbers, numbers, numbers).map(lambda values: tuple(abs(value) + 1e-3 for value in values)),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest"]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    color=st.sampled_from(["RGB", "BGR"]),
)
def test_the_text_of_a_value_reads_back_to_the_last_bit(**options: object) -> None:
    """str() and the parser are inverse."""
    preprocess = Preprocess(**options)  # type: ignore[arg-type]
    assert preprocess_from_text(str(preprocess)) == preprocess


def test_one_over_255_is_written_as_such() -> None:
    """Manifests stay readable."""
    assert str(preprocess_from_text("scale=1/255,mean=0.5")) == (
        "interpolation=bilinear,layout=NCHW,color=RGB,scale=1/255,mean=0.5,std=1,dtype=float32"
    )


def test_an_unknown_option_lists_the_known_ones_and_the_closest() -> None:
    """A typo is found."""
    with pytest.raises(RequestError) as caught:
        preprocess_from_text("rezise=224")
    assert "--preprocess: unknown option 'rezise'" in str(caught.value)
    assert "did you mean resize?" in str(caught.value)
    assert "interpolation" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize", "cannot read 'resize'"),
        ("resize=", "cannot read 'resize='"),
        ("resize=12.5", "cannot read resize='12.5'"),
        ("resize=1x2x3", "width x height"),
        ("resize=0", "sizes from 1"),
        ("crop=-1", "sizes from 1"),
        ("resize=200,crop=224", "crop=224x224 is larger than resize=200"),
        ("resize=300x200,crop=224", "larger than resize=300x200"),
        ("scale=0", "other than 0"),
        ("scale=1/0", "cannot read scale"),
        ("scale=nan", "other than 0"),
        ("mean=a", "cannot read mean"),
        ("mean=1:2", "takes 1 number, or 3"),
        ("mean=1:2:3,color=L", "takes 1 number, or 1"),
        ("std=0", "must be positive"),
        ("layout=CHWN", "known are NCHW, NHWC"),
        ("color=CMYK", "known are RGB, BGR, L"),
        ("interpolation=lanczos", "known are bilinear"),
        ("dtype=int8", "known are float32, uint8"),
        ("dtype=uint8,scale=1/255", "goes without scale"),
        ("scale=1,scale=2", "scale is given twice"),
    ],
)
def test_values_that_make_no_sense_are_refused(text: str, message: str) -> None:
    """Each with what was read, and where."""
    with pytest.raises(RequestError, match=message) as caught:
        preprocess_from_text(text)
    assert caught.value.where == "--preprocess"


@pytest.mark.parametrize("table", [{"resize": True}, {"resize": 2.5}, {"scale": True}, {"mean": [None]}, {"scale": []}])
def test_a_table_with_the_wrong_types_is_refused(table: dict[str, object]) -> None:
    """TOML can hold anything."""
    with pytest.raises(RequestError, match=r"recipe\.toml: cannot read"):
        preprocess_from_table(table, where="recipe.toml")


def test_values_made_in_python_are_checked_too() -> None:
    """Not only those that come through the parser."""
    for options in ({"layout": "HWC"}, {"crop": 224}, {"mean": ()}, {"std": (math.nan,)}, {"resize": (1, 2, 3)}):
        with pytest.raises(RequestError):
            Preprocess(**options)  # type: ignore[arg-type]
