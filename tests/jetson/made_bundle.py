"""Bundles made by hand, entry by entry, so that a test can spoil each."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CONF = {
    "FORMAT": "1",
    "NAME": "made by hand",
    "BOARD": "orin",
    "CAPABILITY": "8.7",
    "TENSORRT": "10.3",
    "PRECISION": "int8-explicit",
    "STRONGLY_TYPED": "yes",
    "WORKSPACE_MIB": "1024",
    "OPTIMIZATION_LEVEL": "3",
    "DLA": "",
    "GPU_FALLBACK": "yes",
    "VERSION_COMPATIBLE": "no",
    "HARDWARE_COMPATIBLE": "no",
    "TACTIC_SOURCES": "",
    "SAMPLES": "2",
    "INPUTS": "1",
    "OUTPUTS": "2",
    "INPUT_0_NAME": "in:put/0",
    "INPUT_0_SHAPE": "1x3x4",
    "INPUT_0_TYPE": "float32",
    "INPUT_0_MIN": "",
    "INPUT_0_OPT": "",
    "INPUT_0_MAX": "",
    "OUTPUT_0_NAME": "scores",
    "OUTPUT_0_SHAPE": "1x50",
    "OUTPUT_1_NAME": "box es:0",
    "OUTPUT_1_SHAPE": "1x20",
    "LEAST_SQNR_DB": "30.0",
    "MODEL_BYTES": "4096",
    "BUILT_BY": "tests",
}
"""A build.conf that asks for everything that is unusual in names, and for a strongly typed network on an Orin."""

_SIZES = (50, 20)


def bundle_files(conf: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Everything a bundle holds but SHA256SUMS; the quantised outputs are 40 dB from the float ones."""
    said = CONF | dict(conf or {})
    files = {
        "bundle.json": b"{}",
        "build.conf": "".join(f"{key}={value}\n" for key, value in said.items()).encode(),
        "model.onnx": bytes(4096),
        "recipe.toml": b"int8 = true\n",
    }
    if said["PRECISION"] == "int8-implicit":
        files["calibration.cache"] = b"TRT-100300-EntropyCalibration2\nin: 3c010a14\n"
    random = np.random.default_rng(0)
    for sample in range(int(said["SAMPLES"])):
        files[f"samples/{sample:03}/input-0.bin"] = random.normal(size=12).astype("<f4").tobytes()
        for output, size in enumerate(_SIZES):
            exact = random.normal(size=size).astype("<f4")
            near = exact + 0.01 * random.normal(size=size).astype("<f4")
            files[f"samples/{sample:03}/output-{output}.bin"] = exact.tobytes()
            files[f"samples/{sample:03}/output-{output}.txt"] = _text(exact)
            files[f"samples/{sample:03}/quantised-{output}.txt"] = _text(near)
    return files


def hash_lines(files: Mapping[str, bytes]) -> bytes:
    """What `sha256sum` would print."""
    return "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in files.items()).encode()


def entry(name: str, body: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """One member of an archive."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(body), kind, link, 0o644
    return info, body


def write_archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """An uncompressed ustar archive of exactly these members, in this order."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for info, body in members:
            archive.addfile(info, io.BytesIO(body))
    return path


def write_bundle(path: Path, conf: Mapping[str, str] | None = None, **changed: bytes) -> Path:
    """A whole bundle; files may be exchanged, and their hashes hold."""
    files = bundle_files(conf) | {name.replace("_", "."): body for name, body in changed.items()}
    return write_archive(path, [entry("SHA256SUMS", hash_lines(files)), *(entry(*file) for file in files.items())])


def _text(values: np.ndarray) -> bytes:
    return "".join(f"{value:.9g}\n" for value in values).encode()
