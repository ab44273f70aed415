"""The history: every figure of every run, in one SQLite file that several processes may write at the same time."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType

from trt_opt.errors import RequestError, TrtOptError
from trt_opt.files import storage_error
from trt_opt.regress.backup import backup_path, recover, write_backup
from trt_opt.regress.database import Condition, condition_of, connect, error_from, migrate, reading_connection
from trt_opt.regress.locks import lock
from trt_opt.regress.rows import (
    Acceptance,
    StoredRun,
    insert,
    insert_acceptance,
    moment_of,
    moment_text,
    observation_of,
    storable,
    stored_acceptances,
    stored_runs,
)
from trt_opt.values.history import Observation, Run, SeriesKey

TIMEOUT_S = 30.0
"""How long to wait for other writers; one run takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A figure in its series.

    Attributes:
        run: The run's id.
        recorded_at: UTC, ISO 8601.
        label: The run's label.
        environment: The run's.
        observation: The figure.
    """

    run: str
    recorded_at: str
    label: str
    environment: Mapping[str, str]
    observation: Observation


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        added: Runs that are new.
        known: Runs that were there already, with the same figures.
    """

    added: tuple[str, ...]
    known: tuple[str, ...]


class History:
    """A history, opened in a `with` block.

    Every opening reads the whole file and holds every run against its hash. A damaged file is set aside and recovered
    from its backup; `notes` says so.

    Args:
        path: The file; made if need be when it is to be written.
        writable: Whether runs are to be recorded.
        timeout_s: How long to wait for other writers.

    Raises:
        RequestError: There is none, it is no history, or one of a newer version.
        StageError: It and its backup are damaged.
        StorageError: It cannot be read or written, or is locked for too long.
    """

    def __init__(self, path: Path | str, *, writable: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        self.path = Path(path)
        self.notes: tuple[str, ...] = ()
        self._writable, self._timeout_s = writable, timeout_s
        self._held = ExitStack()
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> History:
        try:
            self._make_sound()
            with self._translated():
                made = connect if self._writable else reading_connection
                self._connection = made(self.path, timeout_s=self._timeout_s)
                self._held.callback(self._connection.close)
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._translated():
                self._held.close()
        finally:
            self._connection = None

    def record(self, run: Run, *, sources: Sequence[str] = (), force: bool = False) -> bool:
        """Keeps a run, and says whether it is new.

        Args:
            run: The run.
            sources: SHA-256 of the result files it comes from.
            force: Whether files may be recorded that were before.

        Raises:
            RequestError: Another run has its id, or the files were recorded before.
            StorageError: The disk is full, or the history is locked for too long; nothing was recorded.
        """
        stored = StoredRun(storable(run), tuple(sorted(set(sources))))
        with self._change() as connection:
            if not force:
                self._require_new(connection, stored.sources)
            return self._insert(connection, stored)

    def add(
        self,
        observations: Sequence[Observation],
        *,
        label: str = "",
        environment: Mapping[str, str],
        sources: Sequence[str] = (),
        force: bool = False,
    ) -> Run:
        """Records figures as a new run, which becomes the newest whatever the clock says.

        Raises:
            RequestError: The files were recorded before.
            StorageError: The disk is full, or the history is locked for too long; nothing was recorded.
        """
        with self._change() as connection:
            if not force:
                self._require_new(connection, tuple(sources))
            (newest,) = connection.execute("SELECT max(recorded_at) FROM runs").fetchone()
            at = _after(datetime.now(timezone.utc), newest)
            identity = f"{at.strftime('%Y%m%dT%H%M%S%fZ')}-{secrets.token_hex(3)}"
            run = storable(Run(identity, moment_text(at), label, dict(environment), tuple(observations)))
            insert(connection, StoredRun(run, tuple(sorted(set(sources)))))
        return run

    def accept(self, run: str, reason: str, *, model: str = "", metric: str = "") -> Acceptance:
        """Says that what changed with a run is meant: series begin anew with it.

        Raises:
            RequestError: There is no such run, or it has no such figure.
            StorageError: It cannot be written.
        """
        if not reason.strip():
            raise RequestError("an accepted change needs a reason", hint="--reason TEXT")
        acceptance = Acceptance(self.run(run).id, model, metric, moment_text(datetime.now(timezone.utc)), reason)
        if not any(acceptance.covers(one.key, one.metric) for one in self.run(run).observations):
            raise RequestError("this run has no such figure", where=run, hint="trt-opt regress show")
        with self._change() as connection:
            insert_acceptance(connection, acceptance)
        return acceptance

    def acceptances(self) -> tuple[Acceptance, ...]:
        """What was accepted, by run."""
        with self._translated():
            found, _ = stored_acceptances(self._opened)
        return tuple(one for run in sorted(found) for one in found[run])

    def times(self) -> dict[str, str]:
        """Every run's id and when it was recorded, the oldest first."""
        with self._translated():
            return dict(self._opened.execute("SELECT id, recorded_at FROM runs ORDER BY recorded_at, id").fetchall())

    def stored(self) -> tuple[StoredRun, ...]:
        """Every run with what is kept beside it, the oldest first."""
        with self._translated():
            runs, problems = stored_runs(self._opened)
        if problems:
            raise error_from(sqlite3.DatabaseError(problems[0]), self.path)
        return tuple(runs)

    def runs(self) -> tuple[Run, ...]:
        """Every run, the oldest first."""
        return tuple(stored.run for stored in self.stored())

    def run(self, identity: str | None = None) -> Run:
        """The newest run, or the one whose id begins so.

        Raises:
            RequestError: There is none, or several begin so.
        """
        runs = self.runs()
        if identity is not None:
            exact = [run for run in runs if run.id == identity]
            runs = tuple(exact) or tuple(run for run in runs if identity and run.id.startswith(identity))
            if len(runs) > 1:
                raise RequestError(f"{len(runs)} runs begin with {identity!r}", where=str(self.path))
        if not runs:
            what = "nothing is recorded yet" if identity is None else f"there is no run {identity!r}"
            raise RequestError(what, where=str(self.path), hint="trt-opt regress record RESULT.json")
        return runs[-1]

    def names(self) -> tuple[tuple[SeriesKey, str], ...]:
        """Every series: its key and its metric, sorted."""
        query = "SELECT DISTINCT model, precision, target, device, library, flags, metric FROM observations"
        with self._translated():
            rows = self._opened.execute(f"{query} ORDER BY 1, 2, 3, 4, 5, 6, 7").fetchall()
        return tuple((SeriesKey(*row[:6]), row[6]) for row in rows)

    def series(self, key: SeriesKey, metric: str) -> tuple[Entry, ...]:
        """A series in order of time, the newest last, valid or not and from every environment."""
        query = (
            "SELECT id, recorded_at, label, environment, model, precision, target, device, library, flags, metric, "
            "value, rounds, problems FROM observations JOIN runs ON run = id WHERE model = ? AND precision = ? AND "
            "target = ? AND device = ? AND library = ? AND flags = ? AND metric = ? ORDER BY recorded_at, id"
        )
        asked = (key.model, key.precision, key.target, key.device, key.library, key.flags, metric)
        with self._translated():
            rows = self._opened.execute(query, asked).fetchall()
        return tuple(
            Entry(run, at, label, json.loads(environment), observation_of(row))
            for run, at, label, environment, *row in rows
        )

    def take(self, runs: Sequence[StoredRun]) -> Imported:
        """Adds the runs of another history, all or none; those that are here already are left out.

        Raises:
            RequestError: A run of this id is here with other figures.
            StorageError: It cannot be written.
        """
        added: list[str] = []
        known: list[str] = []
        with self._change() as connection:
            for stored in runs:
                own = StoredRun(storable(stored.run), stored.sources, stored.acceptances)
                (added if self._insert(connection, own) else known).append(stored.run.id)
                for acceptance in own.acceptances:
                    insert_acceptance(connection, acceptance)
        return Imported(tuple(added), tuple(known))

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RequestError("the history is not open", where=str(self.path))
        return self._connection

    def _make_sound(self) -> None:
        """Returns with a sound file and a lock that keeps it in its place."""
        self._held.enter_context(self._locked(alone=False))
        found = condition_of(self.path, timeout_s=self._timeout_s)
        if found.soundness == "sound":
            return
        self._require_understood(found)
        self._held.close()
        with self._locked(alone=True):
            # Somebody else may have mended it meanwhile.
            self._mend(condition_of(self.path, timeout_s=self._timeout_s))
        self._held.enter_context(self._locked(alone=False))

    def _require_understood(self, found: Condition) -> None:
        if found.soundness == "newer":
            raise RequestError(
                f"the history is of a newer trt-opt: {found.detail}", where=str(self.path), hint="update trt-opt"
            )
        if found.soundness == "new" and not self._writable and not backup_path(self.path).exists():
            raise RequestError(
                "there is no history", where=str(self.path), hint="trt-opt regress record RESULT.json --history …"
            )
        if not self.path.absolute().parent.is_dir():
            raise RequestError("the folder of the history does not exist", where=str(self.path.absolute().parent))

    def _mend(self, found: Condition) -> None:
        if found.soundness == "sound":
            return
        if found.soundness in ("damaged", "foreign") or (found.soundness == "new" and backup_path(self.path).exists()):
            recovery = recover(self.path, found, timeout_s=self._timeout_s)
            self.notes += (str(recovery),)
        with self._translated():
            if not self.path.exists():
                self._touch()
            connection = connect(self.path, timeout_s=self._timeout_s)
            try:
                migrate(connection)
            finally:
                connection.close()

    def _touch(self) -> None:
        try:
            self.path.touch()
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _locked(self, *, alone: bool) -> AbstractContextManager[None]:
        return lock(self.path, alone=alone, timeout_s=self._timeout_s)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise error_from(error, self.path) from error

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction, and a new backup behind it."""
        if not self._writable:
            raise RequestError("the history is open for reading only", where=str(self.path))
        connection = self._opened
        with self._translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        try:
            with self._translated():
                write_backup(connection, self.path)
        except TrtOptError as error:
            self.notes += (f"it is recorded, but the backup could not be written: {error}",)

    def _insert(self, connection: sqlite3.Connection, stored: StoredRun) -> bool:
        row = connection.execute("SELECT digest FROM runs WHERE id = ?", (stored.run.id,)).fetchone()
        if row is None:
            insert(connection, stored)
            return True
        if row[0] != stored.digest:
            raise RequestError(
                f"another run with the id {stored.run.id} is in the history, with other content",
                where=str(self.path),
                hint="nothing was taken; one of the two was changed by hand",
            )
        return False

    def _require_new(self, connection: sqlite3.Connection, sources: Sequence[str]) -> None:
        for sha256 in sources:
            row = connection.execute("SELECT run FROM sources WHERE sha256 = ? LIMIT 1", (sha256,)).fetchone()
            if row is not None:
                raise RequestError(
                    f"this result is recorded already, as run {row[0]}",
                    where=str(self.path),
                    hint="measure again, or --force records it once more",
                )


def _after(now: datetime, newest: str | None) -> datetime:
    """Now, or the moment after the newest run, where the clock was set back."""
    if newest is None:
        return now
    try:
        return max(now, moment_of(newest, newest) + timedelta(microseconds=1))
    except OverflowError:
        return now
