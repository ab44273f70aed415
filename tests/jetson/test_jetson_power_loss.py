"""The scripts, killed before every step that changes the disk: what is in place is whole, and a second run heals.

Every program that changes files is replaced by one that counts, and at the Nth call kills the whole process group with
SIGKILL before doing anything. What a disk loses that was never synced cannot be tried this way.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_board import SCRIPTS, SHELLS, BuiltEngine, FakeBoard, made_board
from made_bundle import write_bundle

STEPS = ("chmod", "cp", "ln", "mkdir", "mktemp", "mv", "rm", "sync", "tar")


def fitted(board: FakeBoard) -> None:
    """Replaces the programs that change files by counting ones."""
    for name in STEPS:
        board.program(
            name,
            f"""\
            read -r count <"$TRT_OPT_FAKE_BOARD/steps"
            read -r fatal <"$TRT_OPT_FAKE_BOARD/fatal"
            count=$((count + 1))
            echo "$count" >"$TRT_OPT_FAKE_BOARD/steps"
            [ "$count" != "$fatal" ] || kill -KILL 0
            PATH=/usr/bin:/bin exec {name} "$@"
            """,
        )


HERE = [words for name, words in SHELLS.items() if shutil.which(name)]
"""The shells that are here; each step is tried with the next one."""


def killed_at(board: FakeBoard, step: int, script: str, *arguments: str | Path) -> int:
    """Runs a script that dies at a step (0: never), and returns its exit code."""
    (board.root / "steps").write_text("0\n")
    (board.root / "fatal").write_text(f"{step}\n")
    return subprocess.run(
        [*HERE[step % len(HERE)], str(SCRIPTS / script), *map(str, arguments)],
        env=board.environment(),
        cwd=board.root,
        capture_output=True,
        start_new_session=True,
        timeout=60,
        check=False,
    ).returncode


def last_steps(board: FakeBoard, *command: str | Path) -> Iterator[int]:
    """The last ten steps of a command, and the one behind them; those before are another test's."""
    killed_at(board, 0, *map(str, command))
    total = int((board.root / "steps").read_text())
    return iter(range(max(1, total - 9), total + 2))


def assert_whole(folder: Path) -> None:
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    listed = {line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == listed | {"SHA256SUMS"}
    assert "VERDICT=PASS\n" in (folder / "record.conf").read_text()


def hidden(folder: Path) -> list[str]:
    """Temporary folders and links."""
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".lock")


@pytest.fixture
def board(tmp_path: Path) -> FakeBoard:
    board = made_board(tmp_path)
    fitted(board)
    board.program("tegrastats", "echo RAM\n")
    return board


@pytest.mark.parametrize("forced", [False, True], ids=["first build", "forced over an older engine"])
def test_build_killed_at_every_step(board: FakeBoard, tmp_path: Path, forced: bool) -> None:
    """A result folder is absent or whole after every kill, and the next run leaves one whole result and nothing else.

    A forced build that is killed never costs the older engine: the next run, even one that fails, has it back.
    """
    engines = tmp_path / "engines"
    bundle = write_bundle(tmp_path / "app.bundle", {"SAMPLES": "1"})
    command = ("build_on_device.sh", "--engines", engines, *(["--force"] if forced else []), bundle)
    steps: Iterator[int] = itertools.count(1)
    if forced:
        assert killed_at(board, 0, *command) == 0
        steps = last_steps(board, *command)
    for step in steps:
        if not forced:
            subprocess.run(["rm", "-rf", engines], check=True)
        code = killed_at(board, step, *command)
        for result in engines.glob("made_by_hand/*"):
            assert_whole(result)
        board.set(build_fails=forced)
        assert killed_at(board, 0, *command) in ({0, 4} if forced else {0})
        board.set(build_fails=False)
        (result,) = engines.glob("made_by_hand/*")
        assert_whole(result)
        assert hidden(engines) == []
        if code != -9:
            break
    assert code == 0
    assert step > 12


@pytest.fixture
def folders(built_engine: BuiltEngine, tmp_path: Path) -> tuple[Path, Path]:
    """Two engines."""
    return built_engine("old", tmp_path / "engines"), built_engine("new", tmp_path / "engines")


def targets(board: FakeBoard, tmp_path: Path, *folders: Path) -> Iterator[Path]:
    """The same target folder as often as it is wanted, these engines installed one after the other."""
    made = tmp_path / "made"
    for folder in folders:
        assert killed_at(board, 0, "install_engine.sh", "--check", "true", folder, made) == 0
    target = tmp_path / "target"
    while True:
        subprocess.run(["rm", "-rf", target], check=True)
        yield Path(shutil.copytree(made, target, symlinks=True))


@pytest.mark.parametrize("check", [(), ("--check", "true")], ids=["samples", "check"])
def test_install_killed_at_every_step(
    board: FakeBoard, tmp_path: Path, folders: tuple[Path, Path], check: tuple[str, ...]
) -> None:
    """`current` is the whole old or the whole new engine after every kill; the next run finishes and cleans up."""
    old, new = folders
    seen = set()
    again = targets(board, tmp_path, old)
    steps = itertools.count(1) if check else last_steps(board, "install_engine.sh", new, next(again))
    for step, target in zip(steps, again, strict=False):
        code = killed_at(board, step, "install_engine.sh", *check, new, target)
        for release in (target / "releases").glob("[!.]*"):
            assert_whole(release)
        seen.add((target / "current").resolve(strict=True).name[:3])
        assert killed_at(board, 0, "install_engine.sh", "--check", "true", new, target) == 0
        assert_whole(target / "current")
        assert (target / "current").readlink().name.startswith("new")
        assert (target / "previous").readlink().name.startswith("old")
        assert hidden(target) == []
        if code != -9:
            break
    assert code == 0
    assert step > 8
    assert seen == {"old", "new"}


@pytest.mark.parametrize("what", ["rollback", "failing check"])
def test_way_back_killed_at_every_step(board: FakeBoard, tmp_path: Path, folders: tuple[Path, Path], what: str) -> None:
    """A kill on the way back to the old engine leaves the old or the new one whole, and a rollback still works."""
    target = tmp_path / "target"
    command = ("--rollback", target) if what == "rollback" else ("--check", "false", folders[1], target)
    again = targets(board, tmp_path, *folders[: 2 if what == "rollback" else 1])
    next(again)
    for step, _ in zip(last_steps(board, "install_engine.sh", *command), again, strict=False):
        code = killed_at(board, step, "install_engine.sh", *command)
        assert_whole(target / "current")
        assert killed_at(board, 0, "install_engine.sh", *command) in {0, 1, 2}
        assert (target / "current").readlink().name.startswith("old")
        assert_whole(target / "current")
        if code != -9:
            break
    assert code == (0 if what == "rollback" else 1)
    assert step > 3
