"""The script that any Python runs about itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_pythons as pythons
import pytest

from trt_opt.backends.probing import PROBE, driver_from_answer

DRIVER = """
int cuInit(unsigned flags) { return FAILURE; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int most, int device) { name[0] = 'A' + device; name[1] = 0; return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 8000000000ul; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { for (int i = 0; i < 16; i++) uuid[i] = i; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 6 + device; return 0; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }
"""


def probe(*arguments: str, python: str = sys.executable, **variables: str | os.PathLike[str]) -> dict[str, Any]:
    """What the probe answers under a Python."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        [python, str(PROBE), *arguments], env=environment, check=True, capture_output=True, timeout=60, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def driver(folder: Path, failure: int = 0) -> Path:
    """A folder with a library that answers as NVIDIA's driver does."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    (folder / "driver.c").write_text(DRIVER.replace("FAILURE", str(failure)))
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
def test_every_python_from_3_6_answers(version: str) -> None:
    """The script runs under old Pythons and new ones, and says which it is."""
    python = pythons.python_of_version(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    answer = probe(python=python)
    assert answer["python"].startswith(version + ".")
    assert answer["prefix"]
    assert answer["machine"]["cuda"]["works"] in (True, False)


def test_no_object_of_tensorrt_is_made(tmp_path: Path) -> None:
    """A TensorRT whose every class ends the process counts as working: it is imported, and left alone."""
    found = probe(PYTHONPATH=pythons.tensorrt(tmp_path, "8.6.1"))["packages"]["tensorrt"]
    assert (found["works"], found["version"]) == (True, "8.6.1")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("import time\ntime.sleep(600)", "took longer than 4 s"),
        ("raise ImportError('libnvinfer.so.8: cannot open shared object file')", "ImportError: libnvinfer.so.8"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os\nos._exit(3)", "ended with exit code 3"),
        ("print('{}')\nraise RuntimeError('first\\nsecond')", "RuntimeError: first"),
        ("__version__ = '1'", "has no Builder: something else of that name"),
    ],
)
def test_an_import_that_goes_wrong_is_told(body: str, told: str, tmp_path: Path) -> None:
    """Whatever an import does, the reason is in the answer, and the other packages are told too."""
    few = ("--part", "packages", "--only", "tensorrt", "--only", "numpy", "--limit", "4")
    answer = probe(*few, PYTHONPATH=pythons.package(tmp_path, "tensorrt", body))
    assert not answer["packages"]["tensorrt"]["works"]
    assert told in answer["packages"]["tensorrt"]["error"]
    assert answer["packages"]["numpy"]["works"]


def test_imports_run_at_the_same_time(tmp_path: Path) -> None:
    """Three packages that hang cost one time limit."""
    for name in ("tensorrt", "tensorrt_lean", "polygraphy"):
        pythons.package(tmp_path, name, "import time\ntime.sleep(600)")
    started = time.monotonic()
    answer = probe("--limit", "2", PYTHONPATH=tmp_path)
    assert time.monotonic() - started < 5
    assert [answer["packages"][name]["works"] for name in ("tensorrt", "tensorrt_lean", "polygraphy")] == [False] * 3


def test_a_folder_of_that_name_is_no_package(tmp_path: Path) -> None:
    """A folder called tensorrt without a module in it is told as such."""
    (tmp_path / "tensorrt").mkdir()
    found = probe(PYTHONPATH=tmp_path)["packages"]["tensorrt"]
    assert not found["works"]
    assert str(tmp_path / "tensorrt") in found["error"]


def test_the_modules_of_the_worker_are_not_taken_for_packages(tmp_path: Path) -> None:
    """The folder the script lies in is no place to import from."""
    copy = tmp_path / "probe.py"
    shutil.copy(PROBE, copy)
    pythons.tensorrt(tmp_path)
    done = subprocess.run([sys.executable, copy], check=True, capture_output=True, timeout=60, text=True)
    assert "tensorrt" not in json.loads(done.stdout.splitlines()[-1])["packages"]


def test_what_is_installed_twice_is_told_twice(tmp_path: Path) -> None:
    """Folders of pip and of Debian, each with its version."""
    first, second = tmp_path / "first", tmp_path / "second"
    pythons.installed(first, "tensorrt_cu12_bindings", "10.3.0")
    second.mkdir()
    (second / "tensorrt-8.5.2.2-py3.8.egg-info").mkdir()
    told = probe("--part", "packages", PYTHONPATH=f"{first}:{second}")["distributions"]
    assert ["tensorrt-cu12-bindings", "10.3.0", str(first)] in told
    assert ["tensorrt", "8.5.2.2", str(second)] in told


def test_gpus_are_asked_of_the_driver(tmp_path: Path) -> None:
    """Names, compute capabilities, memory and the newest CUDA of two GPUs."""
    found = driver_from_answer(probe(LD_LIBRARY_PATH=driver(tmp_path))["machine"]["cuda"])
    assert found.problem is None
    assert [str(gpu) for gpu in found.gpus] == ["A (compute capability 8.6)", "B (compute capability 8.7)"]
    assert (found.cuda, found.gpus[0].memory_bytes) == ("12.4", 8_000_000_000)
    assert found.gpus[0].uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_a_driver_that_refuses_is_told_by_name(tmp_path: Path) -> None:
    """What cuInit says is the reason that there is no GPU."""
    found = driver_from_answer(probe(LD_LIBRARY_PATH=driver(tmp_path, failure=100))["machine"]["cuda"])
    assert found.gpus == ()
    assert found.problem == "cuInit: CUDA_ERROR_NO_DEVICE"


@pytest.mark.parametrize(
    ("release", "l4t"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64", "35.4.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
    ],
)
def test_a_jetson_is_told_by_its_files(release: str, l4t: str, tmp_path: Path) -> None:
    """The board's name, the release, TensorRT's library and trtexec, under another root."""
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text(release)
    (tmp_path / "usr" / "lib" / "aarch64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr" / "lib" / "aarch64-linux-gnu" / "libnvinfer.so.8.5.2").touch()
    trtexec = pythons.script(tmp_path / "usr" / "src" / "tensorrt" / "bin" / "trtexec", "")
    answer = probe(TRT_OPT_ROOT=tmp_path)
    assert answer["machine"]["board"] == {"model": "NVIDIA Jetson AGX Orin Developer Kit", "l4t": l4t}
    assert answer["machine"]["trtexec"] == str(trtexec)
    assert [name for _, name in answer["libraries"]["libnvinfer"]] == ["libnvinfer.so.8.5.2"]


def test_another_board_is_no_jetson(tmp_path: Path) -> None:
    """A device tree alone does not make a Jetson."""
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B\0")
    assert probe(TRT_OPT_ROOT=tmp_path)["machine"]["board"] is None
