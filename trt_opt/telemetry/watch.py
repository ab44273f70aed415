"""The machine around a measurement: read before, in between and after, and judged."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from types import TracebackType

from trt_opt.backends.machine import memory_bytes
from trt_opt.telemetry import cpu, jetson, nvml
from trt_opt.telemetry.validity import notes_of, problems_of
from trt_opt.values.machine_state import Environment, MachineIdentity, MachineState, Moment


def machine_identity() -> MachineIdentity:
    """What stays the same from run to run, as far as this system tells."""
    gpu, board = nvml.identity(), jetson.jetson_state()
    return MachineIdentity(
        host=platform.node(),
        cpu=cpu.cpu_name(),
        cores=cpu.usable_cores(),
        memory_bytes=memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        gpu=gpu.get("gpu"),
        gpu_uuid=gpu.get("gpu_uuid"),
        compute_capability=gpu.get("compute_capability"),
        driver=gpu.get("driver"),
        cuda=gpu.get("cuda"),
        board=jetson.board_name(),
        power_mode=None if board is None else board.power_mode,
        clocks_locked=nvml.clocks_locked(),
    )


class Telemetry:
    """Watches the machine; a context manager around a measurement, asked for a state in between with `read`.

    Entered before anything of ours uses the GPU, so that whoever does so then is a stranger.

    Args:
        on_gpu: Whether a GPU is timed, whose clocks then decide; else the processor's load does.

    Attributes:
        machine: What does not change.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self.machine = machine_identity()
        self._states: list[MachineState] = []
        self._strangers: set[int] | None = None
        self._times = cpu.cpu_times()

    def __enter__(self) -> Telemetry:
        self._add("before")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._add("after")

    def read(self) -> None:
        """A state in the middle of the measurement."""
        self._add("during")

    def environment(self) -> Environment:
        """The machine, its states, and what follows from them."""
        states = tuple(self._states)
        return Environment(
            self.machine,
            states,
            problems_of(self.machine, states, on_gpu=self._on_gpu),
            notes_of(self.machine, states, on_gpu=self._on_gpu),
        )

    def _add(self, moment: Moment) -> None:
        now = cpu.cpu_times()
        gpus = nvml.gpu_states(cpu.descendants(os.getpid()), self._strangers)
        if self._strangers is None:
            self._strangers = {process for gpu in gpus for process in gpu.other_processes}
        self._states.append(
            MachineState(
                at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                moment=moment,
                cpu=cpu.cpu_state(self._times, now),
                gpus=gpus,
                jetson=jetson.jetson_state(),
            )
        )
        self._times = now
