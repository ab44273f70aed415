"""The parent's and the child's side of TensorRT's own calibration: batches, cache files, counts."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trt_opt.backends.worker
from trt_opt.backends.tensorrt_versions import TENSORRT_RTX, rows, support_of
from trt_opt.calibrate.cache import cache_from_table
from trt_opt.errors import DataError, RequestError, StageError, StaleError, StorageError, TargetError
from trt_opt.implicit.batches import store_batches
from trt_opt.implicit.caches import cache_in, checked_cache, expected_record, reader_of, record_cache, sidecar_of
from trt_opt.implicit.native import (
    MODULE,
    NATIVE,
    algorithm_of,
    is_native,
    native_calibration,
    native_request,
    portable_calibration,
    require_calibrators,
)
from trt_opt.values.calibration import CalibrationTable, TensorRange
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.native_calibration import CacheRecord, NativeCalibration, StoredBatches
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.tensors import TensorSpec

CALIBRATING = Path(next(iter(trt_opt.backends.worker.__path__))) / "calibrating.py"

OPEN = TensorSpec("x", "float32", ("batch", 3))
FIXED = TensorSpec("x", "float32", (1, 3))


def samples_of(count: int, rows: int = 1) -> tuple[Sample, ...]:
    """So many samples [rows, 3]; each holds its own number."""
    return tuple(Sample(f"data[{number}]", {"x": np.full((rows, 3), number, np.float32)}) for number in range(count))


def batches_in(folder: Path) -> list[np.ndarray]:
    """The first input's batches, in order."""
    return [np.load(file)["input-0"] for file in sorted(folder.glob("*.npz"))]


def numbers_in(folder: Path) -> list[list[int]]:
    """The samples' numbers, batch by batch."""
    return [[int(row[0]) for row in batch] for batch in batches_in(folder)]


def test_native_calibrators_are_told_by_their_text() -> None:
    """Both names are, and nothing that our own calibrators are called."""
    assert [algorithm_of(name) for name in NATIVE if is_native(name)] == ["entropy", "minmax"]
    assert not any(map(is_native, ("entropy", "minmax", "native", "native-kl", "entropy(bins=2048)")))


def test_only_versions_with_calibrators_are_taken() -> None:
    """Up to TensorRT 10; 11 and TensorRT-RTX are refused by name, with the way that suits them."""
    require_calibrators(support_of("8.5"), "tensorrt 8.5")
    require_calibrators(support_of("10.16"), "tensorrt 10.16")
    for support, library in ((support_of("11.0"), "tensorrt 11.0"), (rows(TENSORRT_RTX)[0], "tensorrt_rtx 1.7")):
        with pytest.raises(TargetError, match=f"{library} has no INT8 calibrators"):
            require_calibrators(support, library)


def test_samples_are_joined_where_the_batch_is_open(tmp_path: Path) -> None:
    """Six samples make two batches of three."""
    stored = store_batches(samples_of(6), [OPEN], tmp_path, batch_size=3)
    assert numbers_in(tmp_path) == [[0, 1, 2], [3, 4, 5]]
    assert stored == StoredBatches(("x",), 2, 6, 0, 3, ((3, 3),))


def test_a_short_batch_is_filled_from_the_front(tmp_path: Path) -> None:
    """Seven samples in threes: the third batch holds the first two once more, and both counts say so."""
    stored = store_batches(samples_of(7), [OPEN], tmp_path, batch_size=3)
    assert numbers_in(tmp_path) == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert (stored.batches, stored.samples, stored.repeated) == (3, 7, 2)


def test_fewer_samples_than_a_batch_make_one(tmp_path: Path) -> None:
    """Nothing is repeated only to reach the size that was asked for."""
    stored = store_batches(samples_of(2), [OPEN], tmp_path, batch_size=8)
    assert numbers_in(tmp_path) == [[0, 1]]
    assert (stored.batch_size, stored.repeated) == (2, 0)


def test_samples_that_are_batches_count_with_their_rows(tmp_path: Path) -> None:
    """Samples of two rows are joined in twos to make batches of four rows; of five rows, not at all."""
    stored = store_batches(samples_of(4, rows=2), [OPEN], tmp_path, batch_size=5)
    assert (stored.batch_size, stored.shapes) == (2, ((4, 3),))
    (tmp_path / "b").mkdir()
    assert store_batches(samples_of(2, rows=5), [OPEN], tmp_path / "b", batch_size=4).shapes == ((5, 3),)


@pytest.mark.parametrize("inputs", [[FIXED], [OPEN, TensorSpec("y", "float32", (1,))]])
def test_samples_stay_apart_where_the_batch_is_fixed(tmp_path: Path, inputs: list[TensorSpec]) -> None:
    """A network of a fixed size takes its own; one fixed input holds the others to it."""
    feeds = [{spec.name: np.zeros((1, 3)[: len(spec.shape or ())], np.float32) for spec in inputs}] * 3
    samples = [Sample(str(number), feed) for number, feed in enumerate(feeds)]
    stored = store_batches(samples, inputs, tmp_path, batch_size=8)
    assert (stored.batches, stored.batch_size) == (3, 1)


def test_samples_of_two_shapes_are_refused(tmp_path: Path) -> None:
    """The sample is named, with both shapes and what takes them."""
    samples = (*samples_of(2), *samples_of(1, rows=2))
    with pytest.raises(DataError, match=r"\[2, 3\] here and \[1, 3\] in data\[0\]") as caught:
        store_batches(samples, [OPEN], tmp_path)
    assert "--calibrator entropy" in str(caught.value)


def test_no_samples_are_refused(tmp_path: Path) -> None:
    """Nothing to calibrate with is an error before the builder starts."""
    with pytest.raises(DataError, match="no samples"):
        store_batches((), [OPEN], tmp_path)


def test_data_that_miscount_themselves_are_refused(tmp_path: Path) -> None:
    """A source that gives fewer samples than it says leaves no short batch."""

    class Short:
        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[Sample]:
            return iter(samples_of(3))

    with pytest.raises(DataError, match="gave 3 samples, and said they were 4"):
        store_batches(Short(), [OPEN], tmp_path)


def test_one_batch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """A batch is on the disk before the next one's first sample is read."""
    written = []

    class Watched:
        def __len__(self) -> int:
            return 6

        def __iter__(self) -> Iterator[Sample]:
            for sample in samples_of(6):
                written.append(len(list(tmp_path.glob("*.npz"))))
                yield sample

    store_batches(Watched(), [OPEN], tmp_path, batch_size=2)
    assert written[-6:] == [0, 0, 1, 1, 2, 2]


def test_any_name_and_type_of_input_is_stored(tmp_path: Path) -> None:
    """Names that are no file names are, floats become float32, and integers stay as they are."""
    feed = {"a/b:0": np.zeros((1, 2), np.float16), "file": np.ones((1,), np.int64), "../x": np.ones((1,), bool)}
    specs = [TensorSpec(name, str(array.dtype), array.shape) for name, array in feed.items()]
    stored = store_batches([Sample("s", feed)], specs, tmp_path)
    found = np.load(tmp_path / "000000.npz")
    assert stored.inputs == tuple(feed)
    assert [str(found[f"input-{number}"].dtype) for number in range(3)] == ["float32", "int64", "bool"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With the path, as storage that failed."""
    with pytest.raises(StorageError, match="no such file or folder"):
        store_batches(samples_of(1), [OPEN], tmp_path / "missing")


DATA = DataProvenance("photos", "d" * 64, 500, preprocess="resize 256")
KEY = expected_record("a" * 64, DATA, "native-entropy", "8.6.1.6", 8)
ENTROPY = "TRT-8601-EntropyCalibration2\nx: 3c010a14\n"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as TensorRT 8.6.1 writes it, recorded."""
    file = tmp_path / "model.cache"
    file.write_text(ENTROPY)
    record_cache(file, KEY)
    return file


def test_a_recorded_cache_is_taken(cache: Path) -> None:
    """What was recorded comes back, with the file's hash; the fourth number of a version does not matter."""
    assert sidecar_of(cache).name == "model.cache.json"
    found = checked_cache(cache, replace(KEY, tensorrt="8.6.1"))
    assert found == replace(KEY, bytes=len(ENTROPY), sha256=found.sha256)
    assert len(found.sha256) == 64
    assert value_from_json(CacheRecord, sidecar_of(cache).read_text(), where="sidecar") == found


OTHERS = {
    "the model": {"model_sha256": "b" * 64},
    "the data": {"data": replace(DATA, sha256="e" * 64)},
    "the preprocessing": {"data": replace(DATA, preprocess=None)},
    "the algorithm": {"algorithm": "native-minmax"},
    "the batch size": {"batch_size": 4},
    "TensorRT": {"tensorrt": "8.6.2"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_cache_of_something_else_is_refused(cache: Path, what: str) -> None:
    """One difference is enough, and it alone is named, with both sides."""
    with pytest.raises(StaleError, match=f"{what}: made with .*, asked for is ") as caught:
        checked_cache(cache, replace(KEY, **OTHERS[what]))
    assert not [other for other in OTHERS if other != what and f"{other}: made" in str(caught.value)]


def test_every_difference_is_named(cache: Path) -> None:
    """Not the first alone."""
    cache.write_text(ENTROPY + "y: 3c010a14\n")
    other = replace(KEY, **{name: value for fields in OTHERS.values() for name, value in fields.items()})
    with pytest.raises(StaleError) as caught:
        checked_cache(cache, replace(other, data=replace(DATA, sha256="e" * 64, preprocess=None)))
    assert all(f"{what}: made with" in str(caught.value) for what in OTHERS)
    assert "changed since" in str(caught.value)


def test_a_changed_cache_is_refused(cache: Path) -> None:
    """A scale edited by hand is not what was recorded."""
    cache.write_text(ENTROPY.replace("3c010a14", "3c010a15"))
    with pytest.raises(StaleError, match="not the file that was recorded"):
        checked_cache(cache, KEY)


def test_a_cache_rewritten_from_a_min_max_cache_is_recorded(tmp_path: Path) -> None:
    """Its first line keeps the algorithm of the cache that its ranges came from."""
    calibrator = "cache(MinMaxCalibration, TensorRT 10.3.0)"
    data = DataProvenance("old.cache", "5" * 64, 0, cache="old.cache")
    table = CalibrationTable("6" * 64, data, calibrator, {"x": TensorRange(-1.0, 1.0, 1.0, 0)}, {})
    file = tmp_path / "new.cache"
    file.write_text(cache_from_table(table, "8.6.1"), encoding="utf-8")
    assert record_cache(file, expected_record("6" * 64, data, calibrator, "8.6.1")).algorithm == calibrator


def test_a_cache_without_a_record_is_refused(cache: Path) -> None:
    """Nothing says what it belongs to."""
    sidecar_of(cache).unlink()
    with pytest.raises(StaleError, match=r"model\.cache\.json is missing"):
        checked_cache(cache, KEY)


@pytest.mark.parametrize("content", ["", "{}", "[1]", json_from_value(DATA), "\udcff"])
def test_an_unreadable_record_is_refused(cache: Path, content: str) -> None:
    """What is no record is as good as none."""
    sidecar_of(cache).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StaleError, match="cannot be read"):
        checked_cache(cache, KEY)


@pytest.mark.parametrize(
    ("first_line", "message"),
    [("TRT-100300-EntropyCalibration2", "for TensorRT 10.3.0"), ("TRT-8601-MinMaxCalibration", "says MinMax")],
)
def test_a_cache_that_contradicts_its_record_is_never_recorded(tmp_path: Path, first_line: str, message: str) -> None:
    """TensorRT would ignore it; nothing is written beside it."""
    file = tmp_path / "x.cache"
    file.write_text(f"{first_line}\n")
    with pytest.raises(StaleError, match=message):
        record_cache(file, KEY)
    assert not sidecar_of(file).exists()


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    """Another file, none at all, and an algorithm that has no calibrator."""
    (tmp_path / "x.cache").write_text("hello")
    with pytest.raises(RequestError, match="line 1"):
        cache_in(tmp_path / "x.cache")
    with pytest.raises(StorageError, match="cannot be read"):
        cache_in(tmp_path / "missing.cache")
    (tmp_path / "x.cache").write_text("TRT-8601-LegacyCalibration\n")
    with pytest.raises(RequestError, match="LegacyCalibration cannot be given"):
        reader_of(cache_in(tmp_path / "x.cache"))


STORED = StoredBatches(("x",), 3, 7, 2, 3, ((3, 3),))


def test_counts_become_provenance() -> None:
    """All batches: seven samples, two of them twice, which is told; JSON keeps it."""
    found = native_calibration("native-entropy", STORED, {"batches": 3, "from_cache": False})
    assert (found.samples, found.repeated, found.batch_size) == (7, 2, 3)
    assert "2 of 7 samples were calibrated with twice" in found.warnings[0]
    assert value_from_json(NativeCalibration, json_from_value(found), where="manifest") == found


def test_batches_that_were_left_out_are_told() -> None:
    """Two of three batches are six samples, none twice."""
    found = native_calibration("native-minmax", STORED, {"batches": 2, "from_cache": False})
    assert (found.batches, found.samples, found.repeated) == (2, 6, 0)
    assert found.warnings == ("TensorRT asked for 2 of 3 calibration batches and left out the rest",)


def test_a_cache_leaves_no_counts() -> None:
    """Nothing was calibrated with, and nothing was left out."""
    found = native_calibration("native-entropy", STORED, {"batches": 0, "from_cache": True}, KEY)
    assert (found.batches, found.samples, found.from_cache, found.record) == (0, 0, True, KEY)
    assert found.warnings == ()


@pytest.mark.parametrize("batches", [0, 4])
def test_impossible_counts_are_refused(batches: int) -> None:
    """More batches than there were, or none at all, is no calibration."""
    with pytest.raises(StageError, match=f"with {batches} of 3 batches"):
        native_calibration("native-entropy", STORED, {"batches": batches, "from_cache": False})


@pytest.fixture(scope="module")
def calibrating() -> Any:
    """The child's module."""
    spec = importlib.util.spec_from_file_location("calibrating", CALIBRATING)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Vendor:
    """A vendor's base class."""

    def __init__(self) -> None:
        self.is_constructed = True


TRT = types.SimpleNamespace(
    __name__="tensorrt",
    __version__="8.6.1",
    IInt8EntropyCalibrator2=Vendor,
    IInt8MinMaxCalibrator=Vendor,
    ILogger=types.SimpleNamespace(INFO="INFO"),
)
LOG = types.SimpleNamespace(log=lambda *_: None)


class FreeMemory:
    """A device on which everything succeeds."""

    def allocate(self, size: int) -> int:
        return 4096

    def address(self, memory: int) -> int:
        return memory

    def copy(self, memory: int, array: np.ndarray) -> None:
        """Nowhere."""

    def free(self, memory: int) -> None:
        """Nothing."""


@pytest.fixture
def request_(tmp_path: Path) -> dict[str, Any]:
    """Three batches of one sample, and where the cache is to go."""
    folder = tmp_path / "batches"
    folder.mkdir()
    stored = store_batches(samples_of(3), [FIXED], folder)
    return native_request("native-entropy", folder, stored, write_cache=tmp_path / "new.cache")


def made(calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The child's calibrator over a device that is not there."""
    module = calibrating.module_at(request_["module"])
    monkeypatch.setattr(module, "device_memory", FreeMemory)
    monkeypatch.setattr(calibrating, "module_at", lambda _: module)
    return calibrating.calibrator_of(TRT, request_, LOG)


def used(calibrator: Any, batches: int | None = None) -> None:
    """Calibrates as TensorRT does: cache, batches (all, or so many), cache."""
    calibrator.read_calibration_cache()
    taken = 0
    while taken != batches and calibrator.get_batch(["x"]):
        taken += 1
    calibrator.write_calibration_cache(memoryview(ENTROPY.encode()))


def test_the_child_counts_and_writes_the_cache(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches are taken, and TensorRT's bytes are in the file."""
    calibrator = made(calibrating, request_, monkeypatch)
    used(calibrator)
    counts = calibrating.settle(calibrator, request_)
    assert counts == {"batches": 3, "offered": 3, "from_cache": False, "wrote_cache": True}
    assert Path(request_["write_cache"]).read_text() == ENTROPY
    assert calibrator.get_batch_size() == 1


def test_the_child_tells_fewer_batches(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three."""
    calibrator = made(calibrating, request_, monkeypatch)
    used(calibrator, batches=2)
    counts = calibrating.settle(calibrator, request_)
    assert (counts["batches"], counts["offered"]) == (2, 3)


def test_no_batch_at_all_is_an_error(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A builder that never asked has calibrated nothing, and no cache is written."""
    calibrator = made(calibrating, request_, monkeypatch)
    with pytest.raises(calibrating.CalibrationError, match="asked for no batch"):
        calibrating.settle(calibrator, request_)
    assert not Path(request_["write_cache"]).exists()


DAMAGE = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:60]),
    "no archive": lambda file: file.write_bytes(b"hello"),
    "a bit flipped": lambda file: file.write_bytes(file.read_bytes().replace(b"\0\0\x80?", b"\0\0\x80@")),
    "another array": lambda file: np.savez(file, other=np.zeros(1)),
    "another shape": lambda file: np.savez(file, **{"input-0": np.zeros((1, 4), np.float32)}),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_batch_fails_the_build(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """TensorRT ends after the batches before it and gives a cache; the build fails, and the cache is not written."""
    calibrator = made(calibrating, request_, monkeypatch)
    DAMAGE[damage](Path(request_["batches"]) / "000001.npz")
    used(calibrator)
    with pytest.raises(Exception, match=r"000001|batch 2") as caught:
        calibrating.settle(calibrator, request_)
    assert type(caught.value).__name__ == "NativeCalibrationError"
    assert not Path(request_["write_cache"]).exists()


def test_a_folder_with_fewer_batches_is_refused(calibrating: Any, request_: dict[str, Any]) -> None:
    """What was promised is there before TensorRT starts, or nothing starts."""
    (Path(request_["batches"]) / "000002.npz").unlink()
    with pytest.raises(calibrating.CalibrationError, match="holds 2 batches, and 3 were promised"):
        calibrating.calibrator_of(TRT, request_, LOG)


def test_a_failed_build_tells_what_the_calibrator_hid(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause comes before what the builder made of it; without one, the builder's words stand."""
    failed = {**request_, "raised": True}
    assert calibrating.settle(made(calibrating, request_, monkeypatch), failed) == {}
    calibrator = made(calibrating, request_, monkeypatch)
    calibrator.get_batch(["unknown"])
    with pytest.raises(Exception, match="nothing for 'unknown'"):
        calibrating.settle(calibrator, failed)


def test_our_own_cache_is_read_and_nothing_else(
    calibrating: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Portable calibration: TensorRT gets the cache's bytes, from the class that its algorithm wants."""
    (tmp_path / "x.cache").write_text("TRT-8601-MinMaxCalibration\nx: 3c010a14\n")
    asked = portable_calibration(tmp_path / "x.cache")
    assert (asked["algorithm"], asked["module"]) == ("minmax", str(MODULE))
    calibrator = made(calibrating, asked, monkeypatch)
    assert calibrator.read_calibration_cache() == (tmp_path / "x.cache").read_bytes()
    counts = calibrating.settle(calibrator, asked)
    assert counts == {"batches": 0, "offered": 0, "from_cache": True, "wrote_cache": False}


def test_a_refused_cache_fails_the_build(calibrating: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for data all the same, there are none, and that is fatal."""
    (tmp_path / "x.cache").write_text(ENTROPY)
    asked = portable_calibration(tmp_path / "x.cache")
    calibrator = made(calibrating, asked, monkeypatch)
    used(calibrator)
    with pytest.raises(Exception, match="did not take the calibration cache"):
        calibrating.settle(calibrator, asked)


class Profile:
    """An optimization profile."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = list(shapes)


def attached(calibrating: Any, calibrator: Any, request_: dict[str, Any], **tensor: Any) -> Profile | None:
    """The calibration profile of a network with one input."""
    values = {"name": "x", "dtype": "DataType.FLOAT", "shape": (-1, 3), "is_shape_tensor": False, **tensor}
    network = types.SimpleNamespace(num_inputs=1, get_input=lambda _: types.SimpleNamespace(**values))
    profiles = []
    config = types.SimpleNamespace(set_calibration_profile=lambda profile: profiles.append(profile) or True)
    builder = types.SimpleNamespace(create_optimization_profile=Profile)
    calibrating.attach(TRT, builder, network, config, calibrator, request_)
    return profiles[0] if profiles else None


def test_the_calibration_profile_is_the_batches_shape(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smallest, best and largest are one, whatever the engine's own profile allows."""
    calibrator = made(calibrating, request_, monkeypatch)
    profile = attached(calibrating, calibrator, request_)
    assert profile is not None
    assert profile.shapes == {"x": [(1, 3)] * 3}


MISFITS = {
    "the batches hold": {"shape": (-1, 4)},
    "there are no data for the input 'y'": {"name": "y"},
    "decides a shape": {"is_shape_tensor": True},
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_network_that_the_batches_do_not_fit_is_told(
    calibrating: Any, request_: dict[str, Any], monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    """And `settle` tells it again, where the builder's loader has made something else of it."""
    calibrator = made(calibrating, request_, monkeypatch)
    with pytest.raises(calibrating.CalibrationError, match=message):
        attached(calibrating, calibrator, request_, **MISFITS[message])
    with pytest.raises(Exception, match=message):
        calibrating.settle(calibrator, {**request_, "raised": True})


def test_the_childs_file_is_python_3_8() -> None:
    """JetPack 5 has no later one."""
    tree = ast.parse(CALIBRATING.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy"}
