"""Around every verb: clean streams, a log file for library chatter, and errors as messages with exit codes."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

import typer

from trt_opt.errors import StageError, TrtOptError, UnsupportedModelError

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
"""128 + SIGINT, what shells expect of an interrupted program."""


READER_GONE = 141
"""128 + SIGPIPE."""

LONGEST_LOG_BYTES = 8_000_000


@dataclass(frozen=True)
class Session:
    """The streams of one run.

    Attributes:
        out: The result, and nothing else.
        err: Progress and messages.
        log: Where libraries' own output goes.
        json: Whether the result is wanted as JSON.
    """

    out: TextIO
    err: TextIO
    log: Path
    json: bool


_current: list[Session] = []


def session() -> Session:
    """The session of the verb that is running."""
    return _current[-1]


def command_line() -> tuple[str, ...]:
    """The arguments that the program was called with, which results keep."""
    return tuple(sys.argv[1:])


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a verb in a session of its own and turns errors into messages and exit codes."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _streams(wants_json=bool(kwargs.get("json"))) as current, _termination_as_interrupt():
            _current.append(current)
            try:
                result = function(*args, **kwargs)
                current.out.flush()
                return result
            except TrtOptError as error:
                _tell(error, current)
                raise typer.Exit(error.exit_code) from error
            except (typer.Exit, typer.Abort):
                raise
            except KeyboardInterrupt:
                current.err.write("interrupted: nothing was left half-done\n")
                raise typer.Exit(INTERRUPTED) from None
            except OSError as error:
                if _told_nobody(error, current):
                    raise typer.Exit(READER_GONE if error.errno == errno.EPIPE else 4) from error
                _tell_defect(error, current)
                raise typer.Exit(4) from error
            except MemoryError as error:
                current.err.write("error: out of memory\n  try: a smaller model or smaller batches\n")
                raise typer.Exit(4) from error
            except Exception as error:
                _tell_defect(error, current)
                raise typer.Exit(4) from error
            finally:
                _current.pop()

    return run


def plain_from_error(error: TrtOptError) -> dict[str, Any]:
    """The error as `--json` prints it."""
    nodes = error.nodes if isinstance(error, UnsupportedModelError) else ()
    return {
        "schema_version": 1,
        "kind": "Error",
        "error": type(error).__name__,
        "exit_code": error.exit_code,
        "what": error.what,
        "where": error.where,
        "hint": error.hint,
        "nodes": [dict(zip(("node", "operator", "reason"), entry, strict=True)) for entry in nodes],
    }


def _tell(error: TrtOptError, current: Session) -> None:
    if current.json:
        current.out.write(json.dumps(plain_from_error(error), indent=2) + "\n")
    current.err.write(f"error: {error}\n")
    if error.exit_code >= 4:
        current.err.write(f"  log: {current.log}\n")


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told_nobody(error: OSError, current: Session) -> bool:
    """Whether the result could not be written: its reader has gone, as `head` does, or the disk is full."""
    if error.errno not in {errno.EPIPE, errno.ENOSPC} or current.out is sys.stdout:
        return False
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, current.out.fileno())
    os.close(sink)
    if error.errno == errno.ENOSPC:
        current.err.write("error: the result cannot be written to stdout: the disk is full\n")
    return True


def _tell_defect(error: Exception, current: Session) -> None:
    """An error nobody meant: the traceback belongs in the log."""
    with current.log.open("a", encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    told = StageError(
        f"unexpected {type(error).__name__}: {error}", hint="this is a defect of trt-opt: please report it with the log"
    )
    _tell(told, current)


@contextmanager
def _streams(*, wants_json: bool) -> Iterator[Session]:
    """Keeps stdout and stderr for the verb; whatever native libraries write to them lands in the log."""
    if not _has_real_descriptors():
        yield Session(sys.stdout, sys.stderr, log_path(), wants_json)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    log = log_path()
    encoding = sys.stdout.encoding or "utf-8"
    with (
        os.fdopen(os.dup(1), "w", encoding=encoding, errors="replace") as out,
        os.fdopen(os.dup(2), "w", encoding=encoding, errors="replace") as err,
        log.open("ab", buffering=0) as sink,
    ):
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        handler = logging.StreamHandler(TextIOWrapper(FileIO(sink.fileno(), "w", closefd=False), write_through=True))
        logger = logging.getLogger("trt_opt")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        try:
            yield Session(out, err, log, wants_json)
        finally:
            out.flush()
            err.flush()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            logger.removeHandler(handler)


def _has_real_descriptors() -> bool:
    """Whether Python's streams are the process's own: not so inside a test runner or a notebook."""
    try:
        return sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


@functools.cache
def log_path() -> Path:
    """TRT_OPT_LOG, else a file in the user's state folder, else one in the temporary folder."""
    named = os.environ.get("TRT_OPT_LOG")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "trt-opt"
    for candidate in ([Path(named)] if named else []) + [state / "trt-opt.log"]:
        if _can_be_written(candidate):
            _set_aside_if_long(candidate)
            return candidate
    return Path(tempfile.gettempdir()) / f"trt-opt-{os.getpid()}.log"


def _set_aside_if_long(log: Path) -> None:
    """One older log is kept beside the current one."""
    if log.stat().st_size > LONGEST_LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def _can_be_written(file: Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            return True
    except OSError:
        return False
