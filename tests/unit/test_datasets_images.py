"""A folder of images as samples."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trt_opt.datasets import images, open_dataset, preprocess_from_text
from trt_opt.errors import DataError
from trt_opt.values.samples import Dataset
from trt_opt.values.tensors import TensorSpec

RGB = TensorSpec("image", "float32", ("N", 3, 8, 8))


def pixels(height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, **options)


def photos(tmp_path: Path, count: int = 3) -> Path:
    for index in range(count):
        save(tmp_path / "photos" / f"{index:03}.png", pixels(seed=index))
    return tmp_path / "photos"


def opened(folder: Path, text: str = "scale=1", spec: TensorSpec = RGB) -> Dataset:
    return open_dataset(str(folder), (spec,), preprocess=preprocess_from_text(text))


def test_arithmetic_is_pixel_times_scale_minus_mean_over_std(tmp_path: Path) -> None:
    """Per channel, in float32, as [1, C, H, W], in the order of the names."""
    dataset = opened(photos(tmp_path), "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225")
    samples = list(dataset)
    assert [sample.name for sample in samples] == ["photos/000.png", "photos/001.png", "photos/002.png"]
    assert len(dataset) == 3
    for index, sample in enumerate(samples):
        expected = (pixels(seed=index) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert sample.feed["image"].dtype == np.float32
        np.testing.assert_allclose(sample.feed["image"], expected.transpose(2, 0, 1)[None], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "spec", "expected"),
    [
        ("layout=NHWC", TensorSpec("image", "float32", (1, 8, 8, 3)), lambda array: array[None]),
        ("color=BGR", RGB, lambda array: array[:, :, ::-1].transpose(2, 0, 1)[None]),
        ("layout=NCHW", TensorSpec("image", "float32", (3, 8, 8)), lambda array: array.transpose(2, 0, 1)),
        (
            "dtype=uint8,layout=NHWC",
            TensorSpec("image", "uint8", ("N", "H", "W", 3)),
            lambda array: array[None],
        ),
        ("scale=1", TensorSpec("image", "float16", None), lambda array: array.transpose(2, 0, 1)[None]),
    ],
)
def test_layout_colour_rank_and_type_follow_the_options_and_the_input(
    tmp_path: Path, text: str, spec: TensorSpec, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Channels first or last, RGB or BGR, with or without a batch, floats or bytes."""
    array = next(iter(opened(photos(tmp_path), text, spec))).feed["image"]
    assert array.dtype.name == spec.dtype
    assert array.flags.c_contiguous
    assert np.array_equal(array, expected(pixels()).astype(spec.dtype))


def test_the_mean_follows_the_channels_the_model_gets(tmp_path: Path) -> None:
    """With color=BGR the first mean is blue's."""
    array = next(iter(opened(photos(tmp_path), "color=BGR,mean=100:0:0"))).feed["image"][0]
    assert np.array_equal(array[0], pixels()[:, :, 2].astype(np.float32) - 100)


def test_grey_is_one_channel(tmp_path: Path) -> None:
    """color=L gives [1, 1, H, W] with Pillow's luma."""
    array = next(iter(opened(photos(tmp_path), "color=L", TensorSpec("x", "float32", (1, 1, 8, 8))))).feed["x"]
    assert np.array_equal(array[0, 0], np.asarray(Image.fromarray(pixels()).convert("L")))


def test_resize_then_centre_crop(tmp_path: Path) -> None:
    """The shorter side is resized, then the middle is cut out."""
    save(tmp_path / "a.png", pixels(20, 30))
    array = next(iter(opened(tmp_path, "resize=10,crop=8"))).feed["image"]
    resized = np.asarray(Image.fromarray(pixels(20, 30)).resize((15, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(array[0].transpose(1, 2, 0), resized[1:9, 4:12])


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest"])
def test_exact_resize_is_width_first(tmp_path: Path, name: str) -> None:
    """resize=16x8 gives [1, 3, 8, 16], with the interpolation asked for."""
    save(tmp_path / "a.png", pixels(20, 30))
    spec = TensorSpec("image", "float32", (1, 3, 8, 16))
    array = next(iter(opened(tmp_path, f"resize=16x8,interpolation={name}", spec))).feed["image"]
    expected = Image.fromarray(pixels(20, 30)).resize((16, 8), getattr(Image.Resampling, name.upper()))
    assert np.array_equal(array[0].transpose(1, 2, 0), np.asarray(expected))


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    """A photo taken sideways is fed upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to view"
    save(tmp_path / "a.png", pixels(8, 4), exif=exif)
    spec = TensorSpec("image", "float32", (1, 3, 4, 8))
    array = next(iter(opened(tmp_path, spec=spec))).feed["image"]
    assert np.array_equal(array[0].transpose(1, 2, 0), np.rot90(pixels(8, 4), k=-1))


def test_every_usual_format_and_mode_is_read(tmp_path: Path) -> None:
    """jpg, jpeg, png, bmp, webp, ppm, tiff; grey, palette, alpha, CMYK; capital letters."""
    picture = Image.fromarray(pixels())
    for name in ("a.jpg", "b.JPEG", "c.png", "d.bmp", "e.webp", "f.ppm", "g.tiff"):
        picture.save(tmp_path / name)
    for mode in ("L", "P", "1", "LA", "RGBA"):
        picture.convert(mode).save(tmp_path / f"mode-{mode}.png")
    picture.convert("CMYK").save(tmp_path / "mode-cmyk.jpg")
    see_through = picture.convert("P")
    see_through.save(tmp_path / "transparent.png", transparency=bytes([0, 128]))
    samples = list(opened(tmp_path))
    assert len(samples) == 14
    assert all(sample.feed["image"].shape == (1, 3, 8, 8) for sample in samples)


def test_images_are_decoded_ahead_but_not_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model runs, a bounded number of images is decoded on other threads, and order is kept."""
    decoded: list[tuple[str, int]] = []
    genuine = images.array_from_image

    def recording(path: Path, *arguments: Any) -> Any:
        time.sleep(0.005 if path.name.startswith("000") else 0)
        decoded.append((path.name, threading.get_ident()))
        return genuine(path, *arguments)

    dataset = opened(photos(tmp_path, 40))
    monkeypatch.setattr(images, "array_from_image", recording)
    walk = iter(dataset)
    first = next(walk)
    deadline = time.monotonic() + 5
    while len(decoded) < images._LOOK_AHEAD and time.monotonic() < deadline:
        time.sleep(0.005)
    assert 1 < len(decoded) <= images._LOOK_AHEAD + 1
    assert threading.get_ident() not in {thread for _, thread in decoded}
    names = [first.name, *(sample.name for sample in walk)]
    assert names == sorted(names)
    assert len(names) == 40


def test_a_walk_that_is_left_ends_its_threads(tmp_path: Path) -> None:
    """Nothing goes on decoding for nobody."""
    walk = iter(opened(photos(tmp_path, 30)))
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_a_second_walk_gives_identical_samples(tmp_path: Path) -> None:
    """Threads don't change what is read."""
    dataset = opened(photos(tmp_path, 20), "resize=12,crop=8,scale=1/255")
    for one, other in zip(dataset, dataset, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.feed["image"], other.feed["image"])


def test_a_corrupt_image_is_named_at_its_turn(tmp_path: Path) -> None:
    """The samples before it are given."""
    folder = photos(tmp_path, 5)
    good = (folder / "003.png").read_bytes()
    for bad in (b"", b"no image", good[:60], good[:-40], good[:90] + b"\xff\x00\x13" + good[93:]):
        (folder / "003.png").write_bytes(bad)
        walk = iter(opened(folder))
        assert [next(walk).name for _ in range(3)] == ["photos/000.png", "photos/001.png", "photos/002.png"]
        with pytest.raises(DataError, match=r"003\.png: not an image that can be read"):
            next(walk)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "ppm", "tiff"])
def test_flipped_bytes_never_give_another_exception(tmp_path: Path, suffix: str) -> None:
    """A damaged image is a DataError, or still an image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / f"a.{suffix}", pixels(), **({"exif": exif} if suffix in ("png", "jpg", "webp") else {}))
    path = tmp_path / f"a.{suffix}"
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), 1 + len(good) // 150):
        flipped = good[position] ^ (0x01, 0x80, 0xFF)[position % 3]
        path.write_bytes(good[:position] + bytes([flipped]) + good[position + 1 :])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
                warnings.simplefilter("error", Image.DecompressionBombWarning)  # slow, where the size was hit
                opened(tmp_path, "resize=8x8")
        except DataError:
            refused += 1
    assert refused > 0


def test_a_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    """Pillow could fill the rest with grey; it is not asked to."""
    save(tmp_path / "a.jpg", pixels(64, 64))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-500])
    with pytest.raises(DataError, match=r"a\.jpg: not an image"):
        opened(tmp_path, "resize=8x8")


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    """Pillow would clip 16-bit grey to white."""
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        opened(tmp_path)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    """Which one would be meant?"""
    frames = [Image.fromarray(pixels(seed=index)) for index in range(3)]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 3 images"):
        opened(tmp_path)


def test_nothing_is_resized_unasked(tmp_path: Path) -> None:
    """The message names the options that would do it."""
    save(tmp_path / "a.png", pixels(20, 30))
    spec = TensorSpec("image", "float32", (1, 3, 8, 16))
    with pytest.raises(DataError, match=r"ends as 30x20 pixels(.|\n)*wants 16x8(.|\n)*resize=16x8"):
        opened(tmp_path, spec=spec)
    with pytest.raises(DataError, match="ends as 8x8 pixels"):
        opened(tmp_path, "resize=9,crop=8", spec)


def test_an_image_smaller_than_the_crop_is_refused(tmp_path: Path) -> None:
    """No padding is invented."""
    save(tmp_path / "a.png", pixels(6, 30))
    with pytest.raises(DataError, match=r"30x6 pixels(.|\n)*too few for crop=8x8"):
        opened(tmp_path, "crop=8")


def test_preprocess_is_needed(tmp_path: Path) -> None:
    """An example says how to write it."""
    with pytest.raises(DataError, match="--preprocess"):
        open_dataset(str(photos(tmp_path)), (RGB,))


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        ("layout=NHWC", (RGB,), "layout=NCHW$"),
        ("color=L", (RGB,), "color=RGB or color=BGR"),
        ("color=RGB", (TensorSpec("x", "float32", (1, 1, 8, 8)),), "color=L"),
        ("dtype=uint8", (RGB,), "dtype=float32 in --preprocess"),
        ("scale=1", (TensorSpec("x", "uint8", (1, 3, 8, 8)),), "dtype=uint8 in --preprocess"),
        ("scale=1", (TensorSpec("x", "float32", (4, 3, 8, 8)),), "batches of 4"),
        ("scale=1", (TensorSpec("x", "float32", ("N", 10)),), "one input of rank 4"),
        ("scale=1", (RGB, TensorSpec("rate", "int64", ())), "one input of rank 4"),
    ],
)
def test_options_and_inputs_that_do_not_fit_are_refused_at_opening(
    tmp_path: Path, text: str, inputs: tuple[TensorSpec, ...], message: str
) -> None:
    """With the option that would fit."""
    with pytest.raises(DataError, match=message):
        open_dataset(str(photos(tmp_path)), inputs, preprocess=preprocess_from_text(text))


class TestLabels:
    """labels.csv."""

    @pytest.mark.parametrize("heading", ["", "filename,label\n", "\ufefffile, Label\n"])
    def test_labels_csv_gives_labels(self, tmp_path: Path, heading: str) -> None:
        """With or without a heading, in any order."""
        folder = photos(tmp_path)
        (folder / "labels.csv").write_text(heading + "002.png,7\n000.png,5\n\n001.png, 6\n", encoding="utf-8")
        dataset = opened(folder)
        assert dataset.has_labels
        assert [sample.label.tolist() for sample in dataset if sample.label is not None] == [[5], [6], [7]]

    def test_a_heading_may_name_the_columns(self, tmp_path: Path) -> None:
        """Other columns are passed over."""
        folder = photos(tmp_path)
        (folder / "labels.csv").write_text("name,class_index,file\na,5,000.png\nb,6,001.png\nc,7,002.png\n")
        assert [sample.label.tolist() for sample in opened(folder) if sample.label is not None] == [[5], [6], [7]]

    def test_there_are_none_without_it(self, tmp_path: Path) -> None:
        """Names of folders are not taken for classes."""
        dataset = opened(photos(tmp_path))
        assert not dataset.has_labels
        assert all(sample.label is None for sample in dataset)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("000.png,5\n001.png,6\n", r"1 image\(s\) have no label, the first is '002\.png'"),
            ("000.png,5\n00l.png,6\n", r"line 2: no image '00l\.png'(.|\n)*did you mean"),
            ("000.png,5\n000.png,6\n", "two labels"),
            ("000.png,cat\n", "line 1: 'cat' is not a class number"),
            ("000.png,-1\n", "line 1: '-1' is not a class number"),
            ("000.png,5,ostrich\n", "line 1: cannot read '000.png,5,ostrich'"),
            ("name,file,label\nbird,000.png\n", "line 2: cannot read 'bird,000.png'"),
            ("000.png;5\n", "line 1: cannot read"),
        ],
    )
    def test_labels_that_do_not_fit_the_images_are_refused(self, tmp_path: Path, text: str, message: str) -> None:
        """With the line."""
        folder = photos(tmp_path)
        (folder / "labels.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            opened(folder)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("5", "007", "0"), np.array([5, 7, 0])),
        (("5", "-1", "0.5"), np.array([5, -1, 0.5])),
        (("5", "cat", "a dog"), np.array(["5", "cat", "a dog"])),
        (("1" * 25, "2", "3"), np.array([1e25 / 9, 2, 3])),
    ],
)
def test_any_labels_of_images_are_numbers_or_texts(
    tmp_path: Path, cells: tuple[str, str, str], expected: np.ndarray
) -> None:
    """The whole column decides; class numbers are demanded where nobody says so."""
    folder = photos(tmp_path)
    (folder / "labels.csv").write_text("".join(f"{index:03}.png,{cell}\n" for index, cell in enumerate(cells)))
    for spec, shape in ((RGB, (1,)), (TensorSpec("image", "float32", (3, 8, 8)), ())):
        dataset = open_dataset(str(folder), (spec,), preprocess=preprocess_from_text("scale=1"), any_labels=True)
        found = [sample.label for sample in dataset if sample.label is not None]
        assert [(label.dtype.kind, label.shape) for label in found] == [(expected.dtype.kind, shape)] * 3
        values = [label.item() for label in found]
        assert values == (pytest.approx(expected.tolist()) if expected.dtype.kind == "f" else expected.tolist())
    if expected.dtype.kind != "i":
        with pytest.raises(DataError, match="is not a class number from 0"):
            opened(folder)


def test_the_hash_depends_on_bytes_labels_and_preprocessing(tmp_path: Path) -> None:
    """Four different results rest on four different data."""
    folder = photos(tmp_path)
    hashes = [opened(folder).provenance().sha256, opened(folder, "scale=1/255").provenance().sha256]
    (folder / "labels.csv").write_text("000.png,5\n001.png,6\n002.png,0\n")
    hashes.append(opened(folder).provenance().sha256)
    save(folder / "001.png", pixels(seed=99))
    hashes.append(opened(folder).provenance().sha256)
    assert len(set(hashes)) == 4
    assert opened(folder).provenance() == opened(folder).provenance()
    assert opened(folder, "scale=1/255").provenance().preprocess == str(preprocess_from_text("scale=1/255"))
