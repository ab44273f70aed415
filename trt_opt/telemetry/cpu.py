"""The processor, from /proc and /sys; what another system does not tell stays None."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trt_opt.telemetry.reading import text_of
from trt_opt.values.machine_state import CpuState

PROC = Path("/proc")
CPUS = Path("/sys/devices/system/cpu")
ZONES = Path("/sys/class/thermal")

SHORTEST_S = 0.05
"""Times are counted in ticks of 10 ms: what lies closer together says nothing of the load."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Time spent since the machine started by the cores that this process may use, seconds, and when it was read.

    Other cores are no matter: in a container, /proc/stat counts the whole host's.

    Attributes:
        at: Monotonic clock, seconds.
        busy: By anything.
        own: By this process and all that it started.
        stolen: By the hypervisor, for others.
    """

    at: float
    busy: float
    own: float
    stolen: float


def cpu_times() -> CpuTimes | None:
    """Processor times now; None where the system does not tell."""
    rows = [row for row in map(str.split, text_of(PROC / "stat").splitlines()) if row and row[0] in _names_of_cores()]
    if not rows or any(len(row) < 9 for row in rows):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    # user, nice, system, irq, softirq; guest time is part of user time (proc(5))
    busy = sum(int(row[index]) for row in rows for index in (1, 2, 3, 6, 7)) / ticks
    stolen = sum(int(row[8]) for row in rows) / ticks
    return CpuTimes(time.monotonic(), busy, sum(_own_seconds(ticks)), stolen)


def cpu_state(since: CpuTimes | None, now: CpuTimes | None) -> CpuState:
    """The processor now, and what others did between two readings of `cpu_times`."""
    other = stolen = None
    if since is not None and now is not None and now.at - since.at >= SHORTEST_S:
        seconds = now.at - since.at
        other = max(0.0, (now.busy - since.busy) - (now.own - since.own)) / seconds
        stolen = 100 * max(0.0, now.stolen - since.stolen) / (seconds * usable_cores())
    return CpuState(
        governor=_governor(),
        frequency_mhz=_frequency_mhz(),
        load_1m=_load(),
        other_load=other,
        stolen_pct=stolen,
        temperature_c=_temperature_c(),
        throttled=_throttled(),
    )


def cpu_name() -> str:
    """The processor's name, as /proc/cpuinfo or Python knows it."""
    found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", text_of(PROC / "cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def descendants(process: int) -> set[int]:
    """A process and all that descend from it, by number."""
    parents: dict[int, int] = {}
    for entry in _processes():
        fields = _after_name(entry)
        if len(fields) > 1:
            parents[int(entry.name)] = int(fields[1])
    family = {process}
    while True:
        more = {child for child, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


def _own_seconds(ticks: int) -> Iterator[float]:
    """Processor time of our own processes; of those that ended, through who waited for them."""
    for process in descendants(os.getpid()):
        fields = _after_name(PROC / str(process))
        if len(fields) > 14:
            yield sum(int(field) for field in fields[11:15]) / ticks


def _after_name(entry: Path) -> list[str]:
    """The fields of /proc/N/stat behind the name, which may hold spaces and brackets: state, parent, and so on."""
    return text_of(entry / "stat").rpartition(")")[2].split()


def _processes() -> Iterable[Path]:
    try:
        return [entry for entry in PROC.iterdir() if entry.name.isdecimal()]
    except OSError:
        return []


def _names_of_cores() -> set[str]:
    """The rows of /proc/stat that count."""
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {f"cpu{number}" for number in numbers}


def _governor() -> str | None:
    found = {text_of(path).strip() for path in CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    return "+".join(sorted(found)) or None


def _frequency_mhz() -> float | None:
    # "<unknown>" where a core sleeps
    khz = [text_of(path).strip() for path in CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    mhz = [int(text) / 1e3 for text in khz if text.isdecimal()]
    mhz = mhz or [float(value) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", text_of(PROC / "cpuinfo"), re.M)]
    return sum(mhz) / len(mhz) if mhz else None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _temperature_c() -> float | None:
    zones = [text_of(path).strip() for path in ZONES.glob("thermal_zone*/temp")]
    return max((int(text) / 1e3 for text in zones if re.fullmatch(r"-?\d+", text)), default=None)


def _throttled() -> int | None:
    """How often cores were throttled for heat since the machine started."""
    counts = [text_of(path).strip() for path in CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(int(text) for text in counts if text.isdecimal()) if counts else None
