"""What makes a measurement invalid, and what a reader should merely know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from trt_opt.values.machine_state import GpuState, MachineIdentity, MachineState

MOST_OTHER_SHARE = 0.5
"""Share of the cores that others may keep busy while ONNX Runtime is timed.

Beyond that its threads, which wait for one another at every operator, wait for the scheduler more often than not. With
less, sides that take turns suffer alike, and the share is told.
"""

TOLD_OTHER_SHARE = 0.05
"""Share from which on it is told."""

MOST_STOLEN_PCT = 10.0
"""Of the time that a hypervisor may take away."""

MOST_CLOCK_SPREAD = 0.10
"""Relative spread of the GPU's clock between readings under load."""

IDLE = "gpu_idle"

SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
"""NVML's reasons that mean heat or a failing supply."""

POWER_CAP = "sw_power_cap"
"""The power limit holds the clocks down: ordinary on a busy GPU, and the reason why its clocks move."""


def problems_of(machine: MachineIdentity, states: Sequence[MachineState], *, on_gpu: bool) -> tuple[str, ...]:
    """Why what was measured meanwhile is invalid, one sentence each.

    Args:
        machine: The machine.
        states: Before, during and after.
        on_gpu: Whether a GPU was timed; else the processor.
    """
    found = _gpu_problems(states) if on_gpu else _cpu_problems(machine, states)
    return tuple(dict.fromkeys(found))


def notes_of(machine: MachineIdentity, states: Sequence[MachineState], *, on_gpu: bool) -> tuple[str, ...]:
    """What the reader should know and what makes nothing invalid."""
    found = _gpu_notes(machine, states) if on_gpu else _cpu_notes(machine, states)
    return tuple(dict.fromkeys(found))


def _cpu_problems(machine: MachineIdentity, states: Sequence[MachineState]) -> Iterator[str]:
    share = _other_share(machine, states)
    if share is not None and not (share <= MOST_OTHER_SHARE):
        yield f"other processes kept {100 * share:.0f} % of the {machine.cores} cores busy"
    stolen = _median(state.cpu.stolen_pct for state in _during(states))
    if stolen is not None and not (stolen <= MOST_STOLEN_PCT):
        yield f"the hypervisor took {stolen:.0f} % of the processor's time for others"
    counts = [state.cpu.throttled for state in states if state.cpu.throttled is not None]
    if counts and counts[-1] > counts[0]:
        yield f"the processor was throttled for heat {counts[-1] - counts[0]} times"


def _cpu_notes(machine: MachineIdentity, states: Sequence[MachineState]) -> Iterator[str]:
    share = _other_share(machine, states)
    if share is not None and TOLD_OTHER_SHARE < share <= MOST_OTHER_SHARE:
        yield f"other processes kept {100 * share:.0f} % of the {machine.cores} cores busy"
    governor = next((state.cpu.governor for state in states if state.cpu.governor), None)
    if governor is None:
        yield "the frequency governor cannot be read here"
    elif governor != "performance":
        yield f"the frequency governor is {governor}, not performance: clocks follow the load"


def _gpu_problems(states: Sequence[MachineState]) -> Iterator[str]:
    during = [gpu for state in _during(states) for gpu in state.gpus]
    for reason in SLOWDOWNS:
        count = sum(reason in gpu.throttle_reasons for gpu in during)
        if count:
            yield f"the GPU was slowed down ({reason.replace('_', ' ')}) in {count} of {len(during)} readings"
    others = {process for state in states for gpu in state.gpus for process in gpu.other_processes}
    if others:
        yield f"{len(others)} other process{'es' * (len(others) > 1)} used the GPU"
    low, high = _clocks(states)
    if high - low > MOST_CLOCK_SPREAD * high:
        yield f"the GPU's clock moved between {low} and {high} MHz"


def _gpu_notes(machine: MachineIdentity, states: Sequence[MachineState]) -> Iterator[str]:
    gpus: list[GpuState] = [gpu for state in states for gpu in state.gpus]
    jetson = next((state.jetson for state in states if state.jetson is not None), None)
    if not gpus and jetson is None:
        yield "NVML tells nothing of this GPU: clocks, power and heat were not watched"
    if any(POWER_CAP in gpu.throttle_reasons for gpu in gpus):
        yield "the power limit held the GPU's clocks down"
    if gpus and not machine.clocks_locked:
        yield "nothing says that the GPU's clocks are locked (nvidia-smi --lock-gpu-clocks)"
    if jetson is not None and jetson.jetson_clocks is False:
        yield "the board's clocks are not pinned (jetson_clocks)"


def _clocks(states: Sequence[MachineState]) -> tuple[int, int]:
    """The GPU's lowest and highest clock at work: it falls while idle; 0 if unknown."""
    found = [
        gpu.sm_clock_mhz
        for state in _during(states)
        if state.moment == "during"
        for gpu in state.gpus
        if gpu.sm_clock_mhz and IDLE not in gpu.throttle_reasons
    ]
    return (min(found), max(found)) if found else (0, 0)


def _during(states: Sequence[MachineState]) -> list[MachineState]:
    return [state for state in states if state.moment == "during"] or list(states)


def _other_share(machine: MachineIdentity, states: Sequence[MachineState]) -> float | None:
    """Share of the cores that others kept busy: the median reading, so that a short burst decides nothing."""
    load = _median(state.cpu.other_load for state in _during(states))
    return None if load is None else load / machine.cores


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
