"""What GPUs compute in, as NVIDIA's documents say; nothing here is a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Library = Literal["TensorRT", "TensorRT-RTX"]

FIRST_WITH_NARROW_TYPES = (10,)
"""TensorRT takes FP8 and INT4 tensors of an ONNX graph from version 10.0 (its release notes)."""


@dataclass(frozen=True, slots=True)
class ComputeSupport:
    """What the GPUs of one compute capability can do.

    Attributes:
        capability: "8.6".
        architecture: "Ampere".
        fp16: "fast", or "slow" where FP16 arithmetic runs at a small fraction of FP32's rate.
        bf16: Whether it computes in BF16.
        int8: "tensor cores", "DP4A" (four products per instruction, no tensor cores), or "no".
        int4_weights: Whether TensorRT multiplies by INT4 weights on it.
        fp8: Whether it has FP8 tensor cores.
        fp4: Whether it has FP4 tensor cores.
        tensorrt: The first and the last version of TensorRT 8 or later for it; None where support goes on.
        tensorrt_rtx: What TensorRT-RTX lists for it; empty where it does not support it at all.
    """

    capability: str
    architecture: str
    fp16: Literal["fast", "slow"]
    bf16: bool
    int8: Literal["tensor cores", "DP4A", "no"]
    int4_weights: bool
    fp8: bool
    fp4: bool
    tensorrt: tuple[str, str | None]
    tensorrt_rtx: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A board or graphics card.

    Attributes:
        name: As written after --device.
        title: As NVIDIA calls it.
        capability: Its compute capability.
        dla: Whether it has a Deep Learning Accelerator, which computes in INT8 and FP16.
        jetpack: JetPack version → the TensorRT that comes with it; empty for cards.
    """

    name: str
    title: str
    capability: str
    dla: bool
    jetpack: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where an engine is to run, and with what.

    Attributes:
        title: In words.
        library: What builds and runs the engine.
        version: The TensorRT version, None for the newest.
        supports: One entry per compute capability the engine must run on; empty where nobody said.
        dla: Whether there is a Deep Learning Accelerator.
        jetpack: JetPack version → TensorRT version, for boards.
    """

    title: str
    library: Library
    version: str | None = None
    supports: tuple[ComputeSupport, ...] = ()
    dla: bool = False
    jetpack: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether it was named."""
        return bool(self.supports)

    @property
    def has_fast_fp16(self) -> bool:
        """Whether FP16 is faster than FP32 everywhere; yes where nothing is known."""
        return all(entry.fp16 == "fast" for entry in self.supports)

    @property
    def has_int8(self) -> bool:
        """Whether INT8 is computed everywhere; yes where nothing is known."""
        listed = self.library == "TensorRT" or all("int8 weights" in entry.tensorrt_rtx for entry in self.supports)
        return listed and all(entry.int8 != "no" for entry in self.supports)

    @property
    def has_int4_weights(self) -> bool:
        """Whether INT4 weights are taken everywhere; no where nothing is known."""
        return self.is_known and self._takes_narrow_types and all(entry.int4_weights for entry in self.supports)

    @property
    def has_fp8(self) -> bool:
        """Whether FP8 is computed everywhere; no where nothing is known."""
        return self.is_known and self._takes_narrow_types and all(entry.fp8 for entry in self.supports)

    @property
    def takes_explicit_types(self) -> bool:
        """Whether the library takes the graph's types as they are; older ones want builder flags beside Q/DQ pairs."""
        return self._takes_narrow_types

    @property
    def _takes_narrow_types(self) -> bool:
        return self.version is None or numbers_of(self.version) >= FIRST_WITH_NARROW_TYPES


def numbers_of(version: str) -> tuple[int, ...]:
    """A version as numbers that can be compared: "10.3" → (10, 3)."""
    return tuple(int(part) for part in version.split("."))
