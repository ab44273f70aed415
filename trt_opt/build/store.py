"""The engine store: one folder per engine, named after what decided it."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trt_opt.build.manifest import MANIFEST, file_problems, read_manifest
from trt_opt.build.staging import discard, staging_folder, sync_tree
from trt_opt.errors import RecipeError, RequestError, StageError
from trt_opt.files import storage_error, sync
from trt_opt.values.device import Gpu
from trt_opt.values.engine import BuildOutcome, Manifest

ENGINE = "model.engine"
GRAPH = "model.onnx"
TABLE = "table.json"
CACHE = "calibration.cache"
TIMINGS = ".timings"
CALIBRATIONS = ".calibrations"
TAIL = "tail.onnx"

_KEY = re.compile(r"[0-9a-f]{8,64}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_LONGEST_NAME = 64

_OVERTAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
"""What a rename says if another build put the entry there, or removed the model's folder while it was empty."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine of the store.

    Attributes:
        model: The model's folder name.
        key: The hash of what decided the engine.
        folder: Where its files lie.
    """

    model: str
    key: str
    folder: str

    @property
    def path(self) -> Path:
        """The folder as a path."""
        return Path(self.folder)

    @property
    def manifest_path(self) -> Path:
        """The manifest's file."""
        return self.path / MANIFEST

    def __str__(self) -> str:
        return f"{self.model}/{self.key}"


@dataclass(frozen=True, slots=True)
class Verification:
    """An entry, and all that is wrong with it.

    Attributes:
        entry: The entry.
        problems: One sentence each; none if every file is as the manifest says.
    """

    entry: Entry
    problems: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether every file is there and as recorded."""
        return not self.problems


class EngineStore:
    """`<root>/<model>/<key>/` with the engine, its graph, its calibration table and its manifest.

    Entries appear whole or not at all, so builds at the same time and killed builds do no harm.

    Args:
        root: The folder; made by the first build.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def entries(self) -> Iterator[Entry]:
        """Every entry, by model and key; none if the store does not exist."""
        for model in _folders(self.root):
            for folder in _folders(model):
                if _KEY.fullmatch(folder.name):
                    yield Entry(model.name, folder.name, str(folder))

    def find(self, model_name: str, key: str) -> BuildOutcome | None:
        """The engine with this key, or None if there is none *or one of its files is not as recorded*."""
        entry = self._entry(model_name, key)
        manifest, problems = _checked(entry)
        return _outcome(entry, manifest, reused=True) if manifest is not None and not problems else None

    def outcome(self, model_name: str, key: str, *, reused: bool) -> BuildOutcome:
        """What lies under a key.

        Raises:
            RecipeError: There is no entry, or its manifest cannot be read.
        """
        entry = self._entry(model_name, key)
        return _outcome(entry, read_manifest(entry.manifest_path), reused=reused)

    def verify(self, entry: Entry) -> Verification:
        """Checks the size and hash of every file against the manifest."""
        return Verification(entry, _checked(entry)[1])

    @contextmanager
    def stage(self, model_name: str, key: str) -> Iterator[Path]:
        """Yields an empty folder to build in; without an exception it becomes the entry, else nothing is left.

        An entry that was there before is replaced. One that another build put there meanwhile is kept if its files
        are as its manifest says: the same key means the same engine.

        Args:
            model_name: The model's name; made fit for a folder.
            key: What `build_key` returned.

        Raises:
            StorageError: The disk is full, or the store cannot be written.
            StageError: The block left no readable manifest.
        """
        entry = self._entry(model_name, key)
        before = _inode(entry.path)
        with staging_folder(self.root) as folder:
            yield folder
            try:
                read_manifest(folder / MANIFEST)
            except RecipeError as error:
                raise StageError("the build left no readable manifest", where=str(entry)) from error
            sync_tree(folder)
            self._publish(folder, entry, before)

    def journal(self, key: str) -> Path:
        """Where a search for this engine keeps what it measured until the engine is built."""
        return self.root / f".search-{key}.jsonl"

    def timing_cache(self, gpu: Gpu, library: str) -> Path:
        """Where builders keep what they timed, for later builds on the same GPU; the timings of others mislead them.

        Args:
            gpu: The GPU.
            library: Name and version of the library.
        """
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu.name} {gpu.capability} {library}").strip("-")
        return self.root / TIMINGS / f"{name}.timing"

    def calibration_cache(self, key: str) -> Path:
        """Where the cache of TensorRT's own calibration lies, for later builds from the same model and data."""
        return self.root / CALIBRATIONS / f"{key}.cache"

    def matching(self, which: str | None) -> tuple[Entry, ...]:
        """The entries that a user means.

        Args:
            which: A model's name: all its entries. The start of a key: that entry. `model/start`: that entry of that
                model. None: all entries.

        Raises:
            RequestError: Nothing matches, or more than one thing does.
        """
        entries = tuple(self.entries())
        if which is None:
            return entries
        of_model = tuple(entry for entry in entries if entry.model == which)
        model, _, start = which.rpartition("/")
        by_key = tuple(
            entry for entry in entries if start and entry.key.startswith(start) and model in ("", entry.model)
        )
        if of_model and not by_key:
            return of_model
        if len(by_key) == 1 and not of_model:
            return by_key
        raise self._no_single_match(which, entries, (*of_model, *by_key))

    def remove(self, which: str) -> tuple[Entry, ...]:
        """Removes the entries that `matching` finds, and returns them.

        Raises:
            RequestError: Nothing matches, or more than one thing does; nothing is removed then.
            StorageError: The store cannot be written.
        """
        found = self.matching(which)
        try:
            for entry in found:
                discard(entry.path, self.root)
                _remove_if_empty(entry.path.parent)
        except OSError as error:
            raise storage_error(error, self.root) from error
        return found

    def _entry(self, model_name: str, key: str) -> Entry:
        if not _KEY.fullmatch(key):
            raise RequestError(f"{key!r} is no key: 8 to 64 hexadecimal digits are", where=str(self.root))
        name = folder_name(model_name)
        return Entry(name, key, str(self.root / name / key))

    def _publish(self, folder: Path, entry: Entry, before: int | None) -> None:
        """Renames a folder into place, over whatever is there unless it came meanwhile and is good."""
        try:
            for _ in range(100):
                try:
                    entry.path.parent.mkdir(exist_ok=True)
                except FileExistsError:
                    # Another build removed the empty folder between two looks at it; a file in the way stays.
                    if entry.path.parent.is_file():
                        raise
                    continue
                now = _inode(entry.path)
                if now is not None and now != before and not self.verify(entry).problems:
                    return
                if now is not None:
                    discard(entry.path, self.root)
                try:
                    folder.rename(entry.path)
                except OSError as error:
                    if error.errno not in _OVERTAKEN or not folder.exists():
                        raise
                    continue
                sync(entry.path.parent)
                sync(self.root)
                return
        finally:
            _remove_if_empty(entry.path.parent)
        raise StageError("other builds keep changing this entry", where=entry.folder, hint="try again")

    def _no_single_match(self, which: str, entries: tuple[Entry, ...], found: tuple[Entry, ...]) -> RequestError:
        if not entries:
            return RequestError("the engine store is empty", where=str(self.root))
        listed = ", ".join(sorted({str(entry) for entry in found or entries}))
        if not found:
            return RequestError(f"no engine matches {which!r}", where=str(self.root), hint=f"there are {listed}")
        return RequestError(
            f"{which!r} matches more than one engine: {listed}", where=str(self.root), hint="write model/key"
        )


def folder_name(model_name: str) -> str:
    """A model's name, fit for a folder on every system: ASCII letters, digits, `.`, `_` and `-`, 64 at most.

    Different names may give one folder; the keys in it keep the engines apart.
    """
    ascii_name = unicodedata.normalize("NFKD", model_name).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_name).strip("-.")[:_LONGEST_NAME].rstrip("-.")
    return f"model-{name}" if _RESERVED.fullmatch(name) else name or "model"


def _checked(entry: Entry) -> tuple[Manifest | None, tuple[str, ...]]:
    """An entry's manifest, where it can be read, and all that is wrong with the entry."""
    try:
        manifest = read_manifest(entry.manifest_path)
    except RecipeError as error:
        return None, (error.what,)
    problems: list[str] = []
    for record in filter(None, (manifest.engine, manifest.graph, manifest.table, manifest.cache)):
        if Path(record.name).name != record.name:
            problems.append(f"the manifest names a file elsewhere: {record.name}")
        else:
            problems += file_problems(record, entry.path / record.name)
    return manifest, tuple(problems)


def _outcome(entry: Entry, manifest: Manifest, *, reused: bool) -> BuildOutcome:
    return BuildOutcome(str(entry.path / manifest.engine.name), str(entry.manifest_path), manifest, reused)


def _folders(parent: Path) -> list[Path]:
    """The visible folders in a folder, in order; none if it is gone."""
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _inode(folder: Path) -> int | None:
    """What tells a folder from another one under the same name later; None if there is none."""
    try:
        return folder.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # Not empty, or gone.
