"""What implicit quantisation calibrates with: a cache of our own ranges, or TensorRT's calibrator fed with samples."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from trt_opt.backends import Backend
from trt_opt.build.manifest import build_key
from trt_opt.build.store import CACHE, EngineStore
from trt_opt.calibrate.cache import cache_from_table
from trt_opt.errors import RequestError, StageError, StaleError, StorageError
from trt_opt.files import write_atomically
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.query import graph_inputs
from trt_opt.implicit.batches import store_batches
from trt_opt.implicit.caches import checked_cache, expected_record, record_cache, sidecar_of
from trt_opt.implicit.native import (
    is_native,
    native_calibration,
    native_request,
    portable_calibration,
    require_calibrators,
)
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.stage import FloatGraph
from trt_opt.recipe import Recipe
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.native_calibration import CacheRecord, NativeCalibration, StoredBatches
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset

BATCH_SIZE = 8
"""How many samples TensorRT's calibrator sees at a time where the model's batch is dynamic."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What ranges are taken from.

    Attributes:
        original: The model as it came.
        graph: The float graph.
        table: Our own ranges.
        data: The samples they come from; None where the table was given.
    """

    original: onnx.ModelProto
    graph: FloatGraph
    table: CalibrationTable | None
    data: Dataset | None


@dataclass(frozen=True, slots=True, eq=False)
class ImplicitCalibration:
    """A calibration under way.

    Attributes:
        request: What the child is told.
        calibrator: Who chooses the ranges, as text.
        cache: Where the cache lies once the engine is built, beside it.
        expected: What the cache belongs to.
        kept: Where the store keeps TensorRT's own cache for the next build; None for a cache of ours.
        stored: The samples that were laid down; None without.
        notes: What the user should know before anything was calibrated.
    """

    request: Mapping[str, Any]
    calibrator: str
    cache: Path
    expected: CacheRecord
    kept: Path | None = None
    stored: StoredBatches | None = None
    notes: tuple[str, ...] = ()

    def settled(self, counts: Mapping[str, Any] | None) -> NativeCalibration:
        """What calibration consumed, after the build; writes beside the cache what it belongs to.

        Raises:
            StageError: The child took nothing.
            StaleError: The cache is not for this version.
        """
        if counts is None:
            raise StageError("the engine was built without its calibration")
        if self.kept is None or self.stored is None:
            return NativeCalibration(self.calibrator, 0, 0, 0, 1, True, record_cache(self.cache, self.expected))
        if counts["from_cache"]:
            shutil.copyfile(self.kept, self.cache)
        found = native_calibration(self.calibrator, self.stored, counts, record_cache(self.cache, self.expected))
        warnings = self.notes if counts["from_cache"] else (*self.notes, *self._keep())
        return replace(found, warnings=(*found.warnings, *warnings))

    def _keep(self) -> tuple[str, ...]:
        """Lays the cache down for the next build; that it cannot be kept is no reason to throw the engine away."""
        if self.kept is None:
            return ()
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.kept, self.cache.read_bytes())
            write_atomically(sidecar_of(self.kept), sidecar_of(self.cache).read_bytes())
        except (OSError, StorageError) as error:
            return (f"TensorRT's calibration cache could not be kept for the next build: {error}",)
        return ()


@contextmanager
def implicit_calibration(
    recipe: Recipe, ranges: Ranges, backend: Backend, folder: Path, store: EngineStore, progress: Progress
) -> Iterator[ImplicitCalibration | None]:
    """Prepares the calibration of a build with implicit quantisation; yields None for any other.

    Args:
        recipe: The request.
        ranges: What ranges are taken from.
        backend: Who builds.
        folder: The entry's folder; holds the samples while the build lasts, and the cache for good.
        store: Keeps what TensorRT's own calibrators found.
        progress: Told of the samples.

    Raises:
        TargetError: The library has no calibrators.
        RequestError: TensorRT is to calibrate and there are no samples.
        DataError: The samples have several shapes.
    """
    if recipe.method != Implicit.name or ranges.table is None:
        yield None
        return
    require_calibrators(backend.support, backend.library)
    if not is_native(recipe.calibrator):
        yield _portable(ranges, ranges.table, backend, folder)
        return
    if ranges.data is None:
        raise RequestError("TensorRT's own calibrator needs samples", hint="--calib-data DATA")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        yield _native(recipe.calibrator, (ranges, ranges.data), backend, (Path(scratch), folder, store), progress)


def _portable(ranges: Ranges, table: CalibrationTable, backend: Backend, folder: Path) -> ImplicitCalibration:
    version = backend.version
    cache = folder / CACHE
    write_atomically(cache, cache_from_table(table, version))
    model, origin = fingerprint(ranges.graph.model), fingerprint(ranges.original)
    expected = expected_record(model, table.data, table.calibrator, version, source_sha256=origin)
    return ImplicitCalibration(portable_calibration(cache), table.calibrator, cache, expected)


def _native(
    calibrator: str,
    source: tuple[Ranges, Dataset],
    backend: Backend,
    places: tuple[Path, Path, EngineStore],
    progress: Progress,
) -> ImplicitCalibration:
    (ranges, data), (scratch, folder, store) = source, places
    graph = ranges.graph
    stored = store_batches(data, graph_inputs(graph.model), scratch, batch_size=BATCH_SIZE, progress=progress)
    model, origin, size = fingerprint(graph.model), fingerprint(ranges.original), stored.batch_size
    expected = expected_record(model, data.provenance(), calibrator, backend.version, size, source_sha256=origin)
    kept = store.calibration_cache(build_key({"belongs to": expected}))
    usable, notes = _usable(kept, expected)
    request = native_request(calibrator, scratch, stored, read_cache=usable, write_cache=folder / CACHE)
    return ImplicitCalibration(request, calibrator.strip(), folder / CACHE, expected, kept, stored, notes)


def _usable(kept: Path, expected: CacheRecord) -> tuple[Path | None, tuple[str, ...]]:
    """A cache of an earlier build, if it is the one that was recorded; else None and why TensorRT calibrates anew."""
    if not kept.is_file():
        return None, ()
    try:
        checked_cache(kept, expected)
    except (StaleError, RequestError) as error:
        return None, (f"the calibration cache of an earlier build was refused, TensorRT calibrated anew: {error.what}",)
    return kept, ()
