"""Runs as rows of the history, and back."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from trt_opt.errors import RequestError
from trt_opt.values.codec import plain_from_value
from trt_opt.values.history import Observation, Run, SeriesKey

KEY_COLUMNS = ("model", "precision", "target", "device", "library", "flags")
Row = Sequence[object]

_OBSERVED = "model, precision, target, device, library, flags, metric, value, rounds, problems"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A change that the user said is meant: figures from this run on are no longer held against older ones.

    Attributes:
        run: The first run of the new level.
        model: The model it is about; "" is every one.
        metric: The metric it is about; "" is every one.
        at: UTC, ISO 8601.
        reason: Why.
    """

    run: str
    model: str
    metric: str
    at: str
    reason: str

    def covers(self, key: SeriesKey, metric: str) -> bool:
        """Whether a series is meant."""
        return self.model in ("", key.model) and self.metric in ("", metric)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run with what the history keeps beside it.

    Attributes:
        sources: SHA-256 of the result files it came from.
        acceptances: What was accepted with it.
    """

    run: Run
    sources: tuple[str, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of the run and its sources, which tells bytes that changed on the disk."""
        return _digest_of_rows(_run_row(self.run), [_row(one) for one in self.run.observations], self.sources)


def digest_of(plain: object) -> str:
    """SHA-256 of what JSON can hold, whatever the order of its mappings."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def storable(run: Run) -> Run:
    """The run as it is read back: numbers as float, NaN for what is no number, the time with microseconds.

    Raises:
        RequestError: A text cannot be stored, the time is none, or two figures belong to one series.
    """
    seen: set[tuple[SeriesKey, str]] = set()
    for observation in run.observations:
        if not observation.key.model.strip():
            raise RequestError("a figure needs the name of a model", where=run.id, hint="--model NAME")
        if (observation.key, observation.metric) in seen:
            raise RequestError(
                f"two figures of one run belong to one series: {observation.metric} of {observation.key}",
                hint="record them one by one, or name the models apart with --model",
            )
        seen.add((observation.key, observation.metric))
    try:
        json.dumps(plain_from_value(run), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RequestError("a name holds characters that no text can (lone surrogates)", where=run.id) from error
    observations = tuple(
        replace(one, value=_number(one.value), rounds=tuple(_number(value) for value in one.rounds))
        for one in run.observations
    )
    at = moment_text(moment_of(run.recorded_at, run.id))
    return replace(run, recorded_at=at, observations=observations, environment=dict(run.environment))


def moment_of(text: str, where: str) -> datetime:
    """A time in ISO 8601, in UTC where it does not say.

    Raises:
        RequestError: It is none.
    """
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise RequestError(f"{text!r} is no time in ISO 8601", where=where) from error


def moment_text(at: datetime) -> str:
    """The time in UTC with microseconds: texts sort as times do."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def insert(connection: sqlite3.Connection, stored: StoredRun) -> None:
    """Adds a run, inside the caller's transaction."""
    run = stored.run
    connection.execute(
        "INSERT INTO runs (id, recorded_at, label, environment, digest) VALUES (?, ?, ?, ?, ?)",
        (*_run_row(run), stored.digest),
    )
    connection.executemany(
        f"INSERT INTO observations (run, place, {_OBSERVED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(run.id, place, *_row(one)) for place, one in enumerate(run.observations)],
    )
    connection.executemany("INSERT INTO sources (sha256, run) VALUES (?, ?)", [(one, run.id) for one in stored.sources])
    for acceptance in stored.acceptances:
        insert_acceptance(connection, acceptance)


def insert_acceptance(connection: sqlite3.Connection, one: Acceptance) -> None:
    """Adds an acceptance, or its newer reason; inside the caller's transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO accepted (run, model, metric, at, reason, digest) VALUES (?, ?, ?, ?, ?, ?)",
        (one.run, one.model, one.metric, one.at, one.reason, digest_of(plain_from_value(one))),
    )


def whole_runs(connection: sqlite3.Connection) -> tuple[list[tuple[Row, list[Row], list[str]]], list[str]]:
    """Every run whose rows are what was written: its own, its figures' and its sources; and what is wrong elsewhere.

    Raises:
        sqlite3.Error: The file cannot be read through.
    """
    figures: dict[str, list[Row]] = {}
    for run, *row in connection.execute(f"SELECT run, {_OBSERVED} FROM observations ORDER BY run, place"):
        figures.setdefault(run, []).append(row)
    sources: dict[str, list[str]] = {}
    for sha256, run in connection.execute("SELECT sha256, run FROM sources ORDER BY sha256"):
        sources.setdefault(run, []).append(sha256)
    found, problems = [], []
    query = "SELECT id, recorded_at, label, environment, digest FROM runs ORDER BY recorded_at, id"
    for *about, digest in connection.execute(query):
        own = (about, figures.pop(about[0], []), sources.get(about[0], []))
        if _digest_of_rows(*own) == digest:
            found.append(own)
        else:
            problems.append(f"run {about[0]} is not as it was written")
    problems += [f"figures of run {run!r} have no run" for run in figures]
    return found, problems


def stored_runs(connection: sqlite3.Connection) -> tuple[list[StoredRun], list[str]]:
    """Every run whose content is what was written, the oldest first; and what is wrong with the others.

    Raises:
        sqlite3.Error: The file cannot be read through.
    """
    found, problems = whole_runs(connection)
    acceptances, wrong = stored_acceptances(connection)
    runs = []
    for (identity, at, label, environment), rows, sources in found:
        observations = tuple(observation_of(row) for row in rows)
        run = Run(str(identity), str(at), str(label), json.loads(str(environment)), observations)
        runs.append(StoredRun(run, tuple(sources), tuple(acceptances.get(run.id, ()))))
    return runs, problems + wrong


def observation_of(row: Sequence[object]) -> Observation:
    """A row of `observations` from its key's columns on.

    Raises:
        ValueError: It does not hold what was written.
        TypeError: Likewise.
    """
    *key, metric, value, rounds, problems = row
    numbers = tuple(math.nan if one is None else float(one) for one in json.loads(str(rounds)))
    texts = tuple(str(one) for one in json.loads(str(problems)))
    number = math.nan if value is None else float(value)  # type: ignore[arg-type]
    return Observation(SeriesKey(*(str(part) for part in key)), str(metric), number, numbers, texts)


def in_order(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """By time."""
    return sorted(runs, key=lambda stored: (stored.run.recorded_at, stored.run.id))


def stored_acceptances(connection: sqlite3.Connection) -> tuple[dict[str, list[Acceptance]], list[str]]:
    """What was accepted, by run; and what is wrong with it."""
    found: dict[str, list[Acceptance]] = {}
    problems = []
    for *fields, digest in connection.execute(
        "SELECT run, model, metric, at, reason, digest FROM accepted ORDER BY at"
    ):
        one = Acceptance(*fields)
        if digest_of(plain_from_value(one)) != digest:
            problems.append(f"an acceptance of run {one.run!r} is not as it was written")
            continue
        found.setdefault(one.run, []).append(one)
    return found, problems


def _digest_of_rows(about: Row, figures: Sequence[Row], sources: Sequence[str]) -> str:
    # The rows and no values made of them: every opening does this for every run.
    return digest_of([list(about), [list(row) for row in figures], sorted(sources)])


def _run_row(run: Run) -> Row:
    return (run.id, run.recorded_at, run.label, json.dumps(dict(run.environment), sort_keys=True))


def _number(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan


def _row(one: Observation) -> tuple[object, ...]:
    key = tuple(getattr(one.key, column) for column in KEY_COLUMNS)
    value = None if math.isnan(one.value) else one.value
    return (*key, one.metric, value, json.dumps(plain_from_value(one.rounds)), json.dumps(list(one.problems)))
