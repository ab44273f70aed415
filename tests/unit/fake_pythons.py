"""Pythons and packages that are not what they seem, as real files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HANGS = "/bin/sleep 600"
CRASHES = "kill -SEGV $$"
PRINTS_SOMETHING_ELSE = "echo hello world"
PRINTS_WITHOUT_END = "/usr/bin/yes"

PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
"""Where this machine's Pythons are, whatever a test says of it later."""


def script(file: Path, body: str) -> Path:
    """A shell script where a Python is expected."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def python_with(file: Path, site: Path, python: str = sys.executable) -> Path:
    """A Python that has the packages of a folder."""
    return script(file, f'PYTHONPATH={site} exec {python} "$@"')


def package(site: Path, name: str, body: str) -> Path:
    """A package in a folder of packages; gives that folder."""
    (site / name).mkdir(parents=True, exist_ok=True)
    (site / name / "__init__.py").write_text(body)
    return site


def installed(site: Path, name: str, version: str) -> None:
    """What pip leaves of a package beside it."""
    (site / f"{name}-{version}.dist-info").mkdir(parents=True)


def tensorrt(site: Path, version: str = "10.3.0") -> Path:
    """A module that calls itself TensorRT, and that ends the process when one of its classes is made."""
    body = f"import os\n__version__ = {version!r}\nclass Runtime:\n    def __init__(self, *_):\n        os.abort()\n"
    return package(site, "tensorrt", body + "Builder = Logger = Runtime\n")


def python_of_version(version: str) -> str | None:
    """A Python of a minor version, from pyenv or the PATH."""
    found = sorted(PYENV.glob(f"versions/{version}.*/bin/python"))
    if found:
        return str(found[-1])
    on_path = shutil.which(f"python{version}")
    works = on_path and subprocess.run([on_path, "-c", ""], check=False, capture_output=True).returncode == 0
    return on_path if works else None
