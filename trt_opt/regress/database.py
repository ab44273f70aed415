"""The history's SQLite file: its tables, how it is opened, and whether it is sound."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trt_opt.errors import RequestError, StageError, StorageError, TrtOptError
from trt_opt.files import storage_error
from trt_opt.regress.rows import stored_acceptances, whole_runs

APPLICATION_ID = 0x54524F48
"""SQLite's `application_id`, "TROH": tells a history from the databases of other programs."""

HEADER = b"SQLite format 3\0"

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY NOT NULL, recorded_at TEXT NOT NULL, label TEXT NOT NULL,
        environment TEXT NOT NULL, digest TEXT NOT NULL);
    CREATE INDEX runs_by_time ON runs (recorded_at, id);
    CREATE TABLE observations (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, place INTEGER NOT NULL,
        model TEXT NOT NULL, precision TEXT NOT NULL, target TEXT NOT NULL, device TEXT NOT NULL,
        library TEXT NOT NULL, flags TEXT NOT NULL, metric TEXT NOT NULL,
        value REAL, rounds TEXT NOT NULL, problems TEXT NOT NULL,
        PRIMARY KEY (run, place),
        UNIQUE (model, precision, target, device, library, flags, metric, run));
    CREATE TABLE sources (
        sha256 TEXT NOT NULL, run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, PRIMARY KEY (sha256, run));
    CREATE TABLE accepted (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, model TEXT NOT NULL, metric TEXT NOT NULL,
        at TEXT NOT NULL, reason TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (run, model, metric));
    """,
)
"""What leads from each version of the tables to the next; the first from an empty file. Only ever added to."""

VERSION = len(MIGRATIONS)

SPOILT = (sqlite3.Error, ValueError)
"""What reading a damaged file raises: texts may be no UTF-8 any more."""

TABLES = frozenset({"runs", "observations", "sources", "accepted"})

Soundness = Literal["sound", "new", "damaged", "foreign", "newer", "older"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What a file is.

    Attributes:
        soundness: "new" where there is nothing yet, "foreign" where it is no history at all.
        detail: What was found, for "damaged", "foreign" and "newer".
    """

    soundness: Soundness
    detail: str = ""


def connect(path: Path, *, timeout_s: float, readonly: bool = False, immutable: bool = False) -> sqlite3.Connection:
    """A connection that begins transactions when it is told to; it makes no file.

    Args:
        path: The file.
        timeout_s: How long to wait for other writers.
        readonly: Whether the place cannot be written.
        immutable: Whether nobody can write it, so that SQLite needs no file beside it.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    how = "mode=ro" if readonly else "mode=rw"
    uri = f"{path.absolute().as_uri()}?{how}{'&immutable=1' if immutable else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # On return of a commit the run is on the disk, also with a write-ahead log.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def condition_of(path: Path, *, timeout_s: float) -> Condition:
    """What a file is, from its first bytes to the hash of every run.

    Raises:
        RequestError: It is a folder, or no file can be called so.
        StorageError: It cannot be read, or somebody keeps it locked.
    """
    if not _is_there(path):
        return Condition("new")
    try:
        with path.open("rb") as file:
            header = file.read(len(HEADER))
    except OSError as error:
        raise storage_error(error, path) from error
    if not header:
        return Condition("new", "the file is empty")
    if header != HEADER:
        return Condition("foreign", "it is no SQLite file")
    try:
        connection = reading_connection(path, timeout_s=timeout_s)
    except SPOILT as error:
        return _condition_from(error, path)
    try:
        return _condition(connection)
    except SPOILT as error:
        return _condition_from(error, path)
    finally:
        connection.close()


def reading_connection(path: Path, *, timeout_s: float) -> sqlite3.Connection:
    """A connection that only reads, also where nothing can be written.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    last: sqlite3.OperationalError | None = None
    for readonly, immutable in ((False, False), (True, False), (True, True)):
        log = path.with_name(path.name + "-wal")
        if immutable and log.exists() and log.stat().st_size:
            break  # What is in the write-ahead log would be missed.
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(path, timeout_s=timeout_s, readonly=readonly, immutable=immutable)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if connection is not None:
                connection.close()
            last = error
            # A full disk has no room for SQLite's index of the log: an I/O error.
            if not any(word in str(error) for word in ("readonly", "unable to open", "disk I/O")):
                raise
        except SPOILT:
            if connection is not None:
                connection.close()
            raise
        else:
            return connection
    raise last if last is not None else sqlite3.OperationalError("unable to open database file")


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the tables to this version, in one transaction.

    Raises:
        sqlite3.Error: It failed, and nothing changed.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for script in MIGRATIONS[version:]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def error_from(error: sqlite3.Error, path: Path) -> TrtOptError:
    """What to raise for what SQLite said; it has numbers for these since Python 3.11 only."""
    text = str(error)
    where = str(path)
    told: tuple[tuple[str, TrtOptError], ...] = (
        (
            "locked",
            StorageError(
                "another process keeps the history locked", where=where, hint="wait for it, or look who holds it"
            ),
        ),
        ("full", StorageError("the disk is full", where=where, hint="free space, or choose another folder")),
        (
            "readonly",
            StorageError("the history cannot be written here", where=where, hint="choose a place you may write"),
        ),
        (
            "unable to open",
            StorageError(
                "the history cannot be opened or made here", where=where, hint="choose a folder that you may write"
            ),
        ),
        (
            "disk I/O",
            StorageError(
                "reading or writing the history failed", where=where, hint="look for free space and at the disk"
            ),
        ),
    )
    for word, known in told:
        if word in text:
            return known
    return StageError(f"the history is damaged ({text})", where=where, hint="open it again: its backup is tried then")


def _condition(connection: sqlite3.Connection) -> Condition:
    found = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        return Condition("damaged", str(found[0]).splitlines()[-1])
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application != APPLICATION_ID:
        if not tables and application == 0 and version == 0:
            return Condition("new")
        return Condition("foreign", "it is another program's database")
    if version > VERSION:
        return Condition("newer", f"its tables have version {version}, and {VERSION} is understood")
    if TABLES - tables:
        return Condition("damaged", "tables are missing")
    if version < VERSION:
        return Condition("older" if version > 0 else "damaged", f"its tables say version {version}")
    problems = [*whole_runs(connection)[1], *stored_acceptances(connection)[1]]
    problems += [f"a row of {row[0]} points nowhere" for row in connection.execute("PRAGMA foreign_key_check")]
    return Condition("damaged", problems[0]) if problems else Condition("sound")


def _condition_from(error: Exception, path: Path) -> Condition:
    told = error_from(error, path) if isinstance(error, sqlite3.Error) else None
    if isinstance(told, StorageError) and "disk I/O" not in str(error):
        raise told from error
    return Condition("damaged", str(error))


def _is_there(path: Path) -> bool:
    try:
        if path.is_dir():
            raise RequestError("this is a folder, not a history", where=str(path), hint="name a file, as in H.db")
        return path.exists()
    except (OSError, ValueError) as error:
        raise RequestError(f"no file can be called so ({error})", where=f"{str(path)[:80]}…") from error
