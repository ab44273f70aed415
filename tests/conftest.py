"""Where tests find their helpers, and what they share."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

_numbers = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a log elsewhere."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("TRT_OPT_LOG", str(tmp_path / "log.txt"))
    return here


@pytest.fixture
def module(folder: Path) -> Callable[[str], str]:
    """Writes a module of a name never used before into the current folder and returns the name."""

    def write(body: str) -> str:
        name = f"written_by_test_{next(_numbers)}"
        (folder / f"{name}.py").write_text("import numpy as np\n" + textwrap.dedent(body))
        return name

    return write
