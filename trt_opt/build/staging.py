"""Folders that become an entry of the store whole, or vanish."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_opt.errors import StorageError
from trt_opt.files import WRITE_ERRORS, storage_error, sync

STALE_AFTER_S = 60
"""A dead process's folder is left alone this long: a process of another container may only look dead."""

FOREIGN_STALE_AFTER_S = 7 * 24 * 3600
"""Whether a process of another machine lives cannot be asked; no build takes a week."""

_FOLDER = re.compile(r"\.staging-(?P<host>[A-Za-z0-9_-]+)-(?P<pid>\d+)-[0-9a-f]+")


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """Yields a new folder under `root`, and removes it with all that is left in it at the end.

    `root` is made if need be, and removed again if nothing was added to it. Folders of killed processes are removed.

    Raises:
        StorageError: The folder cannot be made, or the block ran into a full disk.
    """
    made: list[Path] = []
    folder = _new_name(root)
    try:
        made += [parent for parent in (root, *root.parents) if not parent.exists()]
        _make(root, folder)
        remove_stale(root)
        yield folder
    except OSError as error:
        if not _is_about(error, root):
            raise
        raise storage_error(error, root, hint=_space_hint(error, folder)) from error
    except StorageError as error:
        error.hint = _space_hint(error.__cause__, folder) or error.hint
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            _remove_if_empty(parent)


def sync_tree(folder: Path) -> None:
    """Returns once all that is in a folder is on the disk."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def discard(folder: Path, root: Path) -> None:
    """Removes a folder in one step for everybody who looks; the space is freed afterwards."""
    grave = _new_name(root)
    try:
        folder.rename(grave)
    except FileNotFoundError:
        return
    shutil.rmtree(grave, ignore_errors=True)


def remove_stale(root: Path) -> None:
    """Removes staging folders that nobody will finish: of dead processes of this machine, and very old ones."""
    for folder in root.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match is None:
            continue
        try:
            age_s = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue
        is_dead = match["host"] == _host() and not _may_run(int(match["pid"]))
        if age_s > (STALE_AFTER_S if is_dead else FOREIGN_STALE_AFTER_S):
            shutil.rmtree(folder, ignore_errors=True)


def _new_name(root: Path) -> Path:
    return root / f".staging-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _make(root: Path, folder: Path) -> None:
    # A failing build beside this one may remove the root, empty still, between the two calls.
    for _ in range(10):
        root.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileNotFoundError:
            continue
        return
    folder.mkdir()


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # Somebody uses it, or it never came to be.


def _may_run(pid: int) -> bool:
    if os.name != "posix":
        return True  # Signal 0 would end the process there.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())[:32] or "host"


def _is_about(error: OSError, root: Path) -> bool:
    """Whether an error is the store's and not, say, that of an input file that cannot be read."""
    if error.errno in WRITE_ERRORS:
        return True
    name = error.filename
    return isinstance(name, (str, os.PathLike)) and Path(name).absolute().is_relative_to(root.absolute())


def _space_hint(error: BaseException | None, folder: Path) -> str | None:
    """How much was too little, where the disk is full: what was written plus what is left."""
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or not folder.is_dir():
        return None
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    enough_bytes = written + shutil.disk_usage(folder).free
    return f"more than {enough_bytes / 1e6:.1f} MB are needed: free space, or choose another --output"
