"""NVIDIA's own Python bindings of TensorRT, fetched from PyPI, and interpreters that have them or a TensorRT on them.

A binding wheel is 1 MB and imports once the libraries that it links against exist, which a few empty C functions do.
Wheels, unpacked bindings and compiled stubs lie in a cache outside the checkout; nothing of NVIDIA's is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent

STAND_IN = HERE / "stand_in"

STUBS = HERE / "stubs"

PACKAGES = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.16.1.11": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0.106": "tensorrt-cu12-bindings==11.4.0.106",
}
"""What `pip` calls the bindings of each version."""

VERSIONS = tuple(PACKAGES)

LINKED = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser", "libnvparsers")

DOWNLOAD_TIMEOUT_S = 60


class UnavailableError(Exception):
    """The bindings cannot be had here; the message is the reason."""


@dataclass(frozen=True)
class Bindings:
    """One version of the bindings.

    Attributes:
        version: NVIDIA's version.
        site: The folder with the package `tensorrt_bindings`.
        libraries: The folder with what it links against, and with CUDA on host memory.
    """

    version: str
    site: Path
    libraries: Path

    def environment(self, *, stand_in: bool) -> dict[str, str]:
        """Variables under which the bindings, and with `stand_in` the module `tensorrt`, can be imported."""
        paths = [str(STAND_IN)] * stand_in + [str(self.site)]
        return {
            "LD_LIBRARY_PATH": _before(str(self.libraries), "LD_LIBRARY_PATH"),
            "PYTHONPATH": _before(os.pathsep.join(paths), "PYTHONPATH"),
        }

    def run(self, script: str, *arguments: str, stand_in: bool = False) -> str:
        """What a script prints in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, **self.environment(stand_in=stand_in)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def write_python(self, file: Path, python: str = sys.executable, **variables: str) -> Path:
        """Writes a shell script that is this interpreter with TensorRT's stand-in: for `--tensorrt-python`.

        Args:
            file: The script.
            python: The interpreter behind it.
            variables: More variables for it, such as TENSORRT_STAND_IN_DLA_CORES or CUDA_STAND_IN_CAPABILITY.
        """
        exports = {**self.environment(stand_in=True), **variables}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
        file.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(python)} "$@"', ""]))
        file.chmod(0o755)
        return file


def _before(first: str, variable: str) -> str:
    return os.pathsep.join(filter(None, (first, os.environ.get(variable))))


@cache
def bindings_of(version: str) -> Bindings:
    """The bindings of one version for the running Python.

    Raises:
        UnavailableError: There is no network, no such wheel for this Python, or no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        raise UnavailableError("NVIDIA's bindings need Linux and a C compiler (cc or gcc) for the stub library")
    kept = _cache_folder()
    with _alone(kept / "lock"):
        libraries = _stubs(kept, version.partition(".")[0], compiler)
        site = _made(kept / f"site-{version}-{sys.implementation.cache_tag}", lambda at: _unpack(kept, version, at))
    return Bindings(version, site, libraries)


def bindings_or_skip(version: str) -> Bindings:
    """The bindings of a version, or a skip that says why there are none."""
    if version not in _REASONS:
        try:
            return bindings_of(version)
        except UnavailableError as error:
            _REASONS[version] = str(error)
    pytest.skip(_REASONS[version])


_REASONS: dict[str, str] = {}
"""Why a version cannot be had: nothing is tried twice."""


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "trt-opt" / "bindings"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"NVIDIA's bindings have no place to be kept: {error}") from error
    return folder


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process at a time: pytest's workers all want the same files."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _made(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that is there as a whole or not at all."""
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            fill(new)
            new.rename(folder)
    return folder


def _unpack(kept: Path, version: str, folder: Path) -> None:
    with zipfile.ZipFile(_wheel(kept, version)) as archive:
        archive.extractall(folder)


def _wheel(kept: Path, version: str) -> Path:
    wheels = kept / f"wheels-{sys.implementation.cache_tag}"
    name, _, number = PACKAGES[version].partition("==")
    pattern = f"{name.replace('-', '_')}-{number}-*.whl"
    if not list(wheels.glob(pattern)):
        wheels.mkdir(exist_ok=True)
        _download(PACKAGES[version], wheels)
    return next(wheels.glob(pattern))


def _download(package: str, wheels: Path) -> None:
    if (reason := _UNREACHABLE.get("reason")) is not None:
        raise UnavailableError(reason)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--retries",
        "1",
        "--timeout",
        "10",
    ]
    with tempfile.TemporaryDirectory(dir=wheels.parent) as scratch:
        try:
            done = subprocess.run(
                [*pip, "--dest", scratch, package],
                capture_output=True,
                text=True,
                check=False,
                timeout=DOWNLOAD_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            _UNREACHABLE["reason"] = f"PyPI did not give {package} within {DOWNLOAD_TIMEOUT_S} s"
            raise UnavailableError(_UNREACHABLE["reason"]) from None
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
            raise UnavailableError(f"{package} cannot be had for this Python: {last[0]}")
        for wheel in Path(scratch).glob("*.whl"):
            wheel.rename(wheels / wheel.name)


_UNREACHABLE: dict[str, str] = {}
"""Why the network is not asked again, under "reason"."""


def _stubs(kept: Path, major: str, compiler: str) -> Path:
    """The stub libraries for one major version of TensorRT, compiled once for every state of their source."""
    sources = sorted(STUBS.glob("*.c"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]

    def fill(folder: Path) -> None:
        for name in LINKED:
            _compile(compiler, STUBS / "tensorrt.c", folder / f"{name}.so.{major}")
        _compile(compiler, STUBS / "cudart.c", folder / "libcudart.so")
        _compile(compiler, STUBS / "cuda.c", folder / "libcuda.so.1")

    return _made(kept / f"stubs-{digest}-{major}", fill)


def _compile(compiler: str, source: Path, library: Path) -> None:
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", str(library), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"{source.name} does not compile: {done.stderr.strip()[-300:]}")
