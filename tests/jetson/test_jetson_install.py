"""install_engine.sh on a fake board: the switch, the check, the way back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_board import SCRIPTS, SHELLS, BuiltEngine, FakeBoard, made_board, shell_of, tree

Engine = Callable[[str], Path]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return shell_of(request.param)


@pytest.fixture
def board(tmp_path: Path) -> FakeBoard:
    """A board on which everything goes well."""
    return made_board(tmp_path)


@pytest.fixture
def engine(board: FakeBoard, built_engine: BuiltEngine) -> Engine:
    """The folder of an engine built from a bundle of a name, on this board."""
    return lambda name: built_engine(name, board.root / "engines")


def install(board: FakeBoard, shell: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return board.run(shell, "install_engine.sh", *arguments)


def current(target: Path) -> str:
    """The name with which the release in use was built; nothing if none is."""
    link = target / "current"
    return link.readlink().name.rsplit("-", 1)[0] if link.is_symlink() else ""


def releases(target: Path) -> list[str]:
    return sorted(path.name for path in (target / "releases").iterdir())


def test_install_switches_and_keeps_two(board: FakeBoard, engine: Engine, shell: str) -> None:
    """Each install puts its engine in use; the one before stays to go back to, older ones go."""
    target = board.root / "tar get"
    for name in ("old", "new", "third"):
        done = install(board, shell, engine(name), target)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(target / "current")
        assert current(target) == name
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=target / "current", check=True)
    assert [name.rsplit("-", 1)[0] for name in releases(target)] == ["new", "third"]
    assert not list((board.root / "tmp").iterdir())


def test_keep_three(board: FakeBoard, engine: Engine) -> None:
    """--keep counts all releases, those in use included, and drops the oldest."""
    target = board.root / "target"
    for name in ("old", "new", "third", "fourth"):
        assert install(board, "dash", "--keep", "3", engine(name), target).returncode == 0
        time.sleep(0.02)
    assert [name.rsplit("-", 1)[0] for name in releases(target)] == ["fourth", "new", "third"]


def test_installing_twice_changes_nothing(board: FakeBoard, engine: Engine) -> None:
    """A second install of what is in use ends well and leaves every file and link as it was."""
    target = board.root / "target"
    assert install(board, "dash", engine("old"), target).returncode == 0
    new = engine("new")
    assert install(board, "dash", new, target).returncode == 0
    before = tree(target), (target / "previous").readlink()
    assert install(board, "dash", new, target).returncode == 0
    assert (tree(target), (target / "previous").readlink()) == before


def test_failed_check_brings_the_old_engine_back(board: FakeBoard, engine: Engine, shell: str) -> None:
    """The check sees the new engine; when it says no the old one is in use again, and the check sees that too."""
    target = board.root / "target"
    assert install(board, shell, engine("old"), target).returncode == 0
    check = f'echo "$TRT_OPT_ENGINE $(readlink "{target}/current")" >>seen; ! readlink "{target}/current" | grep -q new'
    done = install(board, shell, "--check", check, engine("new"), target)
    assert done.returncode == 1
    assert "passes it" in done.stderr
    assert current(target) == "old"
    new, old = (board.root / "seen").read_text().splitlines()
    assert "releases/new-" in new
    assert "releases/old-" in old
    assert new.startswith(str(target / "current" / "model.engine"))


def test_failed_check_of_the_first_engine_leaves_none(board: FakeBoard, engine: Engine) -> None:
    """With nothing to go back to, an engine that fails is not left in use."""
    target = board.root / "target"
    done = install(board, "dash", "--check", "exit 3", engine("old"), target)
    assert done.returncode == 1
    assert current(target) == ""


def test_wrong_outputs_are_found_before_the_switch(board: FakeBoard, engine: Engine, shell: str) -> None:
    """Without --check the samples are run, and an engine that answers wrongly never comes into use."""
    target = board.root / "target"
    assert install(board, shell, engine("old"), target).returncode == 0
    new = engine("new")
    board.set(outputs="nan")
    assert install(board, shell, new, target).returncode == 1
    assert current(target) == "old"


def test_rollback(board: FakeBoard, engine: Engine, shell: str) -> None:
    """--rollback goes back once; a second time there is nothing, and that changes nothing."""
    target = board.root / "target"
    assert install(board, shell, "--rollback", target).returncode == 2
    for name in ("old", "new"):
        assert install(board, shell, engine(name), target).returncode == 0
    assert install(board, shell, "--rollback", "--dry-run", target).returncode == 0
    assert current(target) == "new"
    assert install(board, shell, "--rollback", target).returncode == 0
    assert current(target) == "old"
    assert install(board, shell, "--rollback", target).returncode == 2
    assert current(target) == "old"


def test_damaged_release_is_not_gone_back_to(board: FakeBoard, engine: Engine) -> None:
    """Neither --rollback nor a failed check puts a damaged release in use."""
    target = board.root / "target"
    for name in ("old", "new"):
        assert install(board, "dash", engine(name), target).returncode == 0
    (target / "previous" / "model.engine").write_text("damaged")
    assert install(board, "dash", "--rollback", target).returncode == 2
    assert current(target) == "new"


def test_damaged_release_is_installed_again(board: FakeBoard, engine: Engine) -> None:
    """Installing over a damaged release in use puts a whole copy in use, under another name."""
    target = board.root / "target"
    folder = engine("old")
    assert install(board, "dash", folder, target).returncode == 0
    (target / "current" / "model.engine").write_text("damaged")
    assert install(board, "dash", folder, target).returncode == 0
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=target / "current", check=True)


def spoil_engine(folder: Path) -> None:
    (folder / "model.engine").write_text("other")


def add_file(folder: Path) -> None:
    (folder / "more").write_text("")


def drop_record(folder: Path) -> None:
    (folder / "record.conf").unlink()


def link_engine(folder: Path) -> None:
    shutil.move(folder / "model.engine", folder.parent / "elsewhere")
    (folder / "model.engine").symlink_to("../elsewhere")


def resum(folder: Path) -> None:
    subprocess.run(
        "find . -type f ! -name SHA256SUMS -exec sha256sum {} + | sed 's| [.]/| |' >SHA256SUMS",
        shell=True,
        cwd=folder,
        check=True,
    )


def say_fail(folder: Path) -> None:
    record = folder / "record.conf"
    record.write_text(record.read_text().replace("VERDICT=PASS", "VERDICT=FAIL"))
    resum(folder)


def say_other_hash(folder: Path) -> None:
    spoil_engine(folder)
    resum(folder)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(spoil_engine, 2), (add_file, 2), (drop_record, 2), (link_engine, 2), (say_fail, 1), (say_other_hash, 2)],
)
def test_spoilt_folder_is_refused(board: FakeBoard, engine: Engine, spoil, code: int) -> None:  # type: ignore[no-untyped-def]
    """A folder that is not as it was built, or whose verdict is no PASS, changes nothing at the target."""
    folder = engine("old")
    spoil(folder)
    target = board.root / "target"
    done = install(board, "dash", folder, target)
    assert done.returncode == code, done.stderr
    assert not target.exists()


def test_engine_of_another_machine_is_refused(board: FakeBoard, engine: Engine) -> None:
    """An engine built by another TensorRT or on another model of board is refused with 3."""
    folder = engine("old")
    board.set(tensorrt="10.16.1")
    assert install(board, "dash", folder, board.root / "target").returncode == 3
    board.set(tensorrt="10.3.0")
    board.file("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    done = install(board, "dash", folder, board.root / "target")
    assert (done.returncode, "AGX Orin" in done.stderr) == (3, True)


def test_wrong_requests(board: FakeBoard, engine: Engine) -> None:
    """What makes no sense ends with 2, a missing trtexec with 5, a full disk with 5; nothing is in use after it."""
    folder = engine("old")
    target = board.root / "target"
    for arguments in (
        ("--keep", "1", folder, target),
        (folder,),
        (folder, target, target),
        ("", target),
        ("--odd", folder, target),
    ):
        assert install(board, "dash", *arguments).returncode == 2
    (board.root / "file").write_text("")
    assert install(board, "dash", folder, board.root / "file").returncode == 2
    target.mkdir()
    (target / "current").mkdir()
    assert install(board, "dash", folder, target).returncode == 2
    (target / "current").rmdir()
    board.program("df", "echo Filesystem 1024-blocks Used Available; echo /dev/x 1000 990 10 99% /\n")
    assert install(board, "dash", folder, target).returncode == 5
    (board.programs / "df").unlink()
    (board.programs / "trtexec").unlink()
    assert install(board, "dash", folder, target).returncode == 5
    assert current(target) == ""
    assert install(board, "dash", "--check", "true", folder, target).returncode == 0


@pytest.mark.parametrize("link", ["current", "previous"])
@pytest.mark.parametrize("to", ["/etc", "../other", "releases/..", "releases/old/model.engine"])
def test_link_of_somebody_else_is_refused(board: FakeBoard, engine: Engine, link: str, to: str) -> None:
    """A `current` that no install made is not taken over, and stays as it is."""
    target = board.root / "target"
    target.mkdir()
    (target / link).symlink_to(to)
    done = install(board, "dash", "--check", "true", engine("old"), target)
    assert (done.returncode, "somebody else" in done.stderr) == (2, True)
    assert str((target / link).readlink()) == to


def test_folder_of_somebody_else_is_not_dropped(board: FakeBoard, engine: Engine) -> None:
    """Only releases are dropped when there are more than wanted."""
    target = board.root / "target"
    (target / "releases" / "precious").mkdir(parents=True)
    for name in ("old", "new", "third"):
        assert install(board, "dash", "--check", "true", engine(name), target).returncode == 0
    assert [name.rsplit("-", 1)[0] for name in releases(target)] == ["new", "precious", "third"]


def test_dry_run_changes_nothing(board: FakeBoard, engine: Engine) -> None:
    """--dry-run runs the samples and makes no folder."""
    done = install(board, "dash", "--dry-run", engine("old"), board.root / "target")
    assert done.returncode == 0, done.stderr
    assert "would install old-" in done.stderr
    assert not (board.root / "target").exists()


def test_second_install_at_the_same_time_is_refused(board: FakeBoard, engine: Engine, shell: str) -> None:
    """While one waits for its check another ends at once; Ctrl-C ends the first and brings the old engine back."""
    target = board.root / "target"
    assert install(board, shell, engine("old"), target).returncode == 0
    folder = engine("new")
    waiting = subprocess.Popen(
        [*SHELLS[shell], str(SCRIPTS / "install_engine.sh"), "--check", "touch waiting; sleep 30", folder, target],
        env=board.environment(),
        cwd=board.root,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until = time.monotonic() + 30
    while not (board.root / "waiting").exists():
        assert time.monotonic() < until, "never came to the check"
        time.sleep(0.05)
    assert current(target) == "new"
    second = install(board, shell, folder, target)
    assert (second.returncode, "another run" in second.stderr) == (4, True)
    waiting.send_signal(signal.SIGINT)
    since = time.monotonic()
    waiting.communicate(timeout=40)
    assert waiting.returncode == 130
    assert time.monotonic() - since < 10
    assert current(target) == "old"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd finds nothing to say about the template, once the program is one that is here."""
    text = (SCRIPTS / "trt-opt-engine@.service").read_text()
    unit = tmp_path / "trt-opt-engine@camera.service"
    unit.write_text(text.replace("/opt/trt-opt/%i/run", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
