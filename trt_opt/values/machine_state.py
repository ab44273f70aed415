"""The state of the machine while something is timed: clocks, power, heat, and who else is at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Moment = Literal["before", "during", "after"]


@dataclass(frozen=True, slots=True)
class GpuState:
    """What NVML says of one GPU at one moment; None for whatever this GPU does not tell.

    Attributes:
        sm_clock_mhz: Clock of the multiprocessors.
        memory_clock_mhz: Clock of the memory.
        power_w: Power drawn.
        power_limit_w: Power it may draw.
        temperature_c: Of the core.
        throttle_reasons: Why the clocks are lower than they could be, NVML's names without prefix; empty when they are
            not.
        utilization_pct: Share of time with a kernel running.
        memory_used_bytes: Memory in use, by anybody.
        other_processes: Process numbers that use it and are not ours.
    """

    uuid: str
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    utilization_pct: int | None = None
    memory_used_bytes: int | None = None
    other_processes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuState:
    """The processor at one moment; None for what this system does not tell.

    Attributes:
        governor: Frequency scaling governor, "performance"; several joined with "+".
        frequency_mhz: Mean over the cores.
        load_1m: The system's load average of the last minute.
        other_load: Cores kept busy by processes that are not ours, over the last moments; 0.3 is a third of one core.
        stolen_pct: Share of time that a hypervisor took away.
        temperature_c: The hottest zone.
        throttled: How often cores were throttled since the state before; None where it is not told.
    """

    governor: str | None = None
    frequency_mhz: float | None = None
    load_1m: float | None = None
    other_load: float | None = None
    stolen_pct: float | None = None
    temperature_c: float | None = None
    throttled: int | None = None


@dataclass(frozen=True, slots=True)
class JetsonState:
    """A Jetson board at one moment, from sysfs and tegrastats.

    Attributes:
        power_mode: nvpmodel's mode: "MAXN", "15W".
        jetson_clocks: Whether clocks are pinned to their maximum.
        gpu_mhz: Clock of the GPU.
        memory_mhz: Clock of the memory (EMC).
        temperatures_c: Thermal zone → temperature.
        power_w: Rail → power drawn.
    """

    power_mode: str | None = None
    jetson_clocks: bool | None = None
    gpu_mhz: float | None = None
    memory_mhz: float | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    power_w: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineState:
    """The machine at one moment.

    Attributes:
        at: UTC, ISO 8601.
        moment: Before, during or after the measurement.
    """

    at: str
    moment: Moment
    cpu: CpuState
    gpus: tuple[GpuState, ...] = ()
    jetson: JetsonState | None = None


@dataclass(frozen=True, slots=True)
class MachineIdentity:
    """What stays the same from run to run; two results are comparable only where this is equal.

    Attributes:
        host: The machine's name.
        cpu: The processor's name.
        cores: Logical cores this process may use.
        memory_bytes: Main memory.
        system: "Linux 6.1.0 x86_64".
        gpu: The first GPU's name; None without one.
        gpu_uuid: Its UUID.
        compute_capability: "9.0".
        driver: The NVIDIA driver's version.
        cuda: The newest CUDA it serves.
        board: The Jetson's model; None on anything else.
        power_mode: nvpmodel's mode; None on anything else.
        clocks_locked: Whether the GPU's clocks are locked; None where that cannot be told.
    """

    host: str
    cpu: str
    cores: int
    memory_bytes: int | None
    system: str
    gpu: str | None = None
    gpu_uuid: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    cuda: str | None = None
    board: str | None = None
    power_mode: str | None = None
    clocks_locked: bool | None = None

    @property
    def device(self) -> str:
        """What a model ran on: the GPU, or else the processor."""
        return self.gpu or self.cpu


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine around a measurement.

    Attributes:
        machine: What does not change.
        states: Before, during (one per reading) and after.
        problems: Why what was measured meanwhile is invalid, one sentence each; empty when it is not.
        notes: What the reader should know and what makes nothing invalid: "clocks are not locked".
    """

    machine: MachineIdentity
    states: tuple[MachineState, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
