"""The archive of a bundle: ustar, written in one way only, so that reading need admit nothing else.

The format is POSIX.1-1988's (`pax`, "ustar Interchange Format"). Every header is compared as a whole with the one that
would be written for the entry's name and size: links, devices, folders, owners, dates, long names and all of the
format's extensions are refused without a rule of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trt_opt.bundling.layout import SUMS, is_known_name
from trt_opt.errors import RequestError
from trt_opt.files import written_whole

BLOCK_BYTES = 512

RECORD_BYTES = 20 * BLOCK_BYTES
"""An archive is filled up to a multiple of this with zeros, as `tar` does."""

LARGEST_FILE_BYTES = 8**11 - 1
"""Eleven octal digits."""

HINT = "copy the file again, in binary mode; if that does not help, make the bundle again"

_MAGIC = slice(257, 265)

_KINDS = {
    b"\0": "an entry of an old archive format",
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a named pipe",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "a long name",
    b"K": "a long name",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a file's content lies in the archive."""

    name: str
    offset: int
    size: int


def looks_like_archive(path: Path) -> bool:
    """Whether a file begins as a ustar archive does; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(BLOCK_BYTES)[_MAGIC].startswith(b"ustar")
    except OSError:
        return False


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes an archive whole or not at all, the files in the order given.

    Raises:
        StorageError: The disk is full, or the folder cannot be written.
    """
    with written_whole(path) as file:
        for name, content in files.items():
            file.write(header(name, len(content)))
            file.write(content)
            file.write(bytes(-len(content) % BLOCK_BYTES))
        file.write(bytes(2 * BLOCK_BYTES))
        file.write(bytes(-file.tell() % RECORD_BYTES))


def header(name: str, size: int) -> bytes:
    """The one header of a file: readable for all, without owner, date and anything else.

    Raises:
        RequestError: The format cannot hold a file of this size.
    """
    if size > LARGEST_FILE_BYTES:
        raise RequestError(f"a bundle cannot hold a file of {size} bytes", where=name)
    before = name.encode("ascii").ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0"
    before += b"%011o\0" % size + b"00000000000\0"
    behind = b"0".ljust(101, b"\0") + b"ustar\0" + b"00" + bytes(64) + 2 * b"0000000\0" + bytes(167)
    checksum = sum(before) + 8 * ord(" ") + sum(behind)  # the checksum's own field counts as blanks
    return before + b"%06o\0 " % checksum + behind


def entries_of(file: BinaryIO, where: str) -> tuple[Entry, ...]:
    """Every file of an archive; nothing but headers is read, and nothing that `write_archive` would not have written.

    Args:
        file: The archive, which can be walked about in.
        where: Its name, for error messages.

    Raises:
        RequestError: It is cut short, damaged, or holds what no bundle holds; nothing has been written then.
    """
    total = file.seek(0, os.SEEK_END)
    if total % RECORD_BYTES or not total:
        raise RequestError("the bundle is cut short, or something was added to it", where=where, hint=HINT)
    found: dict[str, Entry] = {}
    offset = 0
    while (block := _block(file, offset)).strip(b"\0"):
        entry = _entry(block, offset + BLOCK_BYTES, where)
        end = entry.offset + entry.size
        if end + -end % BLOCK_BYTES + 2 * BLOCK_BYTES > total:
            raise RequestError(f"the bundle is cut short in {entry.name}", where=where, hint=HINT)
        if entry.name in found:
            raise RequestError(f"the bundle holds {entry.name} twice", where=where, hint=HINT)
        if _between(file, end, end + -end % BLOCK_BYTES).strip(b"\0"):
            raise RequestError(f"something was added behind {entry.name}", where=where, hint=HINT)
        found[entry.name] = entry
        offset = end + -end % BLOCK_BYTES
    end = offset + 2 * BLOCK_BYTES
    if end + -end % RECORD_BYTES != total or _between(file, offset, total).strip(b"\0"):
        raise RequestError("something was added behind the bundle's end", where=where, hint=HINT)
    names = list(found)
    if names[:1] != [SUMS] or names[1:] != sorted(names[1:]):
        raise RequestError("the bundle's files are not in a bundle's order", where=where, hint=HINT)
    return tuple(found.values())


def _entry(block: bytes, offset: int, where: str) -> Entry:
    name = block[:100].split(b"\0")[0].decode("ascii", "backslashreplace")
    told = re.sub(r"[^ -~]", "?", name)
    if not block[_MAGIC].startswith(b"ustar"):
        raise RequestError("this is no bundle, or a damaged one", where=where, hint=HINT)
    kind = block[156:157]
    if kind != b"0":
        what = _KINDS.get(kind, "something unknown")
        raise RequestError(f"the bundle holds {what} ({told!r}), and only plain files belong there", where=where)
    if name.startswith(("/", "\\")) or ".." in name.split("/"):
        raise RequestError(f"the bundle holds a file that would land elsewhere: {told!r}", where=where)
    if not is_known_name(name):
        raise RequestError(f"the bundle holds a file that no bundle has: {told!r}", where=where)
    size = re.fullmatch(rb"[0-7]{11}", block[124:135])
    if size is None or block != header(name, int(size[0], 8)):
        raise RequestError(f"the header of {name} is damaged, or not one of a bundle", where=where, hint=HINT)
    return Entry(name, offset, int(size[0], 8))


def _block(file: BinaryIO, offset: int) -> bytes:
    return _between(file, offset, offset + BLOCK_BYTES)


def _between(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)
