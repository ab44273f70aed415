"""What this machine has: libraries, a driver, GPUs. Nothing here loads TensorRT."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from pathlib import Path

from trt_opt.values.machine import Capability, Machine

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
DRIVER_FILE = Path("/proc/driver/nvidia/version")
DEVICES = Path("/dev")


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
        text = DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Kernel Module\D*(\d+(?:\.\d+)+)", text)
    return match[1] if match else "unknown"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used: a desktop or server device file, or a Jetson's."""
    return any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "nvhost-gpu").exists() or (DEVICES / "nvgpu").exists()


def has_tensorrt_and_gpu() -> bool:
    """Whether TensorRT proper can build here. Asks no library: its runtime crashes where there is no driver."""
    return has_gpu() and importlib.util.find_spec("tensorrt") is not None


def machine() -> Machine:
    """Everything at once."""
    packages = package_versions()
    return Machine(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        gpus=_gpus(),
        driver=driver_version(),
        packages=packages,
        capabilities=_capabilities(packages),
    )


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> tuple[str, ...]:
    """The GPUs' names, if nvidia-ml-py is installed; else the device files."""
    if importlib.util.find_spec("pynvml") is None:
        return tuple(sorted(str(path) for path in DEVICES.glob("nvidia[0-9]*")))
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return tuple(str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count))
    except pynvml.NVMLError:
        return ()


def _capabilities(packages: dict[str, str]) -> tuple[Capability, ...]:
    rtx = packages.get("tensorrt_rtx")
    build = f"tensorrt_rtx {rtx}" if rtx else 'pip install "trt-opt[rtx]"'
    here = has_tensorrt_and_gpu()
    missing = "an NVIDIA GPU with its driver" if not has_gpu() else "TensorRT's Python package"
    return (
        Capability("rewrite, calibrate, quantize, compare", True, f"onnxruntime {packages.get('onnxruntime', '?')}"),
        Capability("build TensorRT-RTX engines (needs no GPU)", rtx is not None, build),
        Capability("run engines", False, "not part of this version of trt-opt"),
        Capability(
            "build TensorRT engines", False, "not part of this version of trt-opt" if here else f"needs {missing}"
        ),
    )
