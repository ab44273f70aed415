"""Where a machine's Pythons lie."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from trt_opt.backends.probing import holds, root

THIS = "this one"
SYSTEM = "system"
PATH = "PATH"

PYTHON_NAMES = r"python3(\.\d+)?"


def located(text: str) -> Path:
    """The file that a name, a path or the folder of a virtual environment means, whether it exists or not."""
    path = _with_home(Path(text))
    if os.sep not in text:
        on_path = shutil.which(text)
        path = Path(on_path) if on_path else path
    if holds(path.is_dir):
        path = next(iter(_existing(path / "bin" / "python3", path / "bin" / "python")), path)
    # Not resolved: a virtual environment's Python is a link to another one.
    return path.absolute()


def places() -> list[tuple[str, Path]]:
    """Where Pythons are found, in the order in which they are considered: (origin, file)."""
    found = [(THIS, Path(sys.executable))]
    found += [(SYSTEM, path) for path in _pythons_in(root() / "usr" / "bin")]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        # pyenv's shims stand for interpreters that are found below; `python3` alone says which of them is meant.
        names = r"python3" if Path(folder).name == "shims" else PYTHON_NAMES
        found += [(PATH, path) for path in _pythons_in(Path(folder), names)] if Path(folder).is_absolute() else []
    for variable, origin in (("VIRTUAL_ENV", "virtual environment"), ("CONDA_PREFIX", "conda")):
        if os.environ.get(variable):
            found.append((origin, Path(os.environ[variable], "bin", "python")))
    return found + [("conda", path) for path in _conda()] + [("pyenv", path) for path in _pyenv()]


def _pythons_in(folder: Path, names: str = PYTHON_NAMES) -> list[Path]:
    """The Pythons of a folder: `python3` first, then the newest."""
    pythons = [path for path in _listed(folder) if re.fullmatch(names, path.name) and os.access(path, os.X_OK)]
    return sorted((path for path in pythons if holds(path.is_file)), key=_age)


def _age(path: Path) -> int:
    minor = path.name.partition(".")[2]
    return -int(minor) if minor else -1_000


def _conda() -> Iterator[Path]:
    executable = os.environ.get("CONDA_EXE") or shutil.which("conda")
    if executable:
        home = Path(executable).resolve().parent.parent
        yield from _existing(home / "bin" / "python", *(folder / "bin" / "python" for folder in _listed(home / "envs")))


def _pyenv() -> Iterator[Path]:
    home = _with_home(Path(os.environ.get("PYENV_ROOT") or "~/.pyenv"))
    yield from _existing(*(folder / "bin" / "python3" for folder in _listed(home / "versions")))


def _with_home(path: Path) -> Path:
    """The path with the user's home for `~`; as it is where nobody knows that home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _existing(*files: Path) -> list[Path]:
    return [file for file in files if holds(file.exists)]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
