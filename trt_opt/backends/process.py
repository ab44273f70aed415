"""The parent's side of the child process: native code may crash, hang or be killed there, and only there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trt_opt.errors import WorkerError
from trt_opt.values.progress import Progress, Silent

LOG = logging.getLogger(__name__)

WORKER = Path(__file__).parent / "worker"
"""The folder that runs as the child."""

TAIL_CHARACTERS = 1500

CANCEL_S = 3.0
"""How long a build may take to notice that nobody wants it any more."""


class FailedRequestError(Exception):
    """The child is well and says that the request failed.

    Attributes:
        kind: The exception's class there.
        nodes: The refused nodes, as plain data, if that is what failed.
    """

    def __init__(self, kind: str, message: str, nodes: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.kind = kind
        self.nodes = nodes


class Worker:
    """A child process that answers requests; a context manager that never leaves it behind.

    Args:
        environment: Variables for the child beside the parent's own.
        python: The interpreter that has the vendor's library.
        script: The folder or file to run.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, python: str = sys.executable, script: Path = WORKER
    ) -> None:
        self._command = [python, os.fspath(script)]
        self._environment = {**os.environ, **(environment or {})}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed on exit
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=self._environment,
                # A group of its own: Ctrl-C reaches the parent alone, which then ends the child and all it started.
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise WorkerError(f"the worker cannot be started: {error}", where=self._command[0]) from error
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._process is not None:
            self._listener.join()
            for pipe in filter(None, (self._process.stdin, self._process.stdout)):
                # A child that died may have left a request in the pipe.
                with contextlib.suppress(OSError):
                    pipe.close()
        self._pass_log_on()
        self._log.close()

    def ask(
        self, verb: str, arguments: Mapping[str, Any], *, timeout_s: float, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Sends a request and waits for its answer.

        An interruption (Ctrl-C) in between cancels a build that lets itself be cancelled.

        Args:
            verb: What the child is to do, a key of `worker/work.py`'s VERBS.
            arguments: Plain data.
            timeout_s: How long the child may take, seconds; it is killed after that.
            progress: Told of what the child reports.

        Raises:
            WorkerError: The child crashed, hung, was killed or made no sense.
            FailedRequestError: The child says that the request failed.
        """
        process = self._process
        if process is None or process.stdin is None:
            raise WorkerError("the worker is not running")
        try:
            self._send({"verb": verb, **arguments})
        except OSError:
            raise self._death(verb) from None
        deadline = time.monotonic() + timeout_s
        try:
            return self._answer(verb, deadline, timeout_s, progress or Silent())
        except KeyboardInterrupt:
            self._cancel()
            raise

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, verb: str, deadline: float, timeout_s: float, listener: Progress) -> dict[str, Any]:
        while True:
            message = self._next(verb, deadline, timeout_s)
            if message["event"] == "done":
                return message
            if message["event"] == "failed":
                raise FailedRequestError(str(message["kind"]), str(message["message"]), message.get("nodes") or [])
            _report(message, listener)

    def _cancel(self) -> None:
        """Asks the child to stop what it does, and gives it a moment; after that it will be killed."""
        with contextlib.suppress(OSError, WorkerError, FailedRequestError):
            self._send({"verb": "cancel"})
            self._answer("cancel", time.monotonic() + CANCEL_S, CANCEL_S, Silent())

    def _next(self, verb: str, deadline: float, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self._end()
            raise WorkerError(
                f"{verb} took longer than {timeout_s:.0f} s and was ended{self._tail()}", hint="--timeout-s"
            ) from None
        if line is None:
            raise self._death(verb)
        try:
            message = json.loads(line)
            if isinstance(message, dict) and "event" in message:
                return message
        except ValueError:
            pass
        self._end()
        raise WorkerError(f"the worker answered {verb} with something else than an answer: {line[:200]!r}")

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            for line in process.stdout:
                self._answers.put(line.decode(errors="replace"))
        self._answers.put(None)

    def _death(self, verb: str) -> WorkerError:
        """Why the child is gone."""
        process = self._process
        code = process.wait() if process is not None else 0
        if code == -signal.SIGKILL:
            smaller = ", a smaller --workspace-mib, or a lower --optimization-level" if verb == "build" else ""
            return WorkerError(
                f"the worker was killed during {verb}, most likely because memory ran out{self._tail()}",
                hint=f"free memory{smaller}",
            )
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
        return WorkerError(f"the worker {how} during {verb}{self._tail()}", hint="trt-opt doctor")

    def _end(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            # The group may hold more than the child.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _tail(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f"; its last words:\n{text[-TAIL_CHARACTERS:]}" if text else ""

    def _pass_log_on(self) -> None:
        """What the library said, for whoever listens to this package's log; the command line keeps it in a file."""
        self._log.seek(0)
        for line in self._log.read().decode(errors="replace").splitlines():
            LOG.debug(line)


def _report(message: Mapping[str, Any], progress: Progress) -> None:
    if message["event"] == "progress":
        progress.start("build", int(message["steps"]), "steps")
    elif message["event"] == "step":
        progress.advance()
