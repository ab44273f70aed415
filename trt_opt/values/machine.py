"""What a machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capability:
    """Something the tool can do here, or cannot.

    Attributes:
        name: What it is: "build TensorRT-RTX engines".
        available: Whether it works here.
        detail: The version that does it, or what to install.
    """

    name: str
    available: bool
    detail: str


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
        packages: Package → version.
        capabilities: What works here.
    """

    platform: str
    python: str
    cores: int
    memory_bytes: int | None
    gpus: tuple[str, ...]
    driver: str | None
    packages: Mapping[str, str]
    capabilities: tuple[Capability, ...]
