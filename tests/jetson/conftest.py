"""Engines that were built once, for the tests of what is done with them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from fake_board import BuiltEngine, made_board
from made_bundle import write_bundle

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))


@pytest.fixture(scope="session")
def built_engine(tmp_path_factory: pytest.TempPathFactory) -> BuiltEngine:
    """Puts a copy of the folder that build_on_device.sh keeps for a bundle of some name into another folder."""
    base = tmp_path_factory.mktemp("built")
    built: dict[str, Path] = {}

    def copy(name: str, folder: Path) -> Path:
        if name not in built:
            board = made_board(base / name)
            bundle = write_bundle(base / f"{name}.bundle", {"NAME": name})
            done = board.run("dash", "build_on_device.sh", "--engines", base / name / "engines", bundle)
            assert done.returncode == 0, done.stderr
            built[name] = Path(done.stdout.strip())
        return Path(shutil.copytree(built[name], folder / name / built[name].name, dirs_exist_ok=True))

    return copy
