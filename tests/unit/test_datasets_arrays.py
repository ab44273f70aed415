"""One .npz or .npy file as samples: how arrays are cut, what is refused, and how little memory it takes."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_opt.datasets import open_dataset, stored_arrays
from trt_opt.errors import DataError
from trt_opt.values.samples import Sample
from trt_opt.values.tensors import TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 3, 4, 5))
PLAIN = TensorSpec("x", "float32", ("N", 4))
RATE = TensorSpec("rate", "int64", ())


def written(folder: Path, name: str = "data.npz", **arrays: Any) -> str:
    path = folder / name
    np.savez(path, **arrays)
    return str(path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def assert_same(first: list[Sample], second: list[Sample]) -> None:
    assert [sample.name for sample in first] == [sample.name for sample in second]
    for one, other in zip(first, second, strict=True):
        assert one.feed.keys() == other.feed.keys()
        assert all(np.array_equal(one.feed[name], other.feed[name]) for name in one.feed)
        assert (one.label is None) == (other.label is None)
        assert one.label is None or np.array_equal(one.label, other.label)


class TestCutting:
    """Which piece of an array is sample i."""

    def test_an_array_of_the_inputs_rank_gives_batches_of_one(self, tmp_path: Path) -> None:
        """Sample i is a[i:i+1]."""
        array = noise(6, 3, 4, 5)
        dataset = open_dataset(written(tmp_path, image=array), (IMAGE,))
        samples = list(dataset)
        assert len(dataset) == len(samples) == 6
        assert samples[2].name == "data.npz[2]"
        assert all(np.array_equal(sample.feed["image"], array[i : i + 1]) for i, sample in enumerate(samples))

    def test_an_array_of_one_more_dimension_gives_whole_feeds(self, tmp_path: Path) -> None:
        """Sample i is a[i]."""
        array = noise(6, 2, 3, 4, 5)
        samples = list(open_dataset(written(tmp_path, image=array), (IMAGE,)))
        assert all(np.array_equal(sample.feed["image"], array[i]) for i, sample in enumerate(samples))

    def test_a_scalar_input_takes_one_number_per_sample(self, tmp_path: Path) -> None:
        """An [N] array for a rank-0 input gives zero-dimensional arrays."""
        source = written(tmp_path, x=noise(3, 4), rate=np.array([8000, 16000, 44100]))
        rates = [sample.feed["rate"] for sample in open_dataset(source, (PLAIN, RATE))]
        assert [(rate.shape, rate.dtype.name, int(rate)) for rate in rates] == [
            ((), "int64", 8000),
            ((), "int64", 16000),
            ((), "int64", 44100),
        ]

    def test_a_zero_dimensional_array_is_refused_for_a_scalar_input(self, tmp_path: Path) -> None:
        """One number cannot say how many samples there are."""
        source = written(tmp_path, x=noise(3, 4), rate=np.int64(8000))
        with pytest.raises(DataError, match=r"rank 0[^$]*shape \[N\]"):
            open_dataset(source, (PLAIN, RATE))

    def test_compressed_stored_fortran_and_big_endian_files_read_alike(self, tmp_path: Path) -> None:
        """How the bytes lie makes no difference to the samples."""
        array = noise(6, 4)
        expected = list(open_dataset(written(tmp_path, "data.npz", x=array), (PLAIN,)))
        np.savez_compressed(tmp_path / "data.npz", x=array)
        assert_same(list(open_dataset(str(tmp_path / "data.npz"), (PLAIN,))), expected)
        np.savez_compressed(tmp_path / "data.npz", x=np.asfortranarray(array))
        assert_same(list(open_dataset(str(tmp_path / "data.npz"), (PLAIN,))), expected)
        big = list(open_dataset(written(tmp_path, x=array.astype(">f4")), (PLAIN,)))
        assert_same(big, expected)
        assert big[0].feed["x"].dtype == np.dtype("=f4")

    def test_fortran_order_is_sorted_into_rows_piece_by_piece(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pieces that do not divide a row evenly, three dimensions, more rows than a piece holds."""
        monkeypatch.setattr(stored_arrays, "_GATHER_BYTES", 7 * 6 * 4)
        array = noise(6, 3, 4, 5)
        source = written(tmp_path, image=np.asfortranarray(array))
        samples = list(open_dataset(source, (IMAGE,)))
        assert np.array_equal(np.concatenate([sample.feed["image"] for sample in samples]), array)
        assert samples[0].feed["image"].flags.c_contiguous
        monkeypatch.setattr(stored_arrays, "_GATHER_BYTES", 1)
        assert_same(list(open_dataset(source, (IMAGE,))), samples)

    def test_a_second_walk_gives_identical_samples(self, tmp_path: Path) -> None:
        """Also when the first was left half-way and the two overlap."""
        dataset = open_dataset(written(tmp_path, x=noise(5, 4), labels=np.arange(5)), (PLAIN,))
        abandoned = iter(dataset)
        next(abandoned)
        assert_same(list(dataset), list(dataset))
        assert next(abandoned).name == "data.npz[1]"

    def test_samples_do_not_share_memory(self, tmp_path: Path) -> None:
        """A kept sample is not overwritten by the next one."""
        first, second, *_ = open_dataset(written(tmp_path, x=noise(5, 4)), (PLAIN,))
        assert not np.shares_memory(first.feed["x"], second.feed["x"])
        assert first.feed["x"].flags.writeable

    def test_npy_serves_a_model_with_one_input(self, tmp_path: Path) -> None:
        """In C order and in Fortran order."""
        array = noise(6, 4)
        for order in ("C", "F"):
            np.save(tmp_path / "x.npy", np.asarray(array, order=order))
            samples = list(open_dataset(str(tmp_path / "x.npy"), (PLAIN,)))
            assert np.array_equal(np.concatenate([sample.feed["x"] for sample in samples]), array)

    def test_npy_is_refused_for_a_model_with_two_inputs(self, tmp_path: Path) -> None:
        """It holds one array."""
        np.save(tmp_path / "x.npy", noise(6, 4))
        with pytest.raises(DataError, match="has 2 inputs"):
            open_dataset(str(tmp_path / "x.npy"), (PLAIN, RATE))

    def test_an_input_of_unknown_rank_gets_batches_of_one(self, tmp_path: Path) -> None:
        """The documented choice where the model leaves the rank open."""
        spec = TensorSpec("x", "float32", None)
        assert next(iter(open_dataset(written(tmp_path, x=noise(6, 4)), (spec,)))).feed["x"].shape == (1, 4)


class TestLabels:
    """How labels come along."""

    def test_labels_follow_batches_of_one(self, tmp_path: Path) -> None:
        """Shape [1] beside a[i:i+1]."""
        dataset = open_dataset(written(tmp_path, x=noise(3, 4), labels=np.array([2, 0, 1])), (PLAIN,))
        assert dataset.has_labels
        assert [sample.label.tolist() for sample in dataset if sample.label is not None] == [[2], [0], [1]]

    def test_labels_follow_whole_feeds(self, tmp_path: Path) -> None:
        """[N, batch] gives shape [batch] and [N] a scalar beside a[i]."""
        source = written(tmp_path, x=noise(3, 2, 4), labels=np.arange(6).reshape(3, 2))
        assert [sample.label.tolist() for sample in open_dataset(source, (PLAIN,)) if sample.label is not None] == [
            [0, 1],
            [2, 3],
            [4, 5],
        ]
        source = written(tmp_path, x=noise(3, 2, 4), labels=np.arange(3))
        assert [sample.label.shape for sample in open_dataset(source, (PLAIN,)) if sample.label is not None] == [()] * 3

    def test_an_input_called_labels_is_an_input(self, tmp_path: Path) -> None:
        """Then there are no labels."""
        spec = TensorSpec("labels", "int64", ("N",))
        dataset = open_dataset(written(tmp_path, labels=np.arange(3)), (spec,))
        assert not dataset.has_labels
        assert [sample.feed["labels"].tolist() for sample in dataset] == [[0], [1], [2]]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.arange(4), "'x' has 3, 'labels' has 4"),
            (np.eye(3, dtype=np.int64), "argmax"),
            (np.zeros((3, 1), np.int64), r"labels\[:, 0\]"),
            (np.zeros(3, np.float32), "class numbers, so integers, not float32"),
        ],
    )
    def test_labels_that_are_not_one_class_number_per_row_are_refused_at_once(
        self, tmp_path: Path, labels: np.ndarray, message: str
    ) -> None:
        """Wrong count, one-hot, a column, floats."""
        with pytest.raises(DataError, match=message):
            open_dataset(written(tmp_path, x=noise(3, 4), labels=labels), (PLAIN,))

    def test_a_negative_label_is_refused_when_read(self, tmp_path: Path) -> None:
        """And named with its sample."""
        dataset = open_dataset(written(tmp_path, x=noise(3, 4), labels=np.array([0, -1, 2])), (PLAIN,))
        with pytest.raises(DataError, match=r"data.npz\[1\]: the label -1"):
            list(dataset)


KEYPOINT = np.dtype([("x", "f4"), ("name", "U3")])

ANYTHING = {
    "boxes": noise(3, 2, 4),
    "masks": noise(3, 5, 5) > 0,
    "a column": np.zeros((3, 1), np.int64),
    "negative": np.array([-1, 0, -2]),
    "nan": np.array([[0.5, np.nan], [1, 2], [np.nan, np.nan]]),
    "texts": np.array(["cat", "a dog", ""]),
    "bytes": np.array([b"a", b"bc", b""]),
    "days": np.array(["2024-01-01", "2024-02-29", "NaT"], "datetime64[D]"),
    "big-endian": np.arange(6, dtype=">f8").reshape(3, 2),
    "fortran": np.asfortranarray(noise(3, 4, 2)),
    "no boxes": np.zeros((3, 0, 4), np.float32),
    "records": np.array([(1, "eye"), (2, "ear"), (3, "")], KEYPOINT),
}


class TestAnyLabels:
    """Labels that only code of the user's own reads."""

    @pytest.mark.parametrize("labels", ANYTHING.values(), ids=ANYTHING.keys())
    def test_they_pass_unchanged_and_are_cut_like_the_inputs(self, tmp_path: Path, labels: np.ndarray) -> None:
        """labels[i:i+1] beside batches of one, labels[i] beside whole feeds."""
        for array, cut in ((noise(3, 4), True), (noise(3, 1, 4), False)):
            source = written(tmp_path, x=array, labels=labels)
            dataset = open_dataset(source, (PLAIN,), any_labels=True)
            assert dataset.has_labels
            found = [sample.label for sample in dataset]
            for index, label in enumerate(found):
                assert isinstance(label, np.ndarray)
                assert (label.dtype, label.shape) == (labels.dtype, (1,) * cut + labels.shape[1:])
                assert label.tobytes() == labels[index : index + 1].tobytes()

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (noise(4, 2), "'x' has 3, 'labels' has 4"),
            (np.float32(1), "a single label, where every sample needs its own"),
            (np.array([[1.0], [1.0, 2.0], []], dtype=object), "pickles are refused(.|\n)*an .npz per sample"),
        ],
    )
    def test_another_number_of_labels_and_objects_are_refused_at_once(
        self, tmp_path: Path, labels: np.ndarray, message: str
    ) -> None:
        """One entry per sample, and no pickles, whatever the labels are."""
        with pytest.raises(DataError, match=message):
            open_dataset(written(tmp_path, x=noise(3, 4), labels=labels), (PLAIN,), any_labels=True)

    def test_inputs_hold_numbers_all_the_same(self, tmp_path: Path) -> None:
        """Texts are no input's data."""
        with pytest.raises(DataError, match=r"data\.npz: x: an array of <U1 holds no numbers"):
            open_dataset(written(tmp_path, x=np.array(["a"]), labels=np.array(["a"])), (PLAIN,), any_labels=True)

    def test_texts_are_refused_where_class_numbers_are_wanted(self, tmp_path: Path) -> None:
        """At opening."""
        with pytest.raises(DataError, match="labels: an array of <U3 holds no numbers"):
            open_dataset(written(tmp_path, x=noise(1, 4), labels=np.array(["cat"])), (PLAIN,))


class TestRefusedAtOpening:
    """What the headers alone give away."""

    def test_a_wrong_name_names_the_wanted_and_the_closest(self, tmp_path: Path) -> None:
        """The message helps to rename."""
        with pytest.raises(DataError) as caught:
            open_dataset(written(tmp_path, imgae=noise(3, 3, 4, 5)), (IMAGE,))
        assert "no data for the input 'image'" in str(caught.value)
        assert "image: float32 [Nx3x4x5]" in str(caught.value)
        assert "'imgae': did you mean 'image'?" in str(caught.value)

    def test_an_array_too_many_is_refused(self, tmp_path: Path) -> None:
        """What is not an input is a mistake until the user removes it."""
        with pytest.raises(DataError, match="'target' is not an input"):
            open_dataset(written(tmp_path, x=noise(3, 4), target=noise(3)), (PLAIN,))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (noise(4), r"rank 1 .*x: float32 \[Nx4\]"),
            (noise(3, 2, 2, 4), "rank 4"),
            (noise(3, 5), "dimension 1 is 5, not 4"),
            (noise(3, 2, 5), "dimension 1 is 5, not 4"),
            (noise(0, 4), "no samples"),
            (np.zeros((3, 4), np.uint8), "uint8 data for the input 'x', which is float32(.|\n)*array / 255"),
            (np.zeros((3, 4), np.int32), "int32 data for the input 'x', which is float32"),
            (np.zeros((3, 4), bool), "bool data"),
            (np.array(["a", "b"]), "holds no numbers"),
            (np.array([{"a": 1}, None], dtype=object), "pickles are refused"),
        ],
    )
    def test_arrays_that_cannot_fit_are_refused_before_any_walk(
        self, tmp_path: Path, array: np.ndarray, message: str
    ) -> None:
        """Wrong rank, size, element type, pickles: from the header alone."""
        with pytest.raises(DataError, match=message):
            open_dataset(written(tmp_path, x=array), (PLAIN,))

    def test_disagreeing_arrays_are_each_named_with_their_count(self, tmp_path: Path) -> None:
        """Also a constant given once instead of once per sample."""
        source = written(tmp_path, x=noise(3, 4), rate=np.array([8000]))
        with pytest.raises(DataError, match="'x' has 3, 'rate' has 1"):
            open_dataset(source, (PLAIN, RATE))

    def test_a_fixed_batch_is_explained(self, tmp_path: Path) -> None:
        """A model with batches of four needs one dimension more."""
        spec = TensorSpec("x", "float32", (4, 7))
        with pytest.raises(DataError, match=r"dimension 0 is 1, not 4(.|\n)*reshape\(-1, 4"):
            open_dataset(written(tmp_path, x=noise(8, 7)), (spec,))
        assert len(open_dataset(written(tmp_path, x=noise(2, 4, 7)), (spec,))) == 2

    def test_an_element_type_that_numpy_lacks_is_refused(self, tmp_path: Path) -> None:
        """bfloat16 has no NumPy type."""
        with pytest.raises(DataError, match="takes bfloat16 elements"):
            open_dataset(written(tmp_path, x=noise(3, 4)), (TensorSpec("x", "bfloat16", ("N", 4)),))


class TestDamagedFiles:
    """Files that are not what their name says."""

    def test_a_file_that_is_no_zip_is_refused(self, tmp_path: Path) -> None:
        """Text named .npz."""
        (tmp_path / "a.npz").write_text("not a zip")
        with pytest.raises(DataError, match=r"not an \.npz file"):
            open_dataset(str(tmp_path / "a.npz"), (PLAIN,))

    @pytest.mark.parametrize("name", ["a.npz", "a.npy"])
    @pytest.mark.parametrize("size", [0, 3, 60, 200, 700])
    def test_a_file_cut_off_anywhere_is_refused_at_opening(self, tmp_path: Path, name: str, size: int) -> None:
        """An empty file, a cut header, cut data."""
        save = np.savez if name == "a.npz" else np.save
        save(tmp_path / name, noise(60, 4))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size])
        with pytest.raises(DataError, match=f"{name}: "):
            open_dataset(str(tmp_path / name), (TensorSpec("arr_0", "float32", ("N", 4)),))

    def test_flipped_bits_are_refused_or_harmless(self, tmp_path: Path) -> None:
        """A damaged file gives a DataError or the true samples, never another exception or wrong numbers."""
        array = noise(20, 4)
        np.savez_compressed(tmp_path / "data.npz", x=array)
        good = (tmp_path / "data.npz").read_bytes()
        refused = 0
        for position in range(0, len(good), 3):
            (tmp_path / "data.npz").write_bytes(good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :])
            try:
                samples = list(open_dataset(str(tmp_path / "data.npz"), (PLAIN,)))
            except DataError:
                refused += 1
            else:
                assert np.array_equal(np.concatenate([sample.feed["x"] for sample in samples]), array)
        assert refused > len(good) / 3 / 2

    def test_members_that_are_no_arrays_are_refused(self, tmp_path: Path) -> None:
        """A text file in the zip, and two members of one name."""
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("notes.txt", "hello")
        with pytest.raises(DataError, match=r"'notes\.txt', which is not an array"):
            open_dataset(str(tmp_path / "a.npz"), (PLAIN,))
        stream = io.BytesIO()
        np.save(stream, noise(3, 4))
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            archive.writestr("x.npy", stream.getvalue())
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("x.npy", stream.getvalue())
        with pytest.raises(DataError, match="two arrays named 'x'"):
            open_dataset(str(tmp_path / "b.npz"), (PLAIN,))

    def test_a_compression_numpy_does_not_write_is_refused(self, tmp_path: Path) -> None:
        """bzip2, for example."""
        stream = io.BytesIO()
        np.save(stream, noise(3, 4))
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("x.npy", stream.getvalue())
        with pytest.raises(DataError, match="compressed in a way"):
            open_dataset(str(tmp_path / "a.npz"), (PLAIN,))


class TestValues:
    """What is checked as samples are read."""

    @pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
    def test_a_value_that_is_not_finite_is_named_with_sample_and_input(
        self, tmp_path: Path, bad: float, word: str
    ) -> None:
        """Found when the sample is read; the ones before it are good."""
        array = noise(5, 4)
        array[3, 1] = bad
        walk = iter(open_dataset(written(tmp_path, x=array), (PLAIN,)))
        assert [next(walk).name for _ in range(3)] == ["data.npz[0]", "data.npz[1]", "data.npz[2]"]
        with pytest.raises(DataError, match=rf"data\.npz\[3\]: the input 'x' holds {word} \(1 of 4"):
            next(walk)

    def test_floats_are_cast_to_the_inputs_width(self, tmp_path: Path) -> None:
        """float64 data for a float32 input."""
        array = noise(3, 4).astype(np.float64)
        sample = next(iter(open_dataset(written(tmp_path, x=array), (PLAIN,))))
        assert sample.feed["x"].dtype == np.float32
        assert np.array_equal(sample.feed["x"], array[:1].astype(np.float32))

    @pytest.mark.parametrize(("dtype", "value"), [("float32", 1e39), ("float16", 65536.0)])
    def test_a_float_beyond_the_inputs_type_is_refused(self, tmp_path: Path, dtype: str, value: float) -> None:
        """It would silently become infinity."""
        dataset = open_dataset(written(tmp_path, x=np.full((1, 4), value)), (TensorSpec("x", dtype, ("N", 4)),))
        with pytest.raises(DataError, match=f"too large for {dtype}"):
            list(dataset)

    @pytest.mark.parametrize(("value", "fits"), [(127, True), (128, False), (-128, True), (-129, False)])
    def test_integers_are_cast_where_they_fit(self, tmp_path: Path, value: int, fits: bool) -> None:
        """int64 data for an int8 input."""
        dataset = open_dataset(written(tmp_path, x=np.full((1, 4), value)), (TensorSpec("x", "int8", ("N", 4)),))
        if fits:
            assert next(iter(dataset)).feed["x"].tolist() == [[value] * 4]
        else:
            with pytest.raises(DataError, match="does not fit int8"):
                list(dataset)


class TestProvenance:
    """What a result says of its data."""

    def test_the_hash_is_that_of_the_file(self, tmp_path: Path) -> None:
        """So sha256sum gives the same."""
        source = written(tmp_path, x=noise(3, 4))
        provenance = open_dataset(source, (PLAIN,)).provenance()
        assert provenance.sha256 == hashlib.sha256(Path(source).read_bytes()).hexdigest()
        assert (provenance.source, provenance.samples, provenance.random) == (source, 3, False)


class TestMemory:
    """How much of a file is held at a time."""

    @pytest.mark.parametrize("kind", ["compressed", "stored", "fortran", "npy"])
    def test_peak_memory_does_not_depend_on_the_number_of_samples(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """512 samples take at most 1.1 times what 32 take, and a few samples' worth."""
        monkeypatch.setattr(stored_arrays, "_GATHER_BYTES", 1 << 15)
        spec = TensorSpec("x", "float32", ("N", 64, 64))

        def peak(samples: int) -> int:
            array = noise(samples, 64, 64)
            path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
            if kind == "npy":
                np.save(path, array)
            else:
                order = "F" if kind == "fortran" else "C"
                (np.savez if kind == "stored" else np.savez_compressed)(path, x=np.asarray(array, order=order))
            del array
            tracemalloc.start()
            try:
                assert sum(1 for _ in open_dataset(str(path), (spec,))) == samples
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(2)
        small, large = peak(32), peak(512)
        assert large <= 1.1 * small
        assert large < 16 * 64 * 64 * 4
