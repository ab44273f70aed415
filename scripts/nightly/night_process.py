"""Runs `trt-opt` for a step: with a time limit, its words in a log, and never longer than the night itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 10.0
"""How long a program that was told to end may take to clean up."""

PR_SET_PDEATHSIG = 1
TRT_OPT = (sys.executable, "-m", "trt_opt")


class StoppedError(Exception):
    """The night was told to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        code: Its exit code; negative is a signal's number.
        seconds: How long it ran.
        timed_out: Whether it was ended for taking too long.
        message: What it said last of what went wrong.
    """

    code: int
    seconds: float
    timed_out: bool
    message: str


def run_trt_opt(arguments: Sequence[str], *, log: Path, stdout: Path | None, timeout_s: float) -> Outcome:
    """Runs it to its end; what it prints goes into files."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TRT_OPT_LOG": str(log.with_suffix(".library.log")), "COLUMNS": "120"}
    begun = time.monotonic()
    out_path = stdout or log.with_suffix(".out")
    with log.open("wb") as words, out_path.open("wb") as out:
        words.write(f"$ trt-opt {' '.join(arguments)}\n".encode())
        words.flush()
        child = subprocess.Popen(
            (*TRT_OPT, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=words,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there are no threads here
        )
        timed_out = False
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(child)
    return Outcome(child.returncode, time.monotonic() - begun, timed_out, _message(log, child.returncode))


def stop_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP end the night where it is; a second one changes nothing."""

    def stop(number: int, _frame: object) -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        raise StoppedError(number)

    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, stop)


def _die_with_parent() -> None:
    """Asks Linux for SIGTERM when the night is killed: what it runs must not outlive its lock."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the program and all it started."""
    for number, grace in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        if child.poll() is not None and number == signal.SIGTERM:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)


def _message(log: Path, code: int) -> str:
    """The error in a log, or its last line."""
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[1:] if line.strip()
    ]
    errors = [line for line in lines if re.match(r"(\S*[Ee]rror:|interrupted)", line)]
    if code == 0 or not lines:
        return ""
    return (errors or lines)[-1].removeprefix("error: ")[:400]
