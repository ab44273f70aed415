"""A board that is a folder: what the scripts read under /proc, /sys and /etc, and the programs of JetPack on PATH."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "jetson"
SHELLS = {"dash": ("dash",), "bash": ("bash", "--posix")}
"""Each POSIX shell that a JetPack may have as /bin/sh."""


BuiltEngine = Callable[[str, Path], Path]
"""Puts the folder of an engine, built from a bundle of that name, below another folder."""

_ORIN = "NVIDIA Jetson Orin Nano Developer Kit"
_L4T = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"


@dataclass(frozen=True, slots=True)
class FakeBoard:
    """One board.

    Attributes:
        root: What TRT_OPT_ROOT names.
        programs: The folder that comes first on PATH.
        variables: More of the environment.
    """

    root: Path
    programs: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """For a script that runs on this board: its programs and the system's, no other."""
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "TRT_OPT_ROOT": str(self.root),
            "TRT_OPT_FAKE_BOARD": str(self.root),
            "TMPDIR": str(self.root / "tmp"),
            "HOME": str(self.root),
            **self.variables,
        }

    def run(
        self, shell: str, script: str, *arguments: str | Path, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs one of the scripts to its end."""
        return subprocess.run(
            [*SHELLS[shell], str(SCRIPTS / script), *map(str, arguments)],
            env=self.environment(),
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def set(self, **settings: object) -> None:
        """How trtexec behaves from now on."""
        path = self.root / "settings.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | settings))

    def calls(self) -> list[list[str]]:
        """What trtexec was told, call by call."""
        return [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]

    def program(self, name: str, body: str) -> None:
        """Puts a shell script on this board's PATH."""
        path = self.programs / name
        path.write_text("#!/bin/sh\n" + textwrap.dedent(body))
        path.chmod(0o755)

    def file(self, name: str, text: str) -> None:
        """Writes a file of the board's tree."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def memory(self, available_mib: int, swap_mib: int = 0) -> None:
        """Writes /proc/meminfo."""
        self.file(
            "proc/meminfo",
            f"MemTotal: 7800000 kB\nMemAvailable: {available_mib * 1024} kB\nSwapFree: {swap_mib * 1024} kB\n",
        )


def made_board(folder: Path, tensorrt: str = "10.3.0") -> FakeBoard:
    """An Orin Nano with JetPack 6.2, in a folder whose name holds a space."""
    board = FakeBoard(folder / "fake board", folder / "fake board" / "usr bin")
    board.programs.mkdir(parents=True)
    (board.root / "tmp").mkdir()
    board.set(tensorrt=tensorrt)
    board.file("proc/device-tree/model", f"{_ORIN}\0")
    board.file(
        "proc/device-tree/compatible", "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
    )
    board.file("etc/nv_tegra_release", _L4T)
    board.memory(5000, 3000)
    board.file("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1728000\n")
    board.file("sys/class/devfreq/17000000.gpu/cur_freq", "306000000\n")
    board.file("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    board.file("sys/class/thermal/thermal_zone0/temp", "48500\n")
    board.program("trtexec", f'exec "{sys.executable}" -S -E "{Path(__file__).with_name("fake_trtexec.py")}" "$@"\n')
    board.program("nvpmodel", 'echo "NV Power Mode: 15W"; echo 0\n')
    board.program("jetson_clocks", 'echo "Error: root is needed" >&2; exit 1\n')
    board.program("tegrastats", 'while :; do echo "RAM 2400/7620MB CPU [1%@729] GR3D_FREQ 0%"; sleep 0.1; done\n')
    board.program("dpkg-query", f'echo "libnvinfer10 {tensorrt}.30-1+cuda12.5"\n')
    return board


def shell_of(name: str) -> str:
    """The name of a shell that is here; the test is skipped where it is not."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not here")
    return name


def tree(folder: Path) -> list[str]:
    """Every path below a folder, but the lock files that stay."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def record_of(folder: Path) -> dict[str, str]:
    """What record.conf says; the last line of a key that is there several times."""
    return dict(line.split("=", 1) for line in (folder / "record.conf").read_text().splitlines())
