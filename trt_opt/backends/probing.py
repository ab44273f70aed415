"""The parent's side of `worker/probe.py`: runs it under a Python that is not trusted, and reads what it says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trt_opt.values.device import Gpu
from trt_opt.values.machine import CudaDriver, Interpreter, Package

PROBE = Path(__file__).parent / "worker" / "probe.py"

PROTOCOL = 1

ROOT_VARIABLE = "TRT_OPT_ROOT"
"""Puts another tree before /dev, /etc, /proc and /usr."""

MOST_BYTES = 1_000_000
"""An answer is some kilobytes; what prints more than this is no Python."""


def root() -> Path:
    """The root of the file system, or what TRT_OPT_ROOT puts in its place."""
    return Path(os.environ.get(ROOT_VARIABLE) or "/")


def holds(test: Callable[[], bool]) -> bool:
    """What a test of a path says; no where its folder may not be read, or its name is too long."""
    try:
        return test()
    except OSError:
        return False


def ask(path: str, arguments: Sequence[str], limit_s: float) -> dict[str, Any] | str:
    """What the probe answers under an interpreter, or why there is no answer.

    Args:
        path: The interpreter.
        arguments: For the probe.
        limit_s: It is ended, with all it started, after this many seconds.
    """
    if not holds(Path(path).exists):
        return "there is no such file"
    try:
        # A group of its own, so that what it started ends with it.
        process = subprocess.Popen(
            [path, os.fspath(PROBE), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return f"it cannot be started ({error.strerror})"
    text = _read(process, limit_s)
    if text is None:
        return f"it gave no answer in {limit_s:.0f} s"
    if len(text) >= MOST_BYTES:
        return "it prints without end"
    if process.returncode < 0:
        return f"it crashed ({_signal_name(-process.returncode)})"
    return _answer(text.decode(errors="replace"), process.returncode)


def interpreter_from_answer(path: str, answer: dict[str, Any] | str) -> Interpreter:
    """The interpreter that gave an answer, or that gave none."""
    if isinstance(answer, str):
        return Interpreter(path, (), problem=answer)
    distributions = tuple((str(name), str(version), str(folder)) for name, version, folder in answer["distributions"])
    return Interpreter(
        path=path,
        origins=(),
        python=answer["python"],
        executable=os.path.realpath(answer["executable"] or path),
        prefix=answer["prefix"],
        is_virtual=answer["virtual"],
        architecture=answer["architecture"],
        has_pip=answer["pip"],
        is_managed=answer["managed"],
        packages=tuple(_package(name, found, distributions) for name, found in answer["packages"].items()),
        distributions=distributions,
        libraries={name: tuple(file for _, file in files) for name, files in answer["libraries"].items()},
    )


def driver_from_answer(found: Mapping[str, Any]) -> CudaDriver:
    """What the probe says of CUDA's driver."""
    cuda = found.get("cuda")
    gpus = tuple(Gpu(**gpu, cuda=cuda or "") for gpu in found.get("gpus", ()))
    problem = found["error"] if gpus or not found["works"] else "the driver knows no GPU"
    if problem and problem.startswith("libcuda.so.1: cannot open"):
        problem = "no NVIDIA driver: there is no libcuda.so.1"
    return CudaDriver(problem, cuda, gpus)


def _package(name: str, found: Mapping[str, Any], distributions: Iterable[tuple[str, str, str]]) -> Package:
    installed = next((version for other, version, _ in distributions if other == name.replace("_", "-")), None)
    works = bool(found["works"])
    detail = found.get("file") if works else found["error"]
    return Package(name, found.get("version") or installed, works, str(detail or ""))


def _read(process: subprocess.Popen[bytes], limit_s: float) -> bytes | None:
    """What a process prints, up to `MOST_BYTES`; None where it does not end in time. It is gone afterwards."""
    stream = process.stdout
    if stream is None:
        return None
    texts: list[bytes] = []

    def read() -> None:
        texts.append(stream.read(MOST_BYTES))
        if len(texts[0]) == MOST_BYTES:
            # Nobody reads on: it would wait for that until its time is over.
            _end(process)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    answered = True
    try:
        process.wait(limit_s)
        reader.join(1.0)
    except subprocess.TimeoutExpired:
        answered = False
    finally:
        if process.poll() is None or reader.is_alive():
            _end(process)
            process.wait()
            reader.join(1.0)
        if not reader.is_alive():
            stream.close()
    return texts[0] if answered and texts else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have none
        return f"signal {number}"


def _answer(text: str, code: int) -> dict[str, Any] | str:
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.get("probe") == PROTOCOL:
                return found
    words = " ".join(text.split())
    said = f", and says: {words[:120]}" if words else ""
    how = f"ends with exit code {code}" if code else "answers something else than a Python would"
    return f"it {how}{said}"
