"""The engine store under real processes, a real kill and a real full disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_entries import KEY, fill

from trt_opt.build.staging import STALE_AFTER_S
from trt_opt.build.store import ENGINE, EngineStore
from trt_opt.errors import StorageError
from trt_opt.files import write_atomically

TESTS = Path(__file__).parents[1]

BUILDER = """
import sys, time
from pathlib import Path
from store_entries import fill
from trt_opt.build.store import EngineStore
root, key, word, count = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(count)):
    with EngineStore(Path(root)).stage("net", key) as folder:
        fill(folder, word.encode() * 1000)
print("done", flush=True)
"""

STUCK = """
import sys, time
from pathlib import Path
from trt_opt.build.store import EngineStore
with EngineStore(Path(sys.argv[1])).stage("net", "0123456789abcdef") as folder:
    (folder / "model.engine").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""

LIMITED = """
import resource, sys
from pathlib import Path
from trt_opt.build.store import EngineStore
from trt_opt.errors import StorageError
from trt_opt.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store = EngineStore(Path(sys.argv[1]))
try:
    with store.stage("net", "0123456789abcdef") as folder:
        write_atomically(folder / "model.engine", b"x" * 100_000)
except StorageError as error:
    print(error)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_builds_at_once_leave_one_sound_entry(tmp_path: Path) -> None:
    """Four processes build the same key ten times each: every moment's entry is sound, and nothing is left over."""
    builders = [start(BUILDER, tmp_path / "engines", KEY, word, 10) for word in "abcd"]
    try:
        for builder in builders:
            assert _line(builder) == "ready\n"
        for builder in builders:
            assert builder.stdin is not None
            builder.stdin.write("go\n")
            builder.stdin.flush()
        results = [builder.communicate(timeout=60)[0] for builder in builders]
    finally:
        for builder in builders:
            builder.kill()
            builder.wait()
    assert results == ["done\n"] * 4
    store = EngineStore(tmp_path / "engines")
    (entry,) = store.entries()
    assert store.verify(entry).is_good
    assert (entry.path / ENGINE).read_bytes() in {word.encode() * 1000 for word in "abcd"}
    assert [path.name for path in store.root.iterdir()] == ["net"]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_killed_build_is_invisible_and_cleaned_up(tmp_path: Path) -> None:
    """After kill -9 there is no entry, and the next build removes what was left."""
    store = EngineStore(tmp_path / "engines")
    process = start(STUCK, store.root)
    assert _line(process) == "ready\n"
    (staging,) = store.root.iterdir()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (staging / ENGINE).read_bytes() == b"half"
    assert list(store.entries()) == []
    os.utime(staging, (time.time() - STALE_AFTER_S - 10,) * 2)
    with pytest.raises(ValueError, match="x"), store.stage("net", KEY):
        raise ValueError("x")
    assert not staging.exists()


def test_an_interrupted_process_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in mid-build."""
    process = start(STUCK, tmp_path / "engines")
    assert _line(process) == "ready\n"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    process.communicate()
    assert not (tmp_path / "engines").exists()


def test_a_file_size_limit_is_told(tmp_path: Path) -> None:
    """A file that may not grow (ulimit -f) ends the build with a message, and nothing is left."""
    pytest.importorskip("resource", reason="this system has no resource limits")
    output, _ = start(LIMITED, tmp_path / "engines").communicate(timeout=30)
    assert "the file is larger than" in output
    assert not (tmp_path / "engines").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_left_as_it_was(small_disk: Path) -> None:
    """A build larger than the disk says how much is needed, and the sound entry before it stays."""
    store = EngineStore(small_disk / "engines")
    with store.stage("net", KEY) as folder:
        fill(folder)
    with (
        pytest.raises(StorageError, match=r"the disk is full[\s\S]*more than 0\.[1-9] MB are needed"),
        store.stage("net", "f" * 16) as folder,
    ):
        fill(folder, b"x" * 1_000_000)
    with (
        pytest.raises(StorageError, match=r"the disk is full[\s\S]*more than 0\.[1-9] MB are needed"),
        store.stage("net", "e" * 16) as folder,
    ):
        write_atomically(folder / ENGINE, b"x" * 1_000_000)
    assert [str(entry) for entry in store.entries()] == [f"net/{KEY}"]
    assert store.find("net", KEY) is not None
    assert [path.name for path in store.root.iterdir()] == ["net"]
    target = small_disk / "file"
    write_atomically(target, "old")
    with pytest.raises(StorageError, match="the disk is full"):
        write_atomically(target, b"x" * 1_000_000)
    assert (target.read_text(), sorted(path.name for path in small_disk.iterdir())) == ("old", ["engines", "file"])
