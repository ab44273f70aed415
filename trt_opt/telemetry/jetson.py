"""A Jetson board's own state, from sysfs and from what nvpmodel left behind; nothing on any other machine.

Sources: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance"; the kernel's devfreq, thermal and hwmon
interfaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trt_opt.backends.probing import root
from trt_opt.telemetry.reading import text_of
from trt_opt.values.machine_state import JetsonState

MODEL = "proc/device-tree/model"
STATUS = "var/lib/nvpmodel/status"
MODES = "etc/nvpmodel.conf"
GPUS = ("sys/class/devfreq/*.gpu", "sys/class/devfreq/*.gv11b", "sys/class/devfreq/*.ga10b", "sys/class/devfreq/gpu-*")
MEMORY_CLOCK = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
ZONES = "sys/class/thermal/thermal_zone*"
RAILS = "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"


def board_name() -> str | None:
    """The Jetson's model; None on anything else."""
    name = text_of(root() / MODEL).strip("\0\n ")
    return name if re.search(r"jetson|tegra|orin|xavier|thor", name, re.IGNORECASE) else None


def jetson_state() -> JetsonState | None:
    """The board now; None on anything else."""
    if board_name() is None:
        return None
    gpu = next(_found(GPUS), None)
    emc_hz = _number(root() / MEMORY_CLOCK)
    return JetsonState(
        power_mode=_power_mode(),
        jetson_clocks=None if gpu is None else _is_pinned(gpu),
        gpu_mhz=None if gpu is None else _per(_number(gpu / "cur_freq"), 1e6),
        memory_mhz=_per(emc_hz, 1e6),
        temperatures_c=dict(_temperatures()),
        power_w=dict(_powers()),
    )


def _power_mode() -> str | None:
    """The mode of nvpmodel by its name: "pmode:0002" in its status, named in its configuration."""
    status = re.search(r"pmode:(\d+)", text_of(root() / STATUS))
    if status is None:
        return None
    number = int(status[1])
    named = re.search(rf"<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+?)\s*>", text_of(root() / MODES))
    return named[1] if named else str(number)


def _is_pinned(gpu: Path) -> bool | None:
    """Whether the GPU may run at one frequency only, its highest, which is what jetson_clocks does."""
    low, high = _number(gpu / "min_freq"), _number(gpu / "max_freq")
    return None if low is None or high is None else low == high


def _temperatures() -> Iterator[tuple[str, float]]:
    for zone in _found((ZONES,)):
        name, milli = text_of(zone / "type").strip(), _number(zone / "temp")
        if name and milli is not None:
            yield name, milli / 1e3


def _powers() -> Iterator[tuple[str, float]]:
    """Power of every rail, watts: the INA3221 gives millivolts and milliamperes."""
    for monitor in _found((RAILS,)):
        for number in (1, 2, 3):
            name = text_of(monitor / f"in{number}_label").strip()
            millivolts, milliamperes = _number(monitor / f"in{number}_input"), _number(monitor / f"curr{number}_input")
            if name and millivolts is not None and milliamperes is not None:
                yield name, millivolts * milliamperes / 1e6


def _found(patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(root().glob(pattern))


def _number(path: Path) -> float | None:
    text = text_of(path).strip()
    return float(text) if re.fullmatch(r"-?\d+", text) else None


def _per(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
