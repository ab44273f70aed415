"""Hashes of what was fed, so that a result can say which data it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from trt_opt.errors import DataError
from trt_opt.values.samples import Sample

_BLOCK_BYTES = 1 << 20


class Hasher(Protocol):
    """What hashlib's objects can do."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far, as hexadecimal text."""


def sha256_from_file(path: Path) -> str:
    """The hash of a file's bytes: what `sha256sum` prints.

    Raises:
        DataError: The file cannot be read.
    """
    hasher = hashlib.sha256()
    _add_file(hasher, path)
    return hasher.hexdigest()


def sha256_from_folder(paths: Iterable[Path], preprocess: str | None = None) -> str:
    """The hash of files' names, sizes and bytes in the order given, and of the preprocessing's text.

    Raises:
        DataError: A file cannot be read.
    """
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        _add_file(hasher, path)
    if preprocess is not None:
        hasher.update(f"\0preprocess\0{preprocess}".encode())
    return hasher.hexdigest()


def add_sample(hasher: Hasher, sample: Sample) -> None:
    """Adds names, types, shapes and bytes of a sample's arrays to a hash; the sample's own name is left out."""
    arrays = dict(sorted(sample.feed.items()))
    if sample.label is not None:
        arrays["\0label"] = sample.label
    hasher.update(f"{len(arrays)}\0".encode())
    for name, array in arrays.items():
        # Of records, `dtype.str` tells the size only.
        kind = array.dtype.str if array.dtype.names is None else str(array.dtype)
        hasher.update(f"{name}\0{kind}\0{array.shape}\0".encode())
        hasher.update(array.tobytes())


def _add_file(hasher: Hasher, path: Path) -> None:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                hasher.update(block)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
