"""Reading a bundle that nobody vouches for: all is checked before anything is unpacked, and again while it is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from trt_opt.build.manifest import record_of_file
from trt_opt.bundling.archive import HINT, Entry, entries_of, looks_like_archive
from trt_opt.bundling.conf import conf_text
from trt_opt.bundling.layout import (
    CONF,
    DESCRIPTION,
    ELEMENT_TYPES,
    MODEL,
    MOST_SAMPLES,
    MOST_TENSORS,
    SUMS,
    names_of,
    sizes_of,
    sums_text,
)
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.files import storage_error
from trt_opt.graph.tensors import tensors_of
from trt_opt.values.bundle import FORMAT, Bundle, BundleReport
from trt_opt.values.codec import value_from_json
from trt_opt.values.engine import FileRecord

SUFFIX = ".bundle"

LARGEST_TEXT_BYTES = 64_000_000
"""Of the files that are read as a whole: a description of ten thousand layers has a tenth of it."""

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle whose files lie in a folder that goes away with it.

    Attributes:
        bundle: The description.
        folder: The files.
        sha256: A hash of all that is in it.
    """

    bundle: Bundle
    folder: Path
    sha256: str


def is_bundle(path: Path) -> bool:
    """Whether a file is meant as a bundle: it begins as an archive does, or is called so."""
    return path.is_file() and (looks_like_archive(path) or path.suffix == SUFFIX)


def bundle_from_file(path: Path) -> Bundle:
    """The description of a bundle of which every byte was checked.

    Raises:
        RequestError: There is no such file, or it is no bundle, damaged, cut short, or holds what no bundle holds.
        StorageError: It cannot be read.
    """
    with _opened(path) as file:
        return _checked(file, str(path))[0]


def looked_at(path: Path) -> BundleReport:
    """A bundle of which every byte was checked, as a report.

    Raises:
        RequestError: As `bundle_from_file` says.
        StorageError: It cannot be read.
    """
    bundle = bundle_from_file(path)
    return BundleReport(replace(record_of_file(path), name=str(path)), bundle, written=False)


@contextmanager
def opened_bundle(path: Path) -> Iterator[OpenedBundle]:
    """Checks a bundle and unpacks it into a new folder that only this user may enter.

    Raises:
        RequestError: As `bundle_from_file` says; nothing has been unpacked then.
        StorageError: It cannot be read, or unpacked.
    """
    with _opened(path) as file, tempfile.TemporaryDirectory(prefix="trt-opt-bundle-") as name:
        bundle, entries, hashes = _checked(file, str(path))
        folder = Path(name)
        for entry in entries:
            target = folder / entry.name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as copy:
                    digest = _hash_of(file, entry, copy)
            except OSError as error:
                raise storage_error(error, folder) from error
            if digest != hashes[entry.name]:
                raise RequestError("the bundle changed while it was read", where=str(path), hint="try again")
        yield OpenedBundle(bundle, folder, hashes[SUMS])


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if not path.is_file():
        raise RequestError("there is no such bundle", where=str(path), hint="check the path")
    try:
        file = path.open("rb")
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        yield file


def _checked(file: BinaryIO, where: str) -> tuple[Bundle, tuple[Entry, ...], dict[str, str]]:
    """The description, the entries and their hashes, once everything fits together."""
    entries = entries_of(file, where)
    hashes = {entry.name: _hash_of(file, entry) for entry in entries}
    by_name = {entry.name: entry for entry in entries}
    _check_sums(_text(file, by_name[SUMS], where), hashes, where)
    if DESCRIPTION not in by_name:
        raise RequestError(f"the bundle has no {DESCRIPTION}", where=where, hint=HINT)
    bundle = _description(_text(file, by_name[DESCRIPTION], where), where)
    _check_names(bundle, by_name, where)
    _check_records(bundle, by_name, hashes, where)
    _check_conf(bundle, _text(file, by_name[CONF], where), where)
    _check_model(_content(file, by_name[MODEL]), where)
    return bundle, entries, hashes


def _check_sums(text: str, hashes: Mapping[str, str], where: str) -> None:
    wanted = {name: digest for name, digest in hashes.items() if name != SUMS}
    if text == sums_text(wanted):
        return
    listed = {line[66:]: line[:64] for line in text.splitlines()}
    damaged = [name for name, digest in wanted.items() if name in listed and listed[name] != digest]
    if damaged:
        raise RequestError(f"{damaged[0]} is not what {SUMS} says", where=where, hint=HINT)
    odd = sorted(set(listed) ^ set(wanted))
    told = f"lists other files than there are: {odd[0]!r}" if odd else "is not written as a bundle's is"
    raise RequestError(f"{SUMS} {told}", where=where, hint=HINT)


def _description(text: str, where: str) -> Bundle:
    """The description, with numbers that files can have."""
    place = f"{where}: {DESCRIPTION}"
    try:
        bundle = value_from_json(Bundle, text, where=place)
    except RecursionError as error:
        raise RequestError("it is nested too deeply", where=place) from error
    if bundle.format != FORMAT:
        raise RequestError(f"format {bundle.format} was found, {FORMAT} is understood", where=place)
    odd = [given.dtype for given in bundle.inputs if given.dtype not in ELEMENT_TYPES]
    if odd:
        raise RequestError(f"no input of a bundle has the element type {odd[0]!r}", where=place)
    if not (1 <= bundle.samples <= MOST_SAMPLES and bundle.outputs):
        raise RequestError("it promises no samples, or no outputs, to compare", where=place)
    if max(len(bundle.inputs), len(bundle.outputs)) > MOST_TENSORS:
        raise RequestError("it promises more inputs or outputs than a bundle can number", where=place)
    shapes = [*(given.shape for given in bundle.inputs), *(output.shape for output in bundle.outputs)]
    if any(size < 0 for shape in shapes for size in shape):
        raise RequestError("a size is negative", where=place)
    return bundle


def _check_names(bundle: Bundle, entries: Mapping[str, Entry], where: str) -> None:
    wanted, found = set(names_of(bundle)), set(entries) - {SUMS}
    if wanted - found:
        raise RequestError(f"the bundle lacks {min(wanted - found)}, which it promises", where=where, hint=HINT)
    if found - wanted:
        raise RequestError(
            f"the bundle holds {min(found - wanted)}, which it does not speak of", where=where, hint=HINT
        )


def _check_records(bundle: Bundle, entries: Mapping[str, Entry], hashes: Mapping[str, str], where: str) -> None:
    """Sizes and hashes against the description."""
    found = tuple(
        FileRecord(entry.name, entry.size, hashes[entry.name])
        for entry in entries.values()
        if entry.name not in (SUMS, DESCRIPTION)
    )
    if bundle.files != found:
        odd = sorted({record.name for record in set(bundle.files) ^ set(found)}) or [DESCRIPTION]
        raise RequestError(f"{odd[0]} is not the file that {DESCRIPTION} speaks of", where=where, hint=HINT)
    for name, size in sizes_of(bundle):
        if entries[name].size != size:
            raise RequestError(f"{name} has {entries[name].size} bytes, and {size} follow from its shape", where=where)


def _check_conf(bundle: Bundle, text: str, where: str) -> None:
    model = next(record for record in bundle.files if record.name == MODEL)
    try:
        agrees = text == conf_text(bundle, model)
    except UnsupportedModelError as error:
        raise RequestError(
            f"a name in {DESCRIPTION} is not one a bundle can have: {error.where}", where=where
        ) from error
    if not agrees:
        raise RequestError(f"{CONF} and {DESCRIPTION} do not say the same", where=where, hint=HINT)


def _check_model(content: bytes, where: str) -> None:
    """Refuses a graph that would make its reader open other files of this machine."""
    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise RequestError(f"{MODEL} is not an ONNX model", where=where, hint=HINT) from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors_of(model)):
        raise RequestError(f"{MODEL} points to files outside the bundle, which are not read", where=where)


def _text(file: BinaryIO, entry: Entry, where: str) -> str:
    if entry.size > LARGEST_TEXT_BYTES:
        raise RequestError(f"{entry.name} is larger than that of any bundle", where=where)
    try:
        return _content(file, entry).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{entry.name} is not text", where=where, hint=HINT) from error


def _content(file: BinaryIO, entry: Entry) -> bytes:
    file.seek(entry.offset)
    return file.read(entry.size)


def _hash_of(file: BinaryIO, entry: Entry, copy: BinaryIO | None = None) -> str:
    """The SHA-256 of an entry's content, which is written to `copy` meanwhile."""
    digest = hashlib.sha256()
    file.seek(entry.offset)
    left = entry.size
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        digest.update(piece)
        if copy is not None:
            copy.write(piece)
        left -= len(piece)
    return digest.hexdigest()
