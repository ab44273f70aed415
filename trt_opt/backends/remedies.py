"""What to install, for which Python, as command lines of the machine at hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from trt_opt.backends.hardware import devices
from trt_opt.backends.known_bad import numpy_requirement, supported_span, version_in
from trt_opt.backends.probing import root
from trt_opt.values.device import Gpu
from trt_opt.values.hardware import numbers_of
from trt_opt.values.machine import Board, CudaDriver, Interpreter, Step, version_numbers

NVIDIA_VENDOR = "0x10de"
"""NVIDIA's PCI vendor number, as Linux writes it."""

OLDEST_CUDA_OF_NEWEST_TENSORRT = 12
"""NVIDIA's Python packages of TensorRT 10 and 11 are built for CUDA 12 and 13."""

NAMED = frozenset({"--tensorrt-python", "TRT_OPT_TENSORRT_PYTHON"})
"""The origins of an interpreter that somebody asked for."""

_WHOLE = re.compile(r"tensorrt(-cu\d+)?")
"""The packages that stand for a whole TensorRT."""

SDK_MANAGER = "https://developer.nvidia.com/sdk-manager"


def install_commands(interpreter: Interpreter) -> tuple[str, ...]:
    """What a Python with TensorRT needs beside it; empty where that is nothing, or TensorRT itself is missing."""
    tensorrt = version_in(interpreter, "tensorrt")
    if tensorrt is None or not interpreter.lacks or not interpreter.is_new_enough:
        return ()
    return _pip(interpreter, _companions(interpreter, tensorrt))


def trtexec_route() -> str:
    """What builds where no Python can."""
    return "scripts/jetson/build_on_device.sh builds a bundle (trt-opt bundle) with trtexec alone"


def rtx_steps(this: Interpreter) -> tuple[Step, ...]:
    """What builds TensorRT-RTX engines here."""
    package = this.package("tensorrt_rtx")
    if package is not None and package.works:
        return ()
    purpose = "build TensorRT-RTX engines, with or without a GPU"
    return (Step(purpose, _pip(this, ("trt-opt[rtx]",))),)


def tensorrt_steps(
    interpreters: tuple[Interpreter, ...],
    chosen: Interpreter | None,
    board: Board | None,
    cuda: CudaDriver,
) -> tuple[Step, ...]:
    """What builds TensorRT engines here, or for here; empty where all is there.

    Args:
        interpreters: As examined; this one among them.
        chosen: The one that runs TensorRT, if one can.
        board: The Jetson, if it is one.
        cuda: What the driver says.
    """
    steps = [] if cuda.gpus else list(_gpu_steps(board))
    wanted = bool(cuda.gpus or board) or any(entry.has_tensorrt or _is_broken(entry) for entry in interpreters)
    if chosen is None and wanted:
        able = next((interpreter for interpreter in interpreters if interpreter.can_build), None)
        named = next((entry for entry in interpreters if NAMED.intersection(entry.origins)), None)
        if named is not None and install_commands(named):
            steps.append(Step(f"give {named.path} what it lacks beside TensorRT", install_commands(named)))
        elif able is not None:
            path = shlex.quote(able.path)
            commands: tuple[str, ...] = (f"trt-opt build MODEL --target tensorrt --tensorrt-python {path}",)
            steps.append(Step(f"use the TensorRT {version_in(able, 'tensorrt')} of {able.path}", commands))
        elif board is not None:
            steps.append(_on_board(interpreters, board))
        else:
            steps.append(_elsewhere(interpreters, cuda))
    return tuple(steps)


def _gpu_steps(board: Board | None) -> Iterator[Step]:
    """What to do where no GPU can be used."""
    if board is not None and _is_container():
        yield Step("let this container use the board's GPU", ("docker run --runtime nvidia …",))
    elif board is not None:
        yield Step(f"a Jetson's driver comes with JetPack: flash the board anew ({SDK_MANAGER})", ())
    elif _is_container():
        yield Step("if the host has an NVIDIA GPU, let this container use it", ("docker run --gpus all …",))
    elif _has_nvidia_card():
        yield Step(
            "there is an NVIDIA card without a driver: install one, restart, and ask trt-opt doctor again",
            _driver_commands(),
        )
    if board is None and not _has_nvidia_card():
        yield Step(
            "TensorRT builds on the machine whose GPU it builds for: pack the model here, build it there",
            ("trt-opt bundle MODEL -o app.bundle", "trt-opt build app.bundle"),
        )


def _is_container() -> bool:
    return (root() / ".dockerenv").exists() or (root() / "run" / ".containerenv").exists()


def _has_nvidia_card() -> bool:
    return any(_text(file).strip() == NVIDIA_VENDOR for file in root().glob("sys/bus/pci/devices/*/vendor"))


def _text(file: Path) -> str:
    """A small file of the system's; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _driver_commands() -> tuple[str, ...]:
    """The distribution's own way to NVIDIA's driver."""
    lines = _text(root() / "etc" / "os-release").splitlines()
    name = next((line[3:].strip('"') for line in lines if line.startswith("ID=")), "")
    commands = {
        "ubuntu": ("sudo ubuntu-drivers install", "sudo reboot"),
        "debian": ("sudo apt-get install nvidia-driver", "sudo reboot"),
    }
    return commands.get(name, ("see https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/",))


def _on_board(interpreters: Iterable[Interpreter], board: Board) -> Step:
    """JetPack's TensorRT is for the system's Python alone."""
    system = next((entry for entry in interpreters if "system" in entry.origins and entry.problem is None), None)
    if system is None:
        return Step("the system's Python is missing", ("sudo apt-get install python3 python3-libnvinfer",))
    if not system.is_new_enough:
        return Step(
            f"the system's Python {system.python} is older than 3.8: {trtexec_route()}",
            ("sh build_on_device.sh app.bundle",),
        )
    commands: list[str] = []
    if system.package("tensorrt") is None:
        commands.append("sudo apt-get update")
        has_library = bool(system.libraries.get("libnvinfer"))
        commands.append(f"sudo apt-get install {'python3-libnvinfer' if has_library else 'nvidia-jetpack'}")
    elif not system.has_tensorrt:
        commands.append("sudo apt-get install --reinstall nvidia-jetpack python3-libnvinfer")
    tensorrt = version_in(system, "tensorrt") or _tensorrt_of(board)
    commands += _pip(system, _companions(system, tensorrt)) if system.lacks else ()
    return Step(f"give JetPack's own Python ({system.path}) what it lacks", tuple(commands))


def _tensorrt_of(board: Board) -> str | None:
    """The oldest TensorRT of a board's JetPack."""
    jetpack = board.jetpack or "?"
    known = {name: version for device in devices().values() for name, version in device.jetpack.items()}
    fitting = [version for name, version in known.items() if jetpack.startswith(name) or name.startswith(jetpack)]
    return min(fitting, key=numbers_of, default=None)


def _elsewhere(interpreters: tuple[Interpreter, ...], cuda: CudaDriver) -> Step:
    """A machine with a graphics card: NVIDIA's Python packages, for the Python that has them or for this one."""
    near = next((entry for entry in interpreters if entry.has_tensorrt and entry.is_new_enough), None)
    if near is not None:
        return Step(f"give {near.path}, which has TensorRT, what it lacks", install_commands(near))
    this = next(entry for entry in interpreters if "this one" in entry.origins)
    broken = next((entry for entry in interpreters if _is_broken(entry)), None)
    package = broken.package("tensorrt") if broken is not None else None
    if broken is not None and package is not None:
        commands = _pip(broken, ("--force-reinstall", _installed(broken) or _package_for(cuda)))
        what = f"the TensorRT of {broken.path} cannot be imported ({package.detail}): install it anew"
        return Step(what, commands)
    newest = cuda.cuda and version_numbers(cuda.cuda)[0]
    if newest and newest < OLDEST_CUDA_OF_NEWEST_TENSORRT:
        return Step(f"the driver serves CUDA up to {cuda.cuda}, TensorRT needs 12: install a newer one", ())
    requirements = (_requirement(cuda), *(name for name in this.lacks if name != "numpy"))
    return Step("install TensorRT for this Python", _pip(this, requirements))


def _is_broken(interpreter: Interpreter) -> bool:
    """Whether a Python that somebody named, or this one, has a TensorRT that cannot be imported."""
    package = interpreter.package("tensorrt")
    named = bool(NAMED.union({"this one"}).intersection(interpreter.origins))
    return named and package is not None and not package.works and interpreter.is_new_enough


def _installed(interpreter: Interpreter) -> str | None:
    """The TensorRT that pip installed, as pip takes it: "tensorrt-cu12==10.3.0"."""
    found = (f"{name}=={version}" for name, version, _ in interpreter.distributions if _WHOLE.fullmatch(name))
    return next(found, None)


def _requirement(cuda: CudaDriver) -> str:
    """The TensorRT to install, as pip takes it: the newest that the driver and every GPU take."""
    limits = [last for gpu in cuda.gpus if (last := _last(gpu)) is not None]
    if not limits:
        return _package_for(cuda)
    last = min(limits, key=numbers_of)
    major, minor = numbers_of(last)
    return f"tensorrt=={last}.*" if major < 10 else f"{_package_for(cuda)}<{major}.{minor + 1}"


def _last(gpu: Gpu) -> str | None:
    span = supported_span(gpu.capability)
    return None if span is None else span[1]


def _package_for(cuda: CudaDriver) -> str:
    """`tensorrt` alone is built for CUDA 13."""
    newest = version_numbers(cuda.cuda)[0] if cuda.cuda else 13
    return "tensorrt" if newest > OLDEST_CUDA_OF_NEWEST_TENSORRT else "tensorrt-cu12"


def _companions(interpreter: Interpreter, tensorrt: str | None) -> tuple[str, ...]:
    """What the child process imports beside TensorRT; NumPy is always named, that pip does not take a newer one."""
    requirement = numpy_requirement(tensorrt)
    wants_numpy = "numpy" in interpreter.lacks or requirement != "numpy"
    return ("polygraphy", *((requirement,) if wants_numpy else ()))


def _pip(interpreter: Interpreter, requirements: Iterable[str]) -> tuple[str, ...]:
    """Installs packages for a Python; in an environment above it where the system forbids that (PEP 668)."""
    what = " ".join(shlex.quote(requirement) for requirement in requirements)
    path = shlex.quote(interpreter.path)
    if interpreter.is_managed and not interpreter.is_virtual:
        return (
            f"{path} -m venv --system-site-packages ~/tensorrt-python",
            f"~/tensorrt-python/bin/python -m pip install {what}",
            "export TRT_OPT_TENSORRT_PYTHON=~/tensorrt-python/bin/python",
        )
    if interpreter.has_pip or interpreter.is_virtual:
        return (f"{path} -m pip install {what}",)
    return ("sudo apt-get install python3-pip", f"{path} -m pip install {what}")
