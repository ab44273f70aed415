"""What a machine has, and which of its Pythons have what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trt_opt.values.device import Gpu

OLDEST_PYTHON_OF_WORKER = (3, 8)
"""The child process that loads TensorRT needs at least this: JetPack 5's."""

NEEDED_BESIDE_TENSORRT = ("numpy", "polygraphy")
"""What the child process imports beside TensorRT."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Something the tool can do here, or cannot.

    Attributes:
        name: What it is: "build TensorRT-RTX engines".
        available: Whether it works here.
        detail: The version that does it, or what is missing.
    """

    name: str
    available: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Package:
    """A package of an interpreter, imported to see whether that works.

    Attributes:
        name: "tensorrt".
        version: As it says itself, or as it was installed; None where neither tells.
        works: Whether it can be imported.
        detail: Where it lies, or why it cannot be imported.
    """

    name: str
    version: str | None
    works: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that might run the child process with TensorRT.

    Attributes:
        path: As it is started.
        origins: How it was found: "this one", "/usr/bin", "PATH", "pyenv", …
        problem: Why nothing can be said about it: it crashed, hung, is no Python. None where it answered.
        python: Its version.
        executable: The file it says it is; another than `path` where that starts it.
        prefix: Where its packages live.
        is_virtual: Whether it is a virtual environment's.
        architecture: "x86_64", "aarch64".
        has_pip: Whether it can install packages.
        is_managed: Whether the system's package manager forbids pip to (PEP 668).
        packages: What was found of the packages that matter.
        distributions: What is installed under these names, as (name, version, folder); a name may be there twice.
        libraries: Shared library → the file names found: "libnvinfer" → ("libnvinfer.so.10.3.0",).
    """

    path: str
    origins: tuple[str, ...]
    problem: str | None = None
    python: str | None = None
    executable: str = ""
    prefix: str = ""
    is_virtual: bool = False
    architecture: str = ""
    has_pip: bool = False
    is_managed: bool = False
    packages: tuple[Package, ...] = ()
    distributions: tuple[tuple[str, str, str], ...] = ()
    libraries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def package(self, name: str) -> Package | None:
        """What was found of a package; None where it is not installed."""
        return next((package for package in self.packages if package.name == name), None)

    def version_of(self, name: str) -> str | None:
        """The version of a package that can be imported."""
        package = self.package(name)
        return package.version if package is not None and package.works else None

    @property
    def has_tensorrt(self) -> bool:
        """Whether TensorRT can be imported."""
        package = self.package("tensorrt")
        return package is not None and package.works

    @property
    def is_new_enough(self) -> bool:
        """Whether the child process runs under it."""
        return self.python is not None and version_numbers(self.python)[:2] >= OLDEST_PYTHON_OF_WORKER

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the child process needs beside TensorRT and cannot import; what was not tried counts as installed."""
        tried = {package.name for package in self.packages}
        found = {package.name for package in self.packages if package.works}
        found |= {name for name, _, _ in self.distributions if name not in tried}
        return tuple(name for name in NEEDED_BESIDE_TENSORRT if name not in found)

    @property
    def can_build(self) -> bool:
        """Whether the child process with TensorRT runs under it."""
        return self.has_tensorrt and self.is_new_enough and not self.lacks


@dataclass(frozen=True, slots=True)
class Board:
    """A Jetson.

    Attributes:
        model: As its device tree says; None in a container that hides it.
        l4t: The release of Jetson Linux: "36.4.3".
        jetpack: The JetPack that release belongs to: "6.2".
    """

    model: str | None
    l4t: str | None
    jetpack: str | None


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """What NVIDIA's driver library answered.

    Attributes:
        problem: Why no GPU can be used; None where one can.
        cuda: The newest CUDA it serves: "12.4"; None where it was not asked.
        gpus: The GPUs.
    """

    problem: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A combination that is known to go wrong.

    Attributes:
        subject: The combination: "TensorRT 10.2.0".
        where: The interpreters that have it.
        severity: "breaks": nothing works; "wrong": something does not, or gives wrong results; "caution": untested.
        consequence: What happens.
        remedy: What to do.
        source: Who says so.
    """

    subject: str
    where: tuple[str, ...]
    severity: Literal["breaks", "wrong", "caution"]
    consequence: str
    remedy: str
    source: str


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do.

    Attributes:
        purpose: What it is for.
        commands: To be typed, in this order; empty where there is nothing to type.
    """

    purpose: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts `trt-opt doctor` shows.

    Attributes:
        platform: Operating system and architecture.
        python: Version of the interpreter.
        cores: CPU cores this process may use.
        memory_bytes: Main memory; None where it cannot be told.
        gpus: One line per NVIDIA GPU.
        driver: Version of NVIDIA's driver; None without one.
        packages: Package → version, of this interpreter.
        board: The Jetson; None where it is none.
        cuda: What the driver's library says.
        trtexec: TensorRT's own command; None without it.
        interpreters: Every Python that was looked at, in the order in which they are considered.
        tensorrt_python: The one that runs the child process with TensorRT; None where none can.
        tensorrt_reason: Why that one, or why none.
        capabilities: What works here.
        findings: What is known to go wrong.
        steps: What to do for what does not work.
    """

    platform: str
    python: str
    cores: int
    memory_bytes: int | None
    gpus: tuple[str, ...]
    driver: str | None
    packages: Mapping[str, str]
    board: Board | None
    cuda: CudaDriver
    trtexec: str | None
    interpreters: tuple[Interpreter, ...]
    tensorrt_python: str | None
    tensorrt_reason: str
    capabilities: tuple[Capability, ...]
    findings: tuple[Finding, ...]
    steps: tuple[Step, ...]


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version as packages write it: "8.6.1.post1" → (8, 6, 1), "3.13.0rc1" → (3, 13, 0)."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
