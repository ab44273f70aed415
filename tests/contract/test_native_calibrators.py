"""TensorRT's own calibrators, from samples to the cache beside the engine, on every version that has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contract_models import saved, two_convolutions
from stand_in_engines import record_of
from vendor_bindings import Bindings

import calibrators.native
from calibrators import CalibrationCache, text_from_cache
from trt_opt.backends.tensorrt import TensorRTBackend
from trt_opt.errors import StageError
from trt_opt.graph.query import graph_inputs
from trt_opt.implicit.batches import store_batches
from trt_opt.implicit.caches import cache_in, checked_cache, expected_record, record_cache
from trt_opt.implicit.native import NATIVE, native_calibration, native_request, portable_calibration
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.progress import Silent
from trt_opt.values.samples import DataProvenance, Sample
from trt_opt.values.shapes import ShapeRange
from trt_opt.values.target import TensorRTTarget

pytestmark = pytest.mark.contract

OPEN_BATCH = {"x": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))}

IMPLICIT = BuildOptions("tensorrt", strongly_typed=False, int8=True)


@pytest.fixture(scope="module")
def backend(bindings: Bindings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TensorRTBackend]:
    """The adapter with a child on the stand-in, for versions that have calibrators."""
    python = bindings.write_python(tmp_path_factory.mktemp("python") / "python")
    with TensorRTBackend(TensorRTTarget(), python=str(python)) as made:
        if not made.support.int8_calibrators:
            pytest.skip(f"TensorRT {bindings.version} has no INT8 calibrators")
        yield made


def samples_of(count: int) -> list[Sample]:
    """Random images [1, 3, 8, 8]; the fifth is the largest, and first in no batch of three."""
    numbers = np.random.default_rng(0)
    sizes = [10 if number == 4 else 1 for number in range(count)]
    images = [numbers.standard_normal((1, 3, 8, 8)).astype(np.float32) * size for size in sizes]
    return [Sample(f"data[{number}]", {"x": image}) for number, image in enumerate(images)]


def stored_in(folder: Path, model: onnx.ModelProto, count: int, batch_size: int) -> Any:
    """So many samples as batches."""
    folder.mkdir()
    return store_batches(samples_of(count), graph_inputs(model), folder, batch_size=batch_size)


def build(
    backend: TensorRTBackend, folder: Path, model: onnx.ModelProto, calibration: dict[str, Any], profile: Any = None
) -> tuple[Any, dict[str, Any]]:
    """Builds; gives the child's counts and what the builder says of calibration."""
    files = BuildFiles(saved(model, folder / "model.onnx"), folder / "model.engine", calibration=calibration)
    built = backend.build(files, replace(IMPLICIT, profile=profile or {}), Silent(), timeout_s=60)
    return built.calibration, record_of(files.engine)["calibration"]


@pytest.mark.parametrize("calibrator", NATIVE)
def test_batches_of_three_where_the_profile_prefers_one(
    backend: TensorRTBackend, tmp_path: Path, calibrator: str
) -> None:
    """Seven images arrive as three batches of three; the calibration profile is theirs, the engine's stays its own."""
    model = two_convolutions()
    stored = stored_in(tmp_path / "batches", model, 7, 3)
    cache = tmp_path / "new.cache"
    request = native_request(calibrator, tmp_path / "batches", stored, write_cache=cache)
    counts, told = build(backend, tmp_path, model, request, OPEN_BATCH)
    assert told["batches"] == 3
    found = native_calibration(calibrator, stored, counts)
    assert (found.batches, found.samples, found.repeated) == (3, 7, 2)
    largest = max(float(np.abs(sample.feed["x"]).max()) for sample in samples_of(7))
    assert cache_in(cache).scales["x"] == pytest.approx(largest / 127, rel=1e-6)


def test_the_cache_is_recorded_and_taken_by_the_next_build(backend: TensorRTBackend, tmp_path: Path) -> None:
    """The first build calibrates, its cache is recorded; the second checks the record, and TensorRT reads the cache."""
    model = two_convolutions(1)
    stored = stored_in(tmp_path / "batches", model, 2, 1)
    cache = tmp_path / "new.cache"
    build(backend, tmp_path, model, native_request(NATIVE[0], tmp_path / "batches", stored, write_cache=cache))
    version = backend.library.split()[1]
    key = expected_record("a" * 64, DataProvenance("data", "d" * 64, 2), NATIVE[0], version)
    record_cache(cache, key)
    record = checked_cache(cache, key)
    again = native_request(NATIVE[0], tmp_path / "batches", stored, read_cache=cache)
    counts, told = build(backend, tmp_path, model, again)
    assert told["from_cache"]
    assert native_calibration(NATIVE[0], stored, counts, record).from_cache


def test_a_damaged_batch_fails_the_build(backend: TensorRTBackend, tmp_path: Path) -> None:
    """TensorRT sees the end of the batches and builds an engine; it is thrown away, with the file's name."""
    model = two_convolutions(1)
    stored = stored_in(tmp_path / "batches", model, 3, 1)
    (tmp_path / "batches" / "000001.npz").write_bytes(b"damaged")
    request = native_request(NATIVE[0], tmp_path / "batches", stored, write_cache=tmp_path / "new.cache")
    with pytest.raises(StageError, match=r"000001\.npz cannot be read"):
        build(backend, tmp_path, model, request)
    assert not (tmp_path / "model.engine").exists()
    assert not (tmp_path / "new.cache").exists()


def test_our_own_cache_is_taken(backend: TensorRTBackend, tmp_path: Path) -> None:
    """Portable calibration: TensorRT reads the cache and asks for nothing."""
    cache = tmp_path / "own.cache"
    version = ".".join(backend.library.split()[1].split(".")[:3])
    cache.write_text(text_from_cache(CalibrationCache(version, "MinMaxCalibration", {"x": 0.1, "y": 0.2})))
    counts, told = build(backend, tmp_path, two_convolutions(1), portable_calibration(cache))
    assert told["from_cache"]
    assert counts["from_cache"]


def test_a_cache_that_is_not_taken_fails_the_build(backend: TensorRTBackend, tmp_path: Path) -> None:
    """A cache of another algorithm is ignored by TensorRT, and the build does not go on without ranges."""
    cache = tmp_path / "own.cache"
    cache.write_text(text_from_cache(CalibrationCache("8.6.1", "MinMaxCalibration", {"x": 0.1})))
    request = {**portable_calibration(cache), "algorithm": "entropy"}
    with pytest.raises(StageError, match="did not take the calibration cache"):
        build(backend, tmp_path, two_convolutions(1), request)


def test_real_classes_can_be_subclassed_and_called(bindings: Bindings) -> None:
    """The vendor's own base classes take our methods; TensorRT 11's module is refused in words."""
    script = """
import sys
import numpy as np
import tensorrt_bindings as trt
sys.path.insert(0, sys.argv[1])
import native
try:
    made = [native.native_calibrator(trt, name, [{"x": np.ones(3, np.float32)}] * 2) for name in native.ALGORITHMS]
except native.NativeCalibrationError as error:
    print(error)
else:
    for calibrator in made:
        pointers = calibrator.get_batch(["x"])
        calibrator.write_calibration_cache(memoryview(b"TRT"))
        print(type(calibrator).__mro__[1].__name__, len(pointers), calibrator.get_algorithm().name,
              calibrator.read_calibration_cache(), calibrator.outcome().written)
"""
    said = bindings.run(script, str(Path(calibrators.native.__file__).parent))
    if bindings.version.startswith("11"):
        assert "has no IInt8EntropyCalibrator2" in said
    else:
        assert said.splitlines() == [
            "IInt8EntropyCalibrator2 1 ENTROPY_CALIBRATION_2 None b'TRT'",
            "IInt8MinMaxCalibrator 1 MINMAX_CALIBRATION None b'TRT'",
        ]
