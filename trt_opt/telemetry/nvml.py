"""NVIDIA's management library: clocks, power, heat, throttling and who else is on a GPU.

Every figure is asked for by itself: laptops, virtual GPUs and Jetsons answer some questions with "not supported".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from trt_opt.values.machine_state import GpuState

REASONS = MappingProxyType(
    {
        "gpu_idle": 0x01,
        "sw_power_cap": 0x04,
        "hw_slowdown": 0x08,
        "sync_boost": 0x10,
        "sw_thermal_slowdown": 0x20,
        "hw_thermal_slowdown": 0x40,
        "hw_power_brake_slowdown": 0x80,
        "display_clock_setting": 0x100,
    }
)
"""NVML's bits nvmlClocksThrottleReason…; 0x02, clocks that somebody set, is no throttling."""


def gpu_states(ours: Collection[int], strangers: Collection[int] | None = None) -> tuple[GpuState, ...]:
    """The GPU that is used, now; nothing without NVML.

    Args:
        ours: The process numbers that are not strangers.
        strangers: Those that used the GPU before anything of ours did; None while nothing does. In a container NVML
            gives the host's numbers, ours among them: one that is no process here and was not there before may be ours.
    """
    with _nvml() as nvml:
        device = None if nvml is None else _used(nvml)
        return () if nvml is None or device is None else (_state(nvml, device, ours, strangers),)


def identity() -> dict[str, str]:
    """Name, UUID and compute capability of the GPU that is used, the driver and its CUDA; nothing without NVML."""
    with _nvml() as nvml:
        device = None if nvml is None else _used(nvml)
        if nvml is None or device is None:
            return {}
        capability = _asked(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(device))
        cuda = _asked(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
        found = {
            "gpu": _asked(nvml, lambda: nvml.nvmlDeviceGetName(device)),
            "gpu_uuid": _asked(nvml, lambda: nvml.nvmlDeviceGetUUID(device)),
            "compute_capability": None if capability is None else "{}.{}".format(*capability),
            "driver": _asked(nvml, nvml.nvmlSystemGetDriverVersion),
            "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        }
        return {name: _text(value) for name, value in found.items() if value is not None}


def clocks_locked() -> bool | None:
    """True where an application's clocks are set; None else: NVML has no question for `--lock-gpu-clocks`."""
    with _nvml() as nvml:
        device = None if nvml is None else _used(nvml)
        if nvml is None or device is None:
            return None
        asked = _asked(nvml, lambda: nvml.nvmlDeviceGetApplicationsClock(device, nvml.NVML_CLOCK_SM))
        default = _asked(nvml, lambda: nvml.nvmlDeviceGetDefaultApplicationsClock(device, nvml.NVML_CLOCK_SM))
        return True if asked is not None and default is not None and asked != default else None


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


def _used(nvml: Any) -> Any:
    """The GPU that CUDA takes first: of those that CUDA_VISIBLE_DEVICES leaves, by number or UUID; None without one."""
    count = _asked(nvml, nvml.nvmlDeviceGetCount) or 0
    found = (_asked(nvml, partial(nvml.nvmlDeviceGetHandleByIndex, index)) for index in range(count))
    devices = [device for device in found if device is not None]
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if first.isdecimal() and int(first) < len(devices):
        return devices[int(first)]
    named = (device for device in devices if first.startswith("GPU-") and _uuid(nvml, device).startswith(first))
    return next(named, devices[0] if devices else None)


def _uuid(nvml: Any, device: Any) -> str:
    return _text(_asked(nvml, lambda: nvml.nvmlDeviceGetUUID(device)) or "")


def _text(value: str | bytes) -> str:
    """NVML's texts, which older bindings give as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _others(found: Collection[int], ours: Collection[int], strangers: Collection[int] | None) -> tuple[int, ...]:
    """The processes that are not ours."""
    others = set(found) - set(ours)
    if strangers is not None:
        others = {one for one in others if one in strangers or Path(f"/proc/{one}").exists()}
    return tuple(sorted(others))


def _asked(nvml: Any, question: Callable[[], Any]) -> Any:
    """The answer; None where this GPU or this driver has none."""
    try:
        return question()
    except (nvml.NVMLError, AttributeError):
        return None


def _state(nvml: Any, device: Any, ours: Collection[int], strangers: Collection[int] | None) -> GpuState:
    def milli(question: Callable[[Any], int]) -> float | None:
        value = _asked(nvml, lambda: question(device))
        return None if value is None else value / 1e3

    rates = _asked(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(device))
    memory = _asked(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(device))
    bits = _asked(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device)) or 0
    processes = _asked(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(device)) or []
    return GpuState(
        uuid=_uuid(nvml, device),
        sm_clock_mhz=_asked(nvml, lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
        memory_clock_mhz=_asked(nvml, lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM)),
        power_w=milli(nvml.nvmlDeviceGetPowerUsage),
        power_limit_w=milli(nvml.nvmlDeviceGetEnforcedPowerLimit),
        temperature_c=_asked(nvml, lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
        throttle_reasons=tuple(name for name, bit in REASONS.items() if bits & bit),
        utilization_pct=None if rates is None else rates.gpu,
        memory_used_bytes=None if memory is None else memory.used,
        other_processes=_others({process.pid for process in processes}, ours, strangers),
    )
