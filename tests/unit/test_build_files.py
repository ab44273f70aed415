"""Writing one file whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trt_opt.errors import StorageError
from trt_opt.files import sha256_of_file, write_atomically


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    """UTF-8 without translated line ends, over an older file, and nothing beside it."""
    target = tmp_path / "file"
    write_atomically(target, b"\0\r\n")
    assert target.read_bytes() == b"\0\r\n"
    write_atomically(target, "é\n")
    assert target.read_bytes() == b"\xc3\xa9\n"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_is_replaced_not_overwritten(tmp_path: Path) -> None:
    """Whoever has the old file open reads all of the old content."""
    target = tmp_path / "file"
    write_atomically(target, "old")
    with target.open() as reader:
        write_atomically(target, "new")
        assert (reader.read(), target.read_text()) == ("old", "new")


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    """The mode follows the umask, as that of any new file."""
    write_atomically(tmp_path / "atomic", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """The temporary name is not longer than the system allows."""
    target = tmp_path / ("n" * 255)
    write_atomically(target, b"x")
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing/file", "no such file or folder"), ("file/below", "is a file, not a folder"), ("folder", "is a folder")],
)
def test_what_cannot_be_written_is_told(tmp_path: Path, name: str, message: str) -> None:
    """A missing folder, a file for a folder, a folder for a file; nothing is left beside them."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=message):
        write_atomically(tmp_path / name, b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


WRITER = """
import os, sys
from pathlib import Path
from trt_opt.errors import StorageError
from trt_opt.files import write_atomically
if os.geteuid() == 0:
    os.setuid(65534)  # Root may write everywhere.
try:
    write_atomically(Path(sys.argv[1]), b"x")
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="folders have no modes here")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    """Permission denied comes with advice."""
    tmp_path.chmod(0o500)
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "file")], cwd=root, capture_output=True, text=True, check=True
    )
    tmp_path.chmod(0o700)
    assert "permission denied" in told.stdout
    assert "try: choose a folder" in told.stdout


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the content goes to the disk."""

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_hashes_are_those_of_the_content(tmp_path: Path) -> None:
    """Also of a file larger than one read."""
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    with pytest.raises(StorageError, match="no such file"):
        sha256_of_file(tmp_path / "missing")
