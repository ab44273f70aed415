"""A calibration cache from a file that may be anything."""

from __future__ import annotations

import hashlib
from pathlib import Path

from calibrators import CalibrationCache, CalibratorError, cache_from_text
from trt_opt.errors import DataError

SMALLEST_SCALE = 2.0**-95
"""Of a smaller one the format drops leading zeros of the eight digits. No activation is that small: it is a line cut
short, or a tensor that was zero."""


def cache_from_file(path: Path) -> tuple[CalibrationCache, str]:
    """Reads a calibration cache; also gives the hash of its content.

    Raises:
        DataError: The file is missing, no cache, or cut short; names the line.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            # A pipe gives its content once, and this is read twice; one that nobody writes to never ends.
            raise DataError("the calibration cache is no regular file", where=str(path), hint="copy it to a file")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the calibration cache cannot be read: {error.strerror}", where=str(path)) from error
    try:
        cache = cache_from_text(content)
    except CalibratorError as error:
        raise DataError(str(error), where=str(path), hint=_hint(content)) from error
    last = tuple(cache.scales.values())[-1:]
    if last and 0 < last[0] < SMALLEST_SCALE and not content.endswith((b"\n", b"\r")):
        raise DataError(
            f"calibration cache, line {len(content.splitlines())}: the file ends in the middle of a scale",
            where=str(path),
            hint="copy it again, or delete that line",
        )
    if not cache.scales and not cache.not_finite:
        raise DataError("this calibration cache names no tensor", where=str(path))
    return cache, hashlib.sha256(content).hexdigest()


def _hint(content: bytes) -> str | None:
    if content.lstrip()[:1] == b"{":
        return "a calibration table of trt-opt's own goes with --table"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "this is UTF-16 text: save it as UTF-8"
    return "it is the text file that TensorRT's INT8 calibrators write, --calib of trtexec"
