"""TensorRT's calibration cache: the text file that its INT8 calibrators (up to TensorRT 10) read and write.

    TRT-8601-EntropyCalibration2
    input: 3c010a14
    (Unnamed Layer* 64) [Shuffle]_output: 0

The first line holds the TensorRT version and the algorithm. Each further line is a tensor's name and its scale,
amax/127, as the big-endian IEEE-754 float32 in hexadecimal, leading zeros dropped. Names may hold colons and spaces:
the last colon counts. A scale of 0 occurs, and so does infinity (NVIDIA/TensorRT issue 672). Tools that write such
files may put letters where the version belongs ("TRT-8XXX-…"). Nothing in the file says which model or data it
belongs to.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from calibrators.errors import CalibratorError


@dataclass(frozen=True, slots=True)
class CalibrationCache:
    """Scales of tensors, as TensorRT stores them.

    Attributes:
        version: TensorRT's version with three numbers, "8.6.1"; None where a header's number follows no known scheme.
        algorithm: "EntropyCalibration2", "MinMaxCalibration", …
        scales: Tensor name → amax/127, in file order; rounded to float32 when the cache is made.
        not_finite: Tensors that a file gives infinity or NaN instead of a scale; they are never written.
    """

    version: str | None
    algorithm: str
    scales: Mapping[str, float]
    not_finite: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.algorithm, re.ASCII):
            raise CalibratorError(f"an algorithm's name holds letters and digits only, not {self.algorithm!r}")
        for name in self.scales:
            if not name or name != name.strip() or len(name.splitlines()) > 1:
                raise CalibratorError(f"the tensor name {name!r} cannot be written to a calibration cache")
        rounded = {name: _float32(name, scale) for name, scale in self.scales.items()}
        object.__setattr__(self, "scales", rounded)


def cache_from_text(content: str | bytes | bytearray | memoryview) -> CalibrationCache:
    """Reads a calibration cache.

    Args:
        content: The file's content; TensorRT hands it to `write_calibration_cache` as a memoryview.

    Raises:
        CalibratorError: A line does not follow the format; the message gives its number.
    """
    lines = _text(content).splitlines()
    header = re.fullmatch(r"TRT-(?P<number>\w+)-(?P<algorithm>\w+)", lines[0].strip(), re.ASCII) if lines else None
    if header is None:
        found = repr(lines[0][:80]) if lines else "nothing"
        raise CalibratorError(f"calibration cache, line 1: TRT-<version>-<algorithm> was expected, found {found}")
    entries: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            name, scale = _entry(number, line)
            if name in entries:
                raise CalibratorError(f"calibration cache, line {number}: the tensor {name!r} occurs twice")
            entries[name] = scale
    scales = {name: scale for name, scale in entries.items() if math.isfinite(scale)}
    not_finite = tuple(name for name in entries if name not in scales)
    return CalibrationCache(_version_from_number(header["number"]), header["algorithm"], scales, not_finite)


def text_from_cache(cache: CalibrationCache) -> str:
    """The cache as TensorRT reads it.

    Raises:
        CalibratorError: The version is unknown, or not two to four numbers; TensorRT ignores a cache of another one.
    """
    if cache.version is None:
        raise CalibratorError("a calibration cache needs the TensorRT version that is to read it, such as 8.6.1")
    lines = [f"TRT-{_number_from_version(cache.version)}-{cache.algorithm}"]
    lines += [f"{name}: {_hex_from_float(scale)}" for name, scale in cache.scales.items()]
    return "\n".join(lines) + "\n"


def _text(content: str | bytes | bytearray | memoryview) -> str:
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        return bytes(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = bytes(content)[: error.start].count(b"\n") + 1
        raise CalibratorError(f"calibration cache, line {line}: not UTF-8 text") from error


def _entry(number: int, line: str) -> tuple[str, float]:
    name, colon, digits = line.rpartition(":")
    digits = digits.strip()
    if not colon or not name.strip() or not re.fullmatch(r"[0-9a-fA-F]{1,8}", digits):
        raise CalibratorError(
            f"calibration cache, line {number}: <tensor name>: <up to 8 hexadecimal digits> was expected, "
            f"found {line[:80]!r}"
        )
    scale = float(struct.unpack(">f", bytes.fromhex(digits.zfill(8)))[0])
    if scale < 0.0:
        raise CalibratorError(f"calibration cache, line {number}: {digits} is the scale {scale}, which is none")
    return name.strip(), scale


def _hex_from_float(scale: float) -> str:
    return struct.pack(">f", scale).hex().lstrip("0") or "0"


def _float32(name: str, scale: float) -> float:
    if not (math.isfinite(scale) and scale >= 0.0):
        raise CalibratorError(f"the scale of {name!r} must be finite and not negative, not {scale}")
    try:
        return float(struct.unpack(">f", struct.pack(">f", scale + 0.0))[0])
    except OverflowError as error:
        raise CalibratorError(f"the scale of {name!r}, {scale}, is beyond float32") from error


def _number_from_version(version: str) -> str:
    """8.6.1 → 8601, 10.3.0 → 100300.

    This is NV_TENSORRT_VERSION of NvInferVersion.h: the major number counts 1000 up to TensorRT 9, 10000 from 10 on.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)?", version, re.ASCII)
    if match is None:
        raise CalibratorError(f"a TensorRT version looks like 8.6.1, not {version!r}")
    major, minor, patch = int(match[1]), int(match[2]), int(match[3] or 0)
    if minor > (9 if major < 10 else 99) or patch > 99:
        raise CalibratorError(f"the TensorRT version {version} does not fit a calibration cache's header")
    return str(major * (1000 if major < 10 else 10000) + minor * 100 + patch)


def _version_from_number(number: str) -> str | None:
    if len(number) not in (4, 6) or not re.fullmatch(r"[1-9][0-9]*", number):
        return None
    value = int(number)
    major, rest = divmod(value, 1000 if len(number) == 4 else 10000)
    return f"{major}.{rest // 100}.{rest % 100}"
