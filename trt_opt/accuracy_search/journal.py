"""What a search has measured, kept in a file beside the output so that an interrupted search goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from trt_opt.errors import RecipeError, StageError
from trt_opt.values.codec import json_from_value, value_from_json

T = TypeVar("T")


class Journal:
    """An append-only file of measurements; the search asks it first and runs only what it does not know.

    A search is deterministic, so one that is started again asks the same questions in the same order, gets the answers
    that were measured before the interruption from the file, and goes on from there.

    Args:
        path: The file; None keeps nothing. One that was written for another key is begun anew.
        key: What decides every measurement: model, data, options, version.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._key = key
        self._known = _entries(path, key) if path is not None else {}
        self._begun = bool(self._known)
        self.recalled = 0

    @property
    def kept_in(self) -> Path | None:
        """The file, once something is in it."""
        return self._path if self._begun else None

    def recall(self, name: str, kind: type[T]) -> T | None:
        """What was measured under this name before; None if nothing was."""
        text = self._known.get(name)
        if text is None:
            return None
        try:
            found = value_from_json(kind, text, where=str(self._path))
        except RecipeError:  # written by a version that measured something else
            return None
        self.recalled += 1
        return found

    def keep(self, name: str, value: object) -> None:
        """Adds a measurement; it is on the disk when this returns.

        Raises:
            StageError: The file cannot be written.
        """
        text = json_from_value(value)
        self._known[name] = text
        if self._path is None:
            return
        lines = [] if self._begun else [json.dumps({"key": self._key})]
        lines.append(json.dumps({"name": name, "value": text}))
        try:
            with self._path.open("a" if self._begun else "w", encoding="utf-8") as file:
                file.write("".join(f"\n{line}" for line in lines))  # a line cut off by a crash ends here
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StageError(f"the search's journal cannot be written: {error}", where=str(self._path)) from error
        self._begun = True

    def done(self) -> None:
        """Removes the file: its search is finished."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _entries(path: Path, key: str) -> dict[str, str]:
    """The measurements in a file; none if it is missing or for another key. Lines cut off by a crash are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    entries = [entry for entry in map(_entry, lines) if entry]
    if not entries or entries[0].get("key") != key:
        return {}
    return {entry["name"]: entry["value"] for entry in entries if {"name", "value"} <= set(entry)}


def _entry(line: str) -> dict[str, str]:
    """A line's object; empty where it is none of strings."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    is_good = isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values())
    return entry if is_good else {}
