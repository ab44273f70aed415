"""A history as text: one run per line, for merging, moving and reading with other tools."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trt_opt.errors import RecipeError, RequestError
from trt_opt.regress.metrics import metric_of
from trt_opt.regress.rows import StoredRun
from trt_opt.values.codec import json_from_value, value_from_json


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        file: The file.
        runs: How many runs are in it.
    """

    file: str
    runs: int


def lines_of(runs: Iterable[StoredRun]) -> Iterator[str]:
    """One line of JSON per run."""
    for stored in runs:
        yield json.dumps(json.loads(json_from_value(stored)), separators=(",", ":"), allow_nan=False) + "\n"


def runs_of(text: str, *, where: str) -> tuple[StoredRun, ...]:
    """What `lines_of` wrote.

    Raises:
        RecipeError: A line is not a run.
    """
    # Not `splitlines`: names may hold other line ends than this one.
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    return tuple(_run(line, f"{where}, line {number}") for number, line in lines)


def _run(line: str, where: str) -> StoredRun:
    try:
        stored = value_from_json(StoredRun, line, where=where)
    except RecursionError as error:
        raise RecipeError("it is nested too deeply", where=where) from error
    if any(one.run != stored.run.id for one in stored.acceptances):
        raise RecipeError("an acceptance is of another run", where=where)
    try:
        for one in stored.run.observations:
            metric_of(one.metric)
    except RequestError as error:
        raise RecipeError(error.what, where=where, hint=error.hint) from error
    return stored
