"""The history's backup: written after every change, and what a damaged history is recovered from."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from trt_opt.errors import RequestError, StageError, StorageError
from trt_opt.files import storage_error, sync
from trt_opt.regress.database import SPOILT, Condition, condition_of, connect, error_from, reading_connection
from trt_opt.regress.rows import StoredRun, in_order, insert, stored_runs


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done about a damaged history.

    Attributes:
        problem: What was wrong.
        aside: Where the damaged file is now; None where there was none.
        recovered: Runs that are there again.
        salvaged: How many of them came from the damaged file and not from the backup.
        lost: Runs whose traces the damaged file still shows and whose figures are gone.
        newest: When the newest run that is left was recorded.
    """

    problem: str
    aside: Path | None
    recovered: int
    salvaged: int
    lost: tuple[str, ...]
    newest: str | None

    def __str__(self) -> str:
        """The recovery, for the user."""
        aside = "" if self.aside is None else f"; the damaged file is {self.aside.name}"
        salvaged = f" and {self.salvaged} out of the damaged file" if self.salvaged else ""
        lost = f"lost: {', '.join(self.lost)}" if self.lost else "no run is known to be lost"
        newest = f", the newest of {self.newest}" if self.newest else ""
        return (
            f"the history was damaged ({self.problem}) and is recovered: {self.recovered - self.salvaged} runs from "
            f"its backup{salvaged}{newest}; {lost}{aside}"
        )


def backup_path(path: Path) -> Path:
    """Where the backup of a history is."""
    return path.with_name(path.name + ".bak")


def write_backup(connection: sqlite3.Connection, path: Path) -> None:
    """Copies the history beside itself, whole or not at all.

    SQLite's write lock is held meanwhile: of two writers the later one writes the later backup.

    Raises:
        StorageError: It cannot be written; the backup before it is still there.
        sqlite3.Error: The history cannot be read.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        _remove_unfinished(path)
        temporary = _temporary(path)
        try:
            # SQLite copies nothing through a connection that holds the write lock itself.
            reading = closing(reading_connection(path, timeout_s=1.0))
            with reading as source, closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
                # A backup is one file: no write-ahead log beside it.
                copy.execute("PRAGMA journal_mode = DELETE")
                found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StageError(f"the history is damaged ({found}); its backup stays as it was", where=str(path))
            sync(temporary)
            temporary.replace(backup_path(path))
            sync(path.parent)
        except OSError as error:
            raise storage_error(error, backup_path(path)) from error
        except sqlite3.Error as error:
            raise error_from(error, backup_path(path)) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    finally:
        connection.execute("ROLLBACK")


def recover(path: Path, found: Condition, *, timeout_s: float) -> Recovery:
    """Puts the backup in the place of a damaged history, with every sound run of the damaged file in it.

    The caller keeps everybody else away from both files.

    Raises:
        RequestError: There is no backup, and the file may not be a history at all.
        StageError: The backup is damaged too.
        StorageError: The disk is full, or nothing can be written there.
    """
    kept = _kept(path, found, timeout_s)
    salvaged, lost = _salvage(path, {stored.run.id for stored in kept}, timeout_s)
    runs = in_order([*kept, *salvaged])
    temporary = _temporary(path)
    try:
        _write_copy(backup_path(path), temporary, salvaged)
        aside = _set_aside(path)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise storage_error(error, path, hint=f"{path.name} is damaged: {found.detail}") from error
    except sqlite3.Error as error:
        raise error_from(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    newest = runs[-1].run.recorded_at if runs else None
    return Recovery(found.detail or "it is missing", aside, len(runs), len(salvaged), lost, newest)


def _kept(path: Path, found: Condition, timeout_s: float) -> list[StoredRun]:
    """The backup's runs."""
    backup = backup_path(path)
    state = condition_of(backup, timeout_s=timeout_s) if backup.exists() else Condition("new", "there is none")
    if state.soundness == "sound":
        with closing(reading_connection(backup, timeout_s=timeout_s)) as connection:
            return stored_runs(connection)[0]
    if found.soundness == "foreign":
        raise RequestError(
            f"this is not a history of trt-opt: {found.detail}; it is left as it is",
            where=str(path),
            hint="name another file with --history",
        )
    raise StageError(
        f"the history is damaged ({found.detail}), and so is its backup ({state.detail or state.soundness})",
        where=str(path),
        hint=f"put an older copy in its place, or move {path.name} and {backup.name} away to begin anew",
    )


def _salvage(path: Path, known: set[str], timeout_s: float) -> tuple[list[StoredRun], tuple[str, ...]]:
    """The damaged file's sound runs that the backup lacks, and the names of those that cannot be read."""
    try:
        with closing(connect(path, timeout_s=timeout_s)) as connection:
            connection.execute("PRAGMA query_only = ON")
            try:
                names = {str(row[0]) for row in connection.execute("SELECT id FROM runs")}
            except SPOILT:
                names = set()
            try:
                runs = [stored for stored in stored_runs(connection)[0] if stored.run.id not in known]
            except SPOILT:
                runs = []
    except SPOILT:
        return [], ()
    lost = names - known - {stored.run.id for stored in runs}
    return runs, tuple(sorted(name for name in lost if re.fullmatch(r"[\w.-]{1,64}", name)))


def _write_copy(backup: Path, temporary: Path, more: list[StoredRun]) -> None:
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("BEGIN")
        for stored in more:
            insert(copy, stored)
        copy.execute("COMMIT")
    sync(temporary)


def _set_aside(path: Path) -> Path | None:
    """Gives the damaged file another name, which its write-ahead log gets too; it stays in place until replaced."""
    if not path.exists():
        return None
    date = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.corrupt-{date}")
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt-{date}-{secrets.token_hex(2)}")
    try:
        os.link(path, aside)
    except OSError:  # A file system without hard links.
        path.replace(aside)
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        log.replace(aside.with_name(aside.name + "-wal"))
    log.unlink(missing_ok=True)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)  # An index into the log, made anew when it is missing.
    return aside


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.copy")


def _remove_unfinished(path: Path) -> None:
    """Copies of killed processes: whoever holds the write lock is the only one who may have one."""
    pattern = re.compile(rf"\.{re.escape(path.name[:64])}\.[0-9a-f]{{8}}\.copy(-journal)?")
    try:
        names = [one for one in path.absolute().parent.iterdir() if pattern.fullmatch(one.name)]
        for one in names:
            one.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(error.strerror or str(error), where=str(path.parent)) from error
