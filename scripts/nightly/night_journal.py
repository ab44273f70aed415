"""What a night has done so far, kept so that nothing is done twice; and the lock that keeps two nights apart."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
"""In every dated folder; a folder without it is not ours, and is never removed."""


class LockedError(Exception):
    """Another run with the same output is under way."""


@dataclass(frozen=True)
class Entry:
    """A step that ended.

    Attributes:
        step: "bench/digits-int8-cpu".
        fingerprint: Of its command and of what that reads.
        status: "done", "no" (the gate said no), "failed" or "skipped".
        code: The exit code; negative is a signal's number.
        seconds: How long it took.
        reason: Why it is not "done"; or what there is to be said.
        facts: What later steps want to know.
    """

    step: str
    fingerprint: str
    status: str
    code: int
    seconds: float
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """The steps of one dated folder; a line that a crash tore is left out."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._entries: dict[str, Entry] = {}
        text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
        for line in text.splitlines():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self._entries[entry.step] = entry
        if text and not text.endswith("\n"):
            self._append("\n")
        elif not text:
            self._append("")

    def finished(self, step: str, fingerprint: str, made: Sequence[Path]) -> Entry | None:
        """The step, if it ended with an answer, for the same inputs, and what it made is there."""
        entry = self._entries.get(step)
        if entry is None or entry.fingerprint != fingerprint or entry.status not in ("done", "no"):
            return None
        return entry if all(path.exists() for path in made) else None

    def write(self, entry: Entry) -> None:
        """Keeps a step."""
        self._entries[entry.step] = entry
        self._append(json.dumps(asdict(entry)) + "\n")

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def fingerprint_of(words: Sequence[str], files: Sequence[str | Path]) -> str:
    """Of a command and of the files it reads: their names, sizes and times; of a folder those of all in it."""
    found = hashlib.sha256("\0".join(words).encode())
    for path in map(Path, files):
        for one in sorted(path.rglob("*")) if path.is_dir() else (path,):
            try:
                state = one.stat()
            except OSError:
                found.update(f"{one} is missing".encode())
                continue
            if not one.is_dir():
                found.update(f"{one} {state.st_size} {state.st_mtime_ns}".encode())
    return found.hexdigest()[:16]


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Keeps every other run with this output out; the kernel lets go of it when this process ends, however it ends.

    Raises:
        LockedError: Another run holds it.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise LockedError(f"{output}: another run is under way (process {file.read().strip() or '?'})") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def remove_old(output: Path, keep: int, night: str) -> list[str]:
    """Removes the oldest dated folders beyond `keep`, never this night's; gives their names."""
    if keep == 0:
        return []
    dated = sorted(
        one.name
        for one in output.iterdir()
        if re.match(r"\d{4}-\d{2}-\d{2}", one.name) and not one.is_symlink() and (one / JOURNAL).is_file()
    )
    old = [name for name in dated[: max(0, len(dated) - keep)] if name != night]
    for name in old:
        # The journal goes last, so that what is left of an interrupted removal is known as ours.
        for inner in (output / name).iterdir():
            if inner.name != JOURNAL:
                shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
        shutil.rmtree(output / name)
    return old
