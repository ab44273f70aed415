"""The capability table of TensorRT's versions; facts and their sources are in `tensorrt_versions.json`."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from trt_opt.errors import TargetError
from trt_opt.values.hardware import numbers_of
from trt_opt.values.tensorrt_version import TensorRTSupport

TABLE = "tensorrt_versions.json"

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"


@cache
def rows(library: str = TENSORRT) -> tuple[TensorRTSupport, ...]:
    """All rows of a library, the oldest first."""
    table = json.loads(resources.files("trt_opt.backends").joinpath(TABLE).read_text(encoding="utf-8"))
    return tuple(TensorRTSupport(**row) for row in table[library])


def support_of(version: str, library: str = TENSORRT) -> TensorRTSupport:
    """What a version can be told.

    Args:
        version: "8.6", "10.3.0", "10.16.1.11".
        library: "tensorrt" or "tensorrt_rtx".

    Raises:
        TargetError: It is older than the oldest version this package knows.
    """
    asked = (*numbers_of(version), 0, 0)
    known = [row for row in rows(library) if numbers_of(row.first) <= asked]
    if not known:
        oldest = rows(library)[0].first
        raise TargetError(f"TensorRT {version} is too old", hint=f"this package builds with {oldest} and later")
    return known[-1]


def newest_row() -> TensorRTSupport:
    """What the newest version can be told: the guess where nobody named a version."""
    return rows()[-1]
