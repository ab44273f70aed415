"""The machine's state: what is read of a processor and of a Jetson, and what makes a run invalid."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from trt_opt.telemetry import Telemetry, cpu, jetson
from trt_opt.telemetry.validity import notes_of, problems_of
from trt_opt.values.machine_state import CpuState, GpuState, JetsonState, MachineIdentity, MachineState

MACHINE = MachineIdentity("host", "CPU", 4, None, "Linux")

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

BUSY = "import time\nend = time.monotonic() + 90\nwhile time.monotonic() < end: pass"


def states(*others: float, **cpu_fields: object) -> list[MachineState]:
    """States during a run, others being so busy."""
    return [
        MachineState("now", "during", CpuState(other_load=load, **cpu_fields))  # type: ignore[arg-type]
        for load in others
    ]


def gpu_states(*clocks: int) -> list[MachineState]:
    """States during a run with the GPU's clock so high."""
    return [MachineState("now", "during", CpuState(), (GpuState("GPU-1", sm_clock_mhz=mhz),)) for mhz in clocks]


@linux
def test_our_own_work_is_not_others() -> None:
    """A child that burns a core counts as ours; the same child of nobody does not."""
    since = now = cpu.cpu_times()
    assert since is not None
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        end = time.monotonic() + 60
        while now is not None and now.own - since.own < 0.5 and time.monotonic() < end:
            assert child.pid in cpu.descendants(os.getpid())
            time.sleep(0.1)
            now = cpu.cpu_times()
        child.kill()
    assert now is not None
    assert now.own - since.own >= 0.5
    assert now.busy - since.busy >= 0.9 * (now.own - since.own)


@linux
def test_a_watch_reads_before_during_and_after() -> None:
    """With the processor's name, and readings in order of time."""
    with Telemetry(on_gpu=False) as watch:
        watch.read()
        watch.read()
    environment = watch.environment()
    assert [state.moment for state in environment.states] == ["before", "during", "during", "after"]
    assert environment.machine.cores == cpu.usable_cores()
    assert [state.at for state in environment.states] == sorted(state.at for state in environment.states)


def test_others_on_most_cores_make_a_run_invalid() -> None:
    """By the median reading: a short burst decides nothing."""
    assert problems_of(MACHINE, states(2.5, 2.4, 0.0), on_gpu=False) == (
        "other processes kept 60 % of the 4 cores busy",
    )
    assert problems_of(MACHINE, states(0.1, 0.1, 4.0), on_gpu=False) == ()
    assert problems_of(MACHINE, states(1.0, 1.0), on_gpu=False) == ()
    assert "25 %" in notes_of(MACHINE, states(1.0, 1.0), on_gpu=False)[0]


def test_a_number_that_is_none_is_no_pass() -> None:
    """NaN, of whatever made it, counts as busy."""
    assert problems_of(MACHINE, states(float("nan")), on_gpu=False)


def test_a_hypervisor_that_takes_time_makes_a_run_invalid() -> None:
    """More than a tenth."""
    assert problems_of(MACHINE, states(0.0, stolen_pct=11.0), on_gpu=False)
    assert not problems_of(MACHINE, states(0.0, stolen_pct=9.0), on_gpu=False)


def test_throttling_between_the_first_and_the_last_state_is_told() -> None:
    """The counter counts since the machine started: only its rise matters."""
    rising = [*states(0.0, throttled=7), *states(0.0, throttled=9)]
    assert problems_of(MACHINE, rising, on_gpu=False) == ("the processor was throttled for heat 2 times",)
    assert not problems_of(MACHINE, states(0.0, throttled=7), on_gpu=False)


def test_a_moving_clock_makes_a_run_invalid() -> None:
    """By more than a tenth between readings; a busy processor does not matter to a GPU."""
    assert problems_of(MACHINE, gpu_states(1500, 1200), on_gpu=True)
    assert not problems_of(MACHINE, gpu_states(1500, 1400), on_gpu=True)
    assert not problems_of(MACHINE, states(4.0), on_gpu=True)


def test_a_governor_that_follows_the_load_is_told() -> None:
    """As a note."""
    found = notes_of(MACHINE, states(0.0, governor="powersave"), on_gpu=False)
    assert any("powersave" in note for note in found)
    assert not notes_of(MACHINE, states(0.0, governor="performance"), on_gpu=False)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a Jetson's file system, as far as it is read."""
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
        "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1300500000\n",
        "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "51250\n",
        "sys/class/thermal/thermal_zone1/type": "broken\n",
        "sys/class/thermal/thermal_zone1/temp": "not now\n",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_label": "VDD_GPU_SOC\n",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in1_input": "19000\n",
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input": "210\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("TRT_OPT_ROOT", str(tmp_path))
    return tmp_path


def test_a_board_is_read(board: Path) -> None:
    """Power mode by name, clocks in MHz, degrees, watts; what cannot be read is left out."""
    assert jetson.board_name() == "NVIDIA Jetson AGX Orin Developer Kit"
    assert jetson.jetson_state() == JetsonState(
        power_mode="MODE_30W",
        jetson_clocks=False,
        gpu_mhz=1020.0,
        memory_mhz=3199.0,
        temperatures_c={"cpu-thermal": 51.25},
        power_w={"VDD_GPU_SOC": pytest.approx(3.99)},
    )


def test_pinned_clocks_are_known_by_their_limits(board: Path) -> None:
    """As jetson_clocks leaves them."""
    (board / "sys/class/devfreq/17000000.gpu/min_freq").write_text("1300500000\n")
    state = jetson.jetson_state()
    assert state is not None
    assert state.jetson_clocks is True
    pinned = [MachineState("now", "during", CpuState(), jetson=state)]
    loose = [MachineState("now", "during", CpuState(), jetson=replace(state, jetson_clocks=False))]
    assert not notes_of(MACHINE, pinned, on_gpu=True)
    assert notes_of(MACHINE, loose, on_gpu=True) == ("the board's clocks are not pinned (jetson_clocks)",)


def test_a_board_that_hides_things_tells_the_rest(board: Path) -> None:
    """Root alone may read the memory's clock, and a new kernel may move the GPU."""
    (board / "sys/kernel/debug/bpmp/debug/clk/emc/rate").unlink()
    (board / "etc/nvpmodel.conf").unlink()
    for file in (board / "sys/class/devfreq/17000000.gpu").iterdir():
        file.unlink()
    state = jetson.jetson_state()
    assert state is not None
    assert (state.memory_mhz, state.power_mode, state.gpu_mhz, state.jetson_clocks) == (None, "2", None, None)


def test_a_workstation_is_no_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to read."""
    monkeypatch.setenv("TRT_OPT_ROOT", str(tmp_path))
    assert jetson.jetson_state() is None
    assert jetson.board_name() is None
