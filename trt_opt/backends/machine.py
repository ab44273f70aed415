"""What this machine has: libraries, a driver, GPUs. Nothing here loads TensorRT."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trt_opt.backends.interpreters import (
    BEFORE_THE_END_S,
    QUICK_S,
    candidates,
    choice,
    named_interpreter,
    tensorrt_python,
)
from trt_opt.backends.known_bad import findings, jetpack_of
from trt_opt.backends.probing import ask, driver_from_answer, root
from trt_opt.backends.remedies import rtx_steps, tensorrt_steps
from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.errors import MissingError, TargetError
from trt_opt.values.machine import Board, Capability, CudaDriver, Interpreter, Machine

PACKAGES = (
    "trt-opt",
    "tensorrt_rtx",
    "tensorrt",
    "polygraphy",
    "onnx",
    "onnx-graphsurgeon",
    "onnxruntime",
    "numpy",
    "pillow",
    "pycuda",
    "torch",
    "nvidia-ml-py",
)


def package_versions() -> dict[str, str]:
    """The versions of the packages that matter, as far as they are installed."""
    versions = ((name, _version_of(name)) for name in PACKAGES)
    return {name: version for name, version in versions if version is not None}


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def driver_version() -> str | None:
    """The version of NVIDIA's kernel driver, or None without one."""
    try:
        text = (root() / "proc" / "driver" / "nvidia" / "version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module\D*(\d+(?:\.\d+)+)", text)
    return match[1] if match else "unknown"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used: a desktop's or server's device file, a Jetson's, or Windows' driver in WSL."""
    others = ("dev/nvhost-gpu", "dev/nvgpu", "usr/lib/wsl/lib/libcuda.so.1")
    return bool(_device_files()) or any((root() / name).exists() for name in others)


def _device_files() -> list[Path]:
    return sorted((root() / "dev").glob("nvidia[0-9]*"))


def has_tensorrt_and_gpu(python: str | None = None) -> bool:
    """Whether TensorRT proper can build here, with this interpreter's TensorRT or another's.

    Where somebody names an interpreter it counts as having TensorRT: if it has not, that is an error to be told, and
    no reason to build something else.

    Args:
        python: The interpreter that was asked for.
    """
    if not has_gpu():
        return False
    if named_interpreter(python) is not None:
        return True
    try:
        tensorrt_python(None)
    except MissingError:
        return False
    return True


def machine(asked_python: str | None = None) -> Machine:
    """Everything at once.

    Takes some seconds, and never more than a quarter of a minute, whatever hangs: all is asked at the same time.

    Args:
        asked_python: The Python that was asked for to run TensorRT.
    """
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(_around)
        interpreters = candidates(asked_python)
        around = pending.result()
    chosen, reason = choice(interpreters)
    board, cuda = _board(around.get("board")), driver_from_answer(around["cuda"])
    this = next(interpreter for interpreter in interpreters if "this one" in interpreter.origins)
    return Machine(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory_bytes(),
        gpus=tuple(map(str, cuda.gpus)) or tuple(map(str, _device_files())),
        driver=driver_version(),
        packages=package_versions(),
        board=board,
        cuda=cuda,
        trtexec=around.get("trtexec"),
        interpreters=interpreters,
        tensorrt_python=chosen.path if chosen else None,
        tensorrt_reason=reason,
        capabilities=_capabilities(this, chosen, cuda, around.get("trtexec")),
        findings=findings(interpreters, board, cuda),
        steps=rtx_steps(this) + tensorrt_steps(interpreters, chosen, board, cuda),
    )


def _around() -> Mapping[str, Any]:
    """What the probe says of the machine; asked in a child, because a driver may hang."""
    answer = ask(sys.executable, ["--part", "machine", "--limit", str(QUICK_S - BEFORE_THE_END_S)], QUICK_S)
    if isinstance(answer, str):
        return {"cuda": {"works": False, "error": answer}}
    around: Mapping[str, Any] = answer["machine"]
    return around


def _board(found: Mapping[str, Any] | None) -> Board | None:
    return None if found is None else Board(found["model"], found["l4t"], jetpack_of(found["l4t"]))


def memory_bytes() -> int | None:
    """Main memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _capabilities(
    this: Interpreter, chosen: Interpreter | None, cuda: CudaDriver, trtexec: str | None
) -> tuple[Capability, ...]:
    rtx = this.package("tensorrt_rtx")
    rtx_detail = "needs the package tensorrt-rtx" if rtx is None else rtx.detail
    tensorrt = chosen.version_of("tensorrt") if chosen else None
    builds = chosen is not None and bool(cuda.gpus)
    here = f"TensorRT {tensorrt} of {chosen.path}, {cuda.gpus[0]}" if chosen and cuda.gpus else _missing(chosen, cuda)
    calibrates = builds and _has_calibrators(tensorrt)
    gone = f"TensorRT {tensorrt} has no INT8 calibrators: calibrate without them" if builds else here
    return (
        Capability("rewrite, calibrate, quantize, compare", True, f"onnxruntime {_version_of('onnxruntime') or '?'}"),
        Capability(
            "build TensorRT-RTX engines (needs no GPU)",
            rtx is not None and rtx.works,
            f"tensorrt_rtx {rtx.version}" if rtx is not None and rtx.works else rtx_detail,
        ),
        Capability("pack a bundle for another machine", True, "trt-opt bundle"),
        Capability("build TensorRT engines", builds, here),
        Capability("run TensorRT engines, and compare them", builds, here),
        Capability("TensorRT's own INT8 calibrators", calibrates, here if calibrates else gone),
        Capability(
            "build a bundle without Python",
            bool(trtexec and cuda.gpus),
            f"scripts/jetson/build_on_device.sh with {trtexec or 'trtexec, which is not here'}",
        ),
    )


def _missing(chosen: Interpreter | None, cuda: CudaDriver) -> str:
    """What TensorRT lacks here."""
    lacks = [f"a usable NVIDIA GPU ({cuda.problem})"] if not cuda.gpus else []
    lacks += ["a Python with TensorRT, NumPy and Polygraphy"] if chosen is None else []
    return f"needs {' and '.join(lacks)}"


def _has_calibrators(version: str | None) -> bool:
    try:
        return version is not None and support_of(version).int8_calibrators
    except TargetError:
        return False
