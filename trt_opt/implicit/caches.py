"""Calibration caches on disk: what one belongs to lies beside it, and is checked before TensorRT reads it.

TensorRT looks at a cache's first line, the version and the algorithm, and at nothing else; trtexec and Polygraphy look
at nothing at all. A cache of another model gives an engine with wrong ranges, without a word.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calibrators import CalibrationCache, CalibratorError, cache_from_text
from trt_opt.build.manifest import record_of_file
from trt_opt.calibrate.cache import cache_algorithm
from trt_opt.errors import RecipeError, RequestError, StaleError, StorageError
from trt_opt.files import sha256_of_file, write_atomically
from trt_opt.values.codec import json_from_value, value_from_json
from trt_opt.values.native_calibration import CacheRecord
from trt_opt.values.samples import DataProvenance

ALGORITHMS = {"EntropyCalibration2": "entropy", "MinMaxCalibration": "minmax"}
"""The algorithm in a cache's first line → the calibrator class that reads it (`calibrators.native.ALGORITHMS`)."""

MAKE_ANEW = "leave the cache out: it is made anew; or name the model, data and version it was made with"


def sidecar_of(cache: Path) -> Path:
    """The file that says what a cache belongs to: `x.cache.json` for `x.cache`."""
    return cache.with_name(f"{cache.name}.json")


def expected_record(
    model_sha256: str,
    data: DataProvenance,
    algorithm: str,
    tensorrt: str,
    batch_size: int = 1,
    *,
    source_sha256: str = "",
) -> CacheRecord:
    """What a cache must belong to, before there is one.

    Args:
        model_sha256: The float graph's fingerprint.
        data: The samples.
        algorithm: "native-entropy", or one of our calibrators as text.
        tensorrt: The version that is to read it, "8.6.1".
        batch_size: How many samples TensorRT sees at a time.
        source_sha256: The fingerprint of the model as it came.
    """
    return CacheRecord(0, "", model_sha256, data, algorithm, tensorrt, batch_size, source_sha256)


def cache_in(cache: Path) -> CalibrationCache:
    """What a cache file holds; nothing says yet what it belongs to.

    Raises:
        RequestError: The file is no calibration cache.
        StorageError: It cannot be read.
    """
    try:
        return cache_from_text(cache.read_bytes())
    except OSError as error:
        raise StorageError(f"the calibration cache cannot be read ({error.strerror})", where=str(cache)) from error
    except CalibratorError as error:
        raise RequestError(str(error), where=str(cache), hint="trt-opt calibrate writes caches") from error


def record_cache(cache: Path, expected: CacheRecord) -> CacheRecord:
    """Writes beside a cache what it belongs to, and returns that.

    Raises:
        RequestError: The file is no calibration cache.
        StaleError: Its first line names another version or algorithm.
        StorageError: It cannot be read, or nothing can be written beside it.
    """
    _require_header(cache_in(cache), cache, expected)
    file = record_of_file(cache)
    record = replace(expected, bytes=file.bytes, sha256=file.sha256)
    write_atomically(sidecar_of(cache), json_from_value(record))
    return record


def checked_cache(cache: Path, expected: CacheRecord) -> CacheRecord:
    """What lies beside a cache, if that is what is expected and the cache is the one recorded.

    Raises:
        StaleError: Nothing lies beside it, or it differs; the message names every difference.
        RequestError: The file is no calibration cache.
        StorageError: It cannot be read.
    """
    content = cache_in(cache)
    found = _sidecar(cache)
    differences = _differences(found, expected)
    if sha256_of_file(cache) != found.sha256:
        differences.append("the cache is not the file that was recorded: it was changed since")
    if differences:
        raise StaleError("; ".join(differences), where=str(cache), hint=MAKE_ANEW)
    _require_header(content, cache, expected)
    return found


def record_beside(cache: Path, sha256: str) -> CacheRecord | None:
    """What lies beside a cache, if it is about this very content; None where nothing does.

    Args:
        cache: The cache.
        sha256: The hash of its content.
    """
    try:
        found = _sidecar(cache)
    except StaleError:
        return None
    return found if found.sha256 == sha256 else None


def reader_of(cache: CalibrationCache) -> str:
    """The calibrator class that reads a cache: "entropy" or "minmax".

    Raises:
        RequestError: The cache was made with an algorithm that has no such class.
    """
    try:
        return ALGORITHMS[cache.algorithm]
    except KeyError:
        raise RequestError(
            f"a cache of the algorithm {cache.algorithm} cannot be given to TensorRT",
            hint=f"caches of {' and '.join(ALGORITHMS)} can",
        ) from None


def three_numbers(version: str) -> str:
    """A version as a cache's first line tells it: "8.6.1" for "8.6.1.6", "10.3.0" for "10.3"."""
    return ".".join((*version.split("."), "0", "0")[:3])


def _sidecar(cache: Path) -> CacheRecord:
    path = sidecar_of(cache)
    try:
        return value_from_json(CacheRecord, path.read_text(encoding="utf-8"), where=str(path))
    except FileNotFoundError as error:
        raise StaleError(
            f"nothing says which model and data it belongs to: {path.name} is missing beside it",
            where=str(cache),
            hint=MAKE_ANEW,
        ) from error
    except (OSError, UnicodeDecodeError, RecipeError) as error:
        raise StaleError(f"what lies beside it cannot be read: {error}", where=str(cache), hint=MAKE_ANEW) from error


def _differences(found: CacheRecord, expected: CacheRecord) -> list[str]:
    """Where a cache's record and what is asked for part, one sentence each."""
    pairs = [
        ("the model", found.model_sha256[:16], expected.model_sha256[:16]),
        ("the data", _data_text(found.data), _data_text(expected.data)),
        ("the preprocessing", found.data.preprocess, expected.data.preprocess),
        ("the algorithm", found.algorithm, expected.algorithm),
        ("the batch size", str(found.batch_size), str(expected.batch_size)),
        ("TensorRT", three_numbers(found.tensorrt), three_numbers(expected.tensorrt)),
    ]
    return [
        f"{what}: made with {was or 'none'}, asked for is {now or 'none'}" for what, was, now in pairs if was != now
    ]


def _data_text(data: DataProvenance) -> str:
    return f"{data.samples} samples, sha256 {data.sha256[:16]}"


def _require_header(content: CalibrationCache, cache: Path, expected: CacheRecord) -> None:
    """Refuses a cache whose first line contradicts its record: TensorRT would ignore it.

    Raises:
        StaleError: Names the version or the algorithm.
        RequestError: The algorithm is none of ours.
    """
    reader, wanted = reader_of(content), ALGORITHMS[cache_algorithm(expected.algorithm)]
    differences = []
    if content.version != three_numbers(expected.tensorrt):
        differences.append(f"its first line is for TensorRT {content.version}, asked for is {expected.tensorrt}")
    if reader != wanted:
        differences.append(f"its first line says {content.algorithm}, asked for is {expected.algorithm}")
    if differences:
        raise StaleError("; ".join(differences), where=str(cache), hint=MAKE_ANEW)
