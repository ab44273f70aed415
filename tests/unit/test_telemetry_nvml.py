"""What NVML says, through NVIDIA's own Python package over a stand-in of the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trt_opt.telemetry import nvml
from trt_opt.telemetry.validity import problems_of
from trt_opt.values.machine_state import CpuState, GpuState, MachineIdentity, MachineState

STUB = Path(__file__).parent / "stubs" / "nvml.c"

COMPILER = shutil.which("cc")

pytestmark = pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs Linux and a C compiler")

ASK = """
import json, sys
from dataclasses import asdict
from trt_opt.telemetry import Telemetry
with Telemetry(on_gpu=True) as watch:
    watch.read()
print(json.dumps(asdict(watch.environment())))
"""

QUIET = {
    "GPUS": "1",
    "SM_MHZ": "1500",
    "MEMORY_MHZ": "7000",
    "POWER_MW": "123400",
    "LIMIT_MW": "300000",
    "DEGREES": "61",
    "BUSY_PCT": "97",
    "USED_BYTES": "1234",
    "REASONS": "0",
    "PROCESS": "no",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in."""
    folder = tmp_path_factory.mktemp("nvml")
    assert COMPILER is not None
    command = [COMPILER, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(folder / "libnvidia-ml.so.1"), str(STUB)]
    subprocess.run(command, check=True)
    return folder


def environment_with(library: Path, **figures: str) -> dict[str, Any]:
    """What telemetry makes of a GPU that says so."""
    variables = {f"NVML_STAND_IN_{name}": value for name, value in {**QUIET, **figures}.items()}
    visible = {"CUDA_VISIBLE_DEVICES": figures.get("VISIBLE", "")}
    environment = {**os.environ, **visible, **variables, "LD_LIBRARY_PATH": str(library)}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_figure_is_read(library: Path) -> None:
    """In its unit: MHz, watts, degrees, percent, bytes; and who it is."""
    found = environment_with(library)
    state = found["states"][1]["gpus"][0]
    assert state == {
        "uuid": "GPU-1",
        "sm_clock_mhz": 1500,
        "memory_clock_mhz": 7000,
        "power_w": 123.4,
        "power_limit_w": 300.0,
        "temperature_c": 61,
        "throttle_reasons": [],
        "utilization_pct": 97,
        "memory_used_bytes": 1234,
        "other_processes": [],
    }
    machine = found["machine"]
    assert (machine["gpu"], machine["gpu_uuid"], machine["compute_capability"]) == ("Stand-in 1", "GPU-1", "8.6")
    assert (machine["driver"], machine["cuda"]) == ("550.54", "12.4")
    assert found["problems"] == []
    assert [state["moment"] for state in found["states"]] == ["before", "during", "after"]


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        ("0x08", ["hw_slowdown"]),
        ("0x60", ["sw_thermal_slowdown", "hw_thermal_slowdown"]),
        ("0x80", ["hw_power_brake_slowdown"]),
    ],
)
def test_heat_makes_a_run_invalid(library: Path, bits: str, names: list[str]) -> None:
    """Each reason is named."""
    found = environment_with(library, REASONS=bits)
    assert found["states"][1]["gpus"][0]["throttle_reasons"] == names
    for name in names:
        assert any(name.replace("_", " ") in problem for problem in found["problems"])


def test_the_power_limit_is_a_note(library: Path) -> None:
    """A busy GPU runs into it by design."""
    found = environment_with(library, REASONS="0x04")
    assert found["problems"] == []
    assert any("power limit" in note for note in found["notes"])


def test_somebody_else_on_the_gpu_makes_a_run_invalid(library: Path) -> None:
    """A process that is none of ours."""
    found = environment_with(library, PROCESS="1")
    assert found["problems"] == ["1 other process used the GPU"]


def test_what_a_gpu_does_not_support_stays_open(library: Path) -> None:
    """Every figure by itself: the others are there all the same."""
    silent = dict.fromkeys(("SM_MHZ", "POWER_MW", "LIMIT_MW", "DEGREES", "BUSY_PCT", "USED_BYTES", "REASONS"), "no")
    state = environment_with(library, **silent)["states"][1]["gpus"][0]
    assert state["memory_clock_mhz"] == 7000
    for name in ("sm_clock_mhz", "power_w", "power_limit_w", "temperature_c", "utilization_pct", "memory_used_bytes"):
        assert state[name] is None


def test_without_a_gpu_nothing_was_watched(library: Path) -> None:
    """And that is told."""
    found = environment_with(library, GPUS="0")
    assert found["machine"]["gpu"] is None
    assert found["states"][0]["gpus"] == []
    assert any("NVML tells nothing" in note for note in found["notes"])


@pytest.mark.parametrize(("visible", "uuid"), [("", "GPU-1"), ("2", "GPU-3"), ("1,0", "GPU-2"), ("GPU-3", "GPU-3")])
def test_only_the_gpu_that_is_used_counts(library: Path, visible: str, uuid: str) -> None:
    """Of several it is the first that CUDA sees: others may be busy."""
    found = environment_with(library, GPUS="3", VISIBLE=visible)
    assert found["machine"]["gpu_uuid"] == uuid
    assert [[gpu["uuid"] for gpu in state["gpus"]] for state in found["states"]] == [[uuid]] * 3


def test_clocks_that_were_set_are_told(library: Path) -> None:
    """By what was asked for, which holds at rest as at work; where they are the default, nobody knows."""
    locked = environment_with(library, SET_MHZ="1200", DEFAULT_MHZ="1500")
    unknown = environment_with(library, SET_MHZ="1500", DEFAULT_MHZ="1500")
    assert locked["machine"]["clocks_locked"] is True
    assert unknown["machine"]["clocks_locked"] is None
    assert not any("locked" in note for note in locked["notes"])
    assert any("locked" in note for note in unknown["notes"])


def test_the_hosts_number_of_our_own_process_is_no_stranger() -> None:
    """In a container NVML gives numbers that no process has here: one that came after us may be us."""
    nobody, here, ours = 2**22 + 5, 1, os.getpid()
    found = {nobody, here, ours}
    assert nvml._others(found, {ours}, None) == (here, nobody)
    assert nvml._others(found, {ours}, set()) == (here,)
    assert nvml._others(found, {ours}, {nobody}) == (here, nobody)


def test_an_idle_clock_is_not_a_moving_one() -> None:
    """Between its rounds a GPU rests and its clock falls: readings at work alone are held against each other."""
    machine = MachineIdentity("host", "CPU", 4, None, "Linux")

    def at(mhz: int, *reasons: str) -> MachineState:
        return MachineState("now", "during", CpuState(), (GpuState("GPU-1", mhz, throttle_reasons=reasons),))

    assert problems_of(machine, [at(1500), at(210, "gpu_idle"), at(1490)], on_gpu=True) == ()
    assert problems_of(machine, [at(1500), at(210)], on_gpu=True) != ()
