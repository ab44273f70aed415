"""Writing a file whole or not at all, and hashing one; what goes wrong becomes a `StorageError`."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trt_opt.errors import RequestError, StorageError

_READ_BYTES = 1 << 20

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free space, or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free space, or choose another folder"),
    errno.EFBIG: ("the file is larger than this process or file system may write", "raise the limit (ulimit -f)"),
    errno.EACCES: ("permission denied", "choose a folder that you may write, or change its owner or mode"),
    errno.EPERM: ("permission denied", "choose a folder that you may write, or change its owner or mode"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another folder"),
    errno.EISDIR: ("this is a folder, not a file", "choose another name"),
    errno.EEXIST: ("a file of this name is in the way", "choose another folder"),
    errno.ENOENT: ("no such file or folder", None),
}

WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Error numbers that only writing gives."""


def write_atomically(path: Path, data: bytes | str) -> None:
    """Writes a file under a temporary name beside it and renames it, so that nobody ever sees half of it.

    On return the content is on the disk. An older file of that name stays until it is replaced whole. A process that
    is killed in between leaves the temporary file, `.<name>.<random>.tmp`.

    Args:
        path: The file; its folder must exist.
        data: The content; text is written as UTF-8.

    Raises:
        StorageError: The disk is full, or the folder is missing or cannot be written.
    """
    with written_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write to, which takes the place of `path` once the block ends without an exception.

    See `write_atomically`, which is for content that is in memory already.

    Raises:
        StorageError: The disk is full, or the folder is missing or cannot be written.
    """
    # A short name, so that a long one does not become too long.
    temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        StorageError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
    except OSError as error:
        raise storage_error(error, path) from error
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Returns once a file's content, or a folder's list of names, is on the disk.

    Folders are skipped on Windows, which has no such call.
    """
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(error: OSError, path: Path, *, hint: str | None = None) -> StorageError:
    """The error to raise for what the operating system said about a path."""
    reason, advice = _REASONS.get(error.errno or 0, (error.strerror or str(error), None))
    return StorageError(reason, where=str(path), hint=hint or advice)


def require_free(output: Path, *, force: bool, source: str | None = None) -> Path:
    """The path of a file to write, if it may be written.

    Args:
        output: The path.
        force: Whether a file that is there may be overwritten.
        source: The file that is read, which may never be.

    Raises:
        RequestError: It exists and `force` is not given, it is the source, or no file can be written there.
    """
    is_folder, exists = _found(output, "file")
    if is_folder or not output.name:
        raise RequestError("this is a folder, not a file", where=str(output), hint="name the file to write")
    if exists and source is not None and Path(source).exists() and output.samefile(source):
        raise RequestError("the output is the model itself", where=str(output), hint="name another file with -o")
    if exists and not force:
        raise RequestError("the output file exists already", where=str(output), hint="--force overwrites it")
    _require_parent(output)
    return output


def require_free_folder(output: Path, *, force: bool) -> Path:
    """The path of a folder to write, if it may be written.

    Raises:
        RequestError: It exists and `force` is not given, it is a file, or no folder can be written there.
    """
    is_folder, exists = _found(output, "folder")
    if exists and not is_folder:
        raise RequestError("this is a file, not a folder", where=str(output), hint="name the folder to write")
    if exists and not force:
        raise RequestError("the output folder exists already", where=str(output), hint="--force writes into it")
    _require_parent(output.absolute())
    return output


def _found(output: Path, kind: str) -> tuple[bool, bool]:
    """Whether a path is a folder, and whether it exists at all."""
    try:
        return output.is_dir(), output.exists()
    except OSError as error:
        raise RequestError(f"no {kind} can be called so ({error.strerror})", where=f"{str(output)[:80]}…") from error


def _require_parent(output: Path) -> None:
    if not output.parent.is_dir():
        raise RequestError("the folder to write into does not exist", where=str(output.parent))
