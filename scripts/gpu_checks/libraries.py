"""The TensorRTs of an acceptance run: which were named, where each runs, and what each says of itself."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trt_opt.backends.engine_runner import ENVIRONMENT as TENSORRT_ENVIRONMENT
from trt_opt.backends.machine import has_gpu, machine
from trt_opt.backends.tensorrt import TensorRTBackend
from trt_opt.backends.tensorrt_rtx import ENVIRONMENT as RTX_ENVIRONMENT
from trt_opt.backends.tensorrt_rtx import TensorRTRTXBackend
from trt_opt.errors import MissingError, TargetError
from trt_opt.values.device import Gpu
from trt_opt.values.target import RtxTarget, TensorRTTarget, target_from_text
from trt_opt.values.tensorrt_version import TensorRTSupport

WITHOUT_CUBLAS_AND_CUDNN = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
"""The tactic sources of TensorRT 8 that need no other library."""

CUDA_RUNTIME = ("nvidia/cuda_runtime/lib", "nvidia/cu13/lib")
"""Where pip puts libcudart, in a folder of sys.path: packages nvidia-cuda-runtime-cu12 and nvidia-cuda-runtime."""


@dataclass(frozen=True, slots=True)
class Library:
    """A TensorRT to check.

    Attributes:
        name: What the table calls it.
        python: The interpreter that has it; None looks for one.
        is_rtx: Whether it is TensorRT-RTX, which is this interpreter's own.
        tactic_sources: What it may take kernels from; none leaves it to TensorRT.
    """

    name: str
    python: str | None = None
    is_rtx: bool = False
    tactic_sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Introduced:
    """What a library says of itself.

    Attributes:
        library: Name and version.
        target: What recipes name it by.
        gpu: The GPU, as its driver calls it.
        support: What the version can be told.
        python: The interpreter that runs its engines.
        variables: What makes that interpreter load this library.
    """

    library: str
    target: str
    gpu: Gpu
    support: TensorRTSupport
    python: str
    variables: dict[str, str]


def introduced(library: Library) -> Introduced:
    """Asks a library in a child process; nothing is built.

    Raises:
        MissingError: The library, or a GPU, is not here.
        TargetError: TensorRT-RTX does not build for this GPU, or the version is too old.
    """
    with backend_of(library) as backend:
        python = sys.executable if isinstance(backend, TensorRTRTXBackend) else backend.python
        variables = RTX_ENVIRONMENT if library.is_rtx else TENSORRT_ENVIRONMENT
        target, gpu = str(backend.target), backend.gpu or gpu_of_the_driver()
        return Introduced(backend.library, target, gpu, backend.support, python, dict(variables))


def backend_of(library: Library) -> TensorRTBackend | TensorRTRTXBackend:
    """The library's backend, to be entered.

    Raises:
        MissingError: The library, or a GPU, is not here.
        TargetError: TensorRT-RTX does not build for this GPU, or the version is too old.
    """
    if not library.is_rtx:
        return TensorRTBackend(TensorRTTarget(), library.python)
    target = target_from_text(f"rtx:{gpu_of_the_driver().capability}")
    if not isinstance(target, RtxTarget):
        raise TargetError(f"{target} is no target of TensorRT-RTX")
    return TensorRTRTXBackend(target)


def is_a_gpu_of_this_machine(gpu: Gpu) -> bool:
    """Whether the machine's own driver knows the GPU too: a stand-in comes with a driver of its own."""
    return has_gpu() and any(gpu.uuid == own.uuid for own in machine().cuda.gpus)


def gpu_of_the_driver() -> Gpu:
    """The first GPU of the driver.

    Raises:
        MissingError: There is none.
    """
    driver = machine().cuda
    if not driver.gpus:
        raise MissingError("TensorRT-RTX builds anywhere, but its engines run on a GPU, and here is none")
    return driver.gpus[0]


def python_of_kit(kit: Path, folder: Path) -> Path:
    """Writes a script that is the kit's Python: the variables of its `env.sh` reach that Python and nothing else.

    PYTHONHOME and PYTHONPATH in the environment of the tool would break the tool's own, newer Python. Where libcudart
    was installed beside the tool, the script makes it known too: TensorRT brings none.

    Args:
        kit: The unpacked kit: the folder with `env.sh`, or the one above it.
        folder: Where the script goes.

    Raises:
        MissingError: There is no `env.sh`.
    """
    found = [place / "env.sh" for place in (kit, kit / "kit") if (place / "env.sh").is_file()]
    if not found:
        raise MissingError("there is no env.sh", where=str(kit), hint="--kit names the folder that make_kit.sh packed")
    runtime = ":".join(_cuda_runtime())
    script = folder / f"python-of-{kit.resolve().name}"
    lines = [
        "#!/bin/bash",
        "unset PYTHONHOME PYTHONPATH VIRTUAL_ENV",
        f". {shlex.quote(str(found[0].resolve()))} || exit 1",
        f'export LD_LIBRARY_PATH="$LD_LIBRARY_PATH"{shlex.quote(":" + runtime) if runtime else ""}',
        'exec "$KIT_PYTHON" "$@"',
    ]
    script.write_text("\n".join([*lines, ""]), encoding="utf-8")
    script.chmod(0o755)
    return script


def sources_of_kit(kit: Path) -> tuple[str, ...]:
    """The tactic sources that a kit can serve: all (none named) where it brings cuBLAS and cuDNN, else two."""
    present = {name for name in ("libcublas.so", "libcudnn.so") if next(kit.rglob(f"{name}*"), None) is not None}
    return () if len(present) == 2 else WITHOUT_CUBLAS_AND_CUDNN


def _cuda_runtime() -> Iterator[str]:
    for entry in sys.path:
        for place in CUDA_RUNTIME:
            folder = os.path.join(entry, place)  # noqa: PTH118  an entry may be empty
            if entry and Path(folder).is_dir():
                yield folder
