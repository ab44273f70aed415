"""Whether a calibration cache can be this model's at all: nothing in it says, but a record may lie beside it."""

from __future__ import annotations

from pathlib import Path

import onnx

from trt_opt.cache_import.matching import Match
from trt_opt.errors import StaleError
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.implicit.caches import record_beside
from trt_opt.values.native_calibration import CacheRecord

LEAST_SHARE = 0.5
"""A cache of the same model names nearly all tensors that INT8 needs, and the model has nearly all that it names; what
another network of the same exporter shares with it is mostly its input. Less than half of either is refused."""


def require_own(match: Match, file: str, *, despite: bool) -> None:
    """Refuses a cache that hardly fits.

    Args:
        match: The cache beside the model.
        file: The cache.
        despite: Whether anything that fits is enough.

    Raises:
        StaleError: It covers less than `LEAST_SHARE` of what is needed, or the model has less of its names.
    """
    if not match.has_ranges:
        raise StaleError(
            "this calibration cache has no range: all its scales are 0, infinite or NaN",
            where=file,
            hint="calibrate anew; so it looks after a calibration on samples of zeros, or on none",
        )
    needed, covered, named = match.needed, match.covered, match.named
    known = [entry for entry in named if match.is_known(entry)]
    fits = len(covered) >= LEAST_SHARE * len(needed) and len(known) >= LEAST_SHARE * len(named)
    if covered and (fits or despite):
        return
    hint = "give the model it was made with"
    if covered:
        hint += ", or add --reuse-table if you know that it fits"
    raise StaleError(
        f"this calibration cache seems to be another model's: it has ranges for {len(covered)} of the {len(needed)} "
        f"tensors that INT8 needs here, and this model has {len(known)} of the {len(named)} tensors that it names",
        where=file,
        hint=hint,
    )


def own_record(
    file: str, sha256: str, models: tuple[onnx.ModelProto, onnx.ModelProto], *, despite: bool
) -> CacheRecord | None:
    """What this project recorded of a cache when it wrote it; None without such a record, or where it does not fit.

    Args:
        file: The cache.
        sha256: The hash of its content.
        models: The model as it came, and made ready: what the target wants rewritten is no other model.
        despite: Whether a record of another model is no reason to refuse.

    Raises:
        StaleError: The record says that the cache is another model's.
    """
    record = record_beside(Path(file), sha256)
    if record is None:
        return None
    given, ready = models
    if record.source_sha256 == fingerprint(given) or record.model_sha256 == fingerprint(ready):
        return record
    if despite or not record.source_sha256:
        return None
    raise StaleError(
        "the record beside this calibration cache says that it was made for another model, be it the same with other "
        "weights",
        where=file,
        hint="give the model it was made with, or add --reuse-table if you know that it fits",
    )
