"""NVIDIA's management library: clocks, power, heat, throttling and who else is on a GPU.

Every figure is asked for by itself: laptops, virtual GPUs and Jetsons answer some questions with "not supported".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

from trt_opt.values.machine_state import GpuState

REASONS = MappingProxyType(
    {
        "sw_power_cap": 0x04,
        "hw_slowdown": 0x08,
        "sync_boost": 0x10,
        "sw_thermal_slowdown": 0x20,
        "hw_thermal_slowdown": 0x40,
        "hw_power_brake_slowdown": 0x80,
        "display_clock_setting": 0x100,
    }
)
"""NVML's bits nvmlClocksThrottleReason…; 0x01 (idle) and 0x02 (clocks set by an application) are no throttling."""


def gpu_states(ours: Collection[int]) -> tuple[GpuState, ...]:
    """Every GPU now; nothing without NVML.

    Args:
        ours: The process numbers that are not strangers.
    """
    with _nvml() as nvml:
        if nvml is None:
            return ()
        return tuple(_state(nvml, device, ours) for device in _devices(nvml))


def identity() -> dict[str, str]:
    """Name, UUID and compute capability of the first GPU, the driver and its CUDA; nothing without NVML."""
    with _nvml() as nvml:
        devices = _devices(nvml) if nvml is not None else []
        if nvml is None or not devices:
            return {}
        capability = _asked(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(devices[0]))
        cuda = _asked(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
        found = {
            "gpu": _asked(nvml, lambda: nvml.nvmlDeviceGetName(devices[0])),
            "gpu_uuid": _asked(nvml, lambda: nvml.nvmlDeviceGetUUID(devices[0])),
            "compute_capability": None if capability is None else "{}.{}".format(*capability),
            "driver": _asked(nvml, nvml.nvmlSystemGetDriverVersion),
            "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        }
        return {name: str(value) for name, value in found.items() if value is not None}


def clocks_locked() -> bool | None:
    """Whether an administrator or an application set the first GPU's clocks; None where that cannot be told."""
    with _nvml() as nvml:
        devices = _devices(nvml) if nvml is not None else []
        if nvml is None or not devices:
            return None
        bits = _asked(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(devices[0]))
        return None if bits is None else bool(bits & nvml.nvmlClocksThrottleReasonApplicationsClocksSetting)


@contextmanager
def _nvml() -> Iterator[Any]:
    """The library, ready; None where it or the driver is missing."""
    module = _loaded()
    if module is None:
        yield None
        return
    try:
        yield module
    finally:
        with contextlib.suppress(module.NVMLError):
            module.nvmlShutdown()


def _loaded() -> ModuleType | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml  # type: ignore[no-any-return]


def _devices(nvml: Any) -> list[Any]:
    count = _asked(nvml, nvml.nvmlDeviceGetCount) or 0
    found = (_asked(nvml, partial(nvml.nvmlDeviceGetHandleByIndex, index)) for index in range(count))
    return [device for device in found if device is not None]


def _asked(nvml: Any, question: Callable[[], Any]) -> Any:
    """The answer; None where this GPU or this driver has none."""
    try:
        return question()
    except (nvml.NVMLError, AttributeError):
        return None


def _state(nvml: Any, device: Any, ours: Collection[int]) -> GpuState:
    def milli(question: Callable[[Any], int]) -> float | None:
        value = _asked(nvml, lambda: question(device))
        return None if value is None else value / 1e3

    rates = _asked(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(device))
    memory = _asked(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(device))
    bits = _asked(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)) or 0
    processes = _asked(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(device)) or []
    return GpuState(
        uuid=str(_asked(nvml, lambda: nvml.nvmlDeviceGetUUID(device)) or ""),
        sm_clock_mhz=_asked(nvml, lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
        memory_clock_mhz=_asked(nvml, lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM)),
        power_w=milli(nvml.nvmlDeviceGetPowerUsage),
        power_limit_w=milli(nvml.nvmlDeviceGetEnforcedPowerLimit),
        temperature_c=_asked(nvml, lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
        throttle_reasons=tuple(name for name, bit in REASONS.items() if bits & bit),
        utilization_pct=None if rates is None else rates.gpu,
        memory_used_bytes=None if memory is None else memory.used,
        other_processes=tuple(sorted({process.pid for process in processes} - set(ours))),
    )
