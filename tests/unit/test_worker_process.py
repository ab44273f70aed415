"""Children that misbehave, run for real."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import psutil
import pytest

from trt_opt.backends.process import FailedRequestError, Worker
from trt_opt.errors import WorkerError

ANSWER = 'print(json.dumps({"event": "done", "number": 42}), flush=True)'


def script(folder: Path, body: str) -> Path:
    """A worker that runs `body` for every request."""
    file = folder / "worker.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    file.write_text(f"import ctypes, json, os, signal, subprocess, sys, time\nfor request in sys.stdin:\n{lines}\n")
    return file


def ask(folder: Path, body: str, timeout_s: float = 20.0) -> dict[str, object]:
    """One request to such a worker."""
    with Worker(script=script(folder, body)) as worker:
        return worker.ask("build", {}, timeout_s=timeout_s)


def test_an_answer_comes_back(tmp_path: Path) -> None:
    """A well-behaved child's answer is the result."""
    assert ask(tmp_path, ANSWER)["number"] == 42


def test_a_crash_names_the_signal_and_the_childs_last_words(tmp_path: Path) -> None:
    """A segmentation fault is an error with SIGSEGV and what was printed before."""
    with pytest.raises(WorkerError, match=r"(?s)crashed \(SIGSEGV\) during build.*about to fall"):
        ask(tmp_path, 'print("about to fall", file=sys.stderr, flush=True)\nctypes.string_at(0)')


def test_a_kill_is_told_as_lack_of_memory(tmp_path: Path) -> None:
    """SIGKILL from outside is what the kernel does when memory runs out."""
    with pytest.raises(WorkerError, match="memory ran out"):
        ask(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")


def test_an_early_end_is_an_error(tmp_path: Path) -> None:
    """A child that just ends is no success."""
    with pytest.raises(WorkerError, match="exit code 3"):
        ask(tmp_path, "sys.exit(3)")


def test_a_hanging_child_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """After the time-out neither the child nor its own child is left."""
    marker = f"hang-{os.getpid()}-{time.time_ns()}"
    body = f'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)  # {marker}"])\ntime.sleep(60)'
    with pytest.raises(WorkerError, match="took longer than 1 s"):
        ask(tmp_path, body, timeout_s=1.0)
    alive = [
        process for process in psutil.process_iter(["cmdline"]) if marker in " ".join(process.info["cmdline"] or [])
    ]
    assert not alive


def test_nonsense_is_an_error(tmp_path: Path) -> None:
    """Anything but JSON with an event is refused and quoted."""
    with pytest.raises(WorkerError, match="hello there"):
        ask(tmp_path, 'print("hello there", flush=True)')


def test_a_failure_the_child_reports_keeps_the_child_alive(tmp_path: Path) -> None:
    """A request may fail; the next one is answered by the same process."""
    body = 'print(json.dumps({"event": "failed", "kind": "ValueError", "message": str(os.getpid())}), flush=True)'
    with Worker(script=script(tmp_path, body)) as worker:
        failures = []
        for _ in range(2):
            with pytest.raises(FailedRequestError) as caught:
                worker.ask("build", {}, timeout_s=20)
            failures.append(str(caught.value))
    assert failures[0] == failures[1]


def test_the_child_is_gone_after_an_exception_in_the_parent(tmp_path: Path) -> None:
    """Leaving the context by Ctrl-C ends a child that is busy."""
    worker = Worker(script=script(tmp_path, "time.sleep(60)"))
    with pytest.raises(KeyboardInterrupt), worker:
        process = worker._process
        raise KeyboardInterrupt
    assert process is not None
    assert process.poll() is not None


def test_a_missing_interpreter_is_an_error() -> None:
    """The interpreter's path is in the message."""
    with pytest.raises(WorkerError, match="no-such-python"), Worker(python="/no-such-python"):
        pass


def test_progress_events_reach_the_listener(tmp_path: Path) -> None:
    """What the child says between request and answer moves the progress."""
    heard: list[tuple[object, ...]] = []

    class Listener:
        def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
            heard.append((stage, total, unit))

        def advance(self, amount: int = 1) -> None:
            heard.append((amount,))

        def finish(self) -> None:
            heard.append(())

    body = (
        'print(json.dumps({"event": "progress", "phase": "tactics", "steps": 3}), flush=True)\n'
        'print(json.dumps({"event": "step", "phase": "tactics", "step": 0}), flush=True)\n' + ANSWER
    )
    with Worker(script=script(tmp_path, body)) as worker:
        worker.ask("build", {}, timeout_s=20, progress=Listener())
    assert heard[0][1] == 3
    assert heard[1] == (1,)


def test_the_worker_folder_imports_nothing_of_this_package() -> None:
    """It runs under another interpreter, where trt_opt is not installed."""
    folder = Path(sys.modules["trt_opt.backends.process"].__file__ or "").parent / "worker"
    for file in folder.glob("*.py"):
        assert not re.search(r"^\s*(import|from) trt_opt", file.read_text(), re.MULTILINE), file.name
