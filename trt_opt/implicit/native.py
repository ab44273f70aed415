"""TensorRT's own calibrators, up to TensorRT 10: what the child process is told, and what it makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import calibrators
from trt_opt.errors import StageError, TargetError
from trt_opt.implicit.caches import cache_in, reader_of
from trt_opt.values.native_calibration import CacheRecord, NativeCalibration, StoredBatches
from trt_opt.values.tensorrt_version import TensorRTSupport

NATIVE = ("native-entropy", "native-minmax")
"""What --calibrator calls TensorRT's own calibrators."""

MODULE = Path(calibrators.__file__).with_name("native.py")
"""What the child loads: it runs under another interpreter, which has no `calibrators`."""


def is_native(calibrator: str) -> bool:
    """Whether a calibrator's text names one of TensorRT's own."""
    return calibrator.strip() in NATIVE


def algorithm_of(calibrator: str) -> str:
    """The word that `calibrators.native` knows: "entropy" for "native-entropy"."""
    return calibrator.strip().removeprefix("native-")


def require_calibrators(support: TensorRTSupport, library: str) -> None:
    """Refuses a library that has no calibrators.

    Args:
        support: Its row of the capability table.
        library: Its name and version, for the message.

    Raises:
        TargetError: It has none.
    """
    if not support.int8_calibrators:
        raise TargetError(
            f"{library} has no INT8 calibrators: TensorRT had them up to version 10, TensorRT-RTX never",
            hint="--calibrator entropy with --int8, which puts the ranges into the graph and suits every version",
        )


def native_request(
    calibrator: str,
    folder: Path,
    stored: StoredBatches,
    *,
    read_cache: Path | None = None,
    write_cache: Path | None = None,
) -> dict[str, Any]:
    """What the child is told to calibrate with, for the field `calibration` of a build request.

    Args:
        calibrator: One of `NATIVE`.
        folder: Where `store_batches` wrote.
        stored: What it wrote.
        read_cache: A cache that `checked_cache` has passed; TensorRT then calibrates only if it does not take it.
        write_cache: Where TensorRT's cache goes.
    """
    shape = stored.shapes[0] if stored.shapes else ()
    return {
        "algorithm": algorithm_of(calibrator),
        "module": str(MODULE),
        "batches": str(folder),
        "expected": {
            "inputs": list(stored.inputs),
            "batches": stored.batches,
            "batch_size": shape[0] if shape else 1,
        },
        "read_cache": None if read_cache is None else str(read_cache),
        "write_cache": None if write_cache is None else str(write_cache),
    }


def portable_calibration(cache: Path) -> dict[str, Any]:
    """What the child is told where our own calibration has been written as a cache: TensorRT reads it and nothing else.

    That TensorRT asks for data all the same (the cache's first line names another version) ends the build.

    Raises:
        RequestError: It is no calibration cache, or its algorithm has no calibrator.
        StorageError: It cannot be read.
    """
    return {
        "algorithm": reader_of(cache_in(cache)),
        "module": str(MODULE),
        "batches": None,
        "expected": None,
        "read_cache": str(cache),
        "write_cache": None,
    }


def native_calibration(
    calibrator: str, stored: StoredBatches, counts: Mapping[str, Any], record: CacheRecord | None = None
) -> NativeCalibration:
    """What calibration consumed, from the counts the child sent back.

    Args:
        calibrator: One of `NATIVE`.
        stored: The batches that were offered.
        counts: `BuiltEngine.calibration`.
        record: The cache that was read or written.

    Raises:
        StageError: The child took more batches than there were, or none and no cache.
    """
    taken, from_cache = int(counts["batches"]), bool(counts["from_cache"])
    if taken > stored.batches or (not taken and not from_cache):
        raise StageError(f"TensorRT calibrated with {taken} of {stored.batches} batches")
    warnings = []
    if not from_cache and taken < stored.batches:
        warnings.append(f"TensorRT asked for {taken} of {stored.batches} calibration batches and left out the rest")
    seen = min(taken * stored.batch_size, stored.samples)
    repeated = taken * stored.batch_size - seen
    if repeated:
        warnings.append(f"{repeated} of {stored.samples} samples were calibrated with twice, to fill the last batch")
    return NativeCalibration(
        calibrator.strip(), taken, seen, repeated, stored.batch_size, from_cache, record, tuple(warnings)
    )
