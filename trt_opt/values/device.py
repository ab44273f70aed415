"""The GPU of a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the driver says of one GPU.

    Attributes:
        name: "NVIDIA H200", "Orin".
        capability: Its compute capability, "9.0".
        memory_bytes: Its memory.
        uuid: As nvidia-smi writes it.
        cuda: The newest CUDA that the driver serves, "12.4".
    """

    name: str
    capability: str
    memory_bytes: int
    uuid: str
    cuda: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability})"
