"""Result files become one run of the history."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from trt_opt.build.manifest import MANIFEST
from trt_opt.errors import RecipeError, RequestError
from trt_opt.regress.history import History
from trt_opt.regressing.figures import Naming, Result, figures_of, origins_of
from trt_opt.values.codec import kind_from_json, value_from_json
from trt_opt.values.engine import BuildOutcome, Manifest
from trt_opt.values.history import Observation, Run, SeriesKey
from trt_opt.values.machine_state import Environment
from trt_opt.values.model_comparison import ModelComparison
from trt_opt.values.regression import ABResult
from trt_opt.values.timing import Benchmark

KINDS: Mapping[str, type[Result | BuildOutcome]] = MappingProxyType(
    {kind.__name__: kind for kind in (Benchmark, ModelComparison, ABResult, Manifest, BuildOutcome)}
)

RANKS: tuple[type[Result], ...] = (Benchmark, ABResult, ModelComparison, Manifest)
"""Whose figure is taken where several results of one run have one for a series: the most careful measurement's."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run that is in the history now.

    Attributes:
        run: The run.
        history: The history's file.
        invalid: How many of its figures must not be used.
        is_new: Whether it was recorded now; not so where every file was recorded before.
        skipped: Files that were recorded before, and are not recorded again.
    """

    run: Run
    history: str
    invalid: int
    is_new: bool = True
    skipped: tuple[str, ...] = ()


def record_files(
    files: Sequence[Path], history: History, *, label: str = "", model: str | None = None, force: bool = False
) -> Recorded:
    """Records result files together as one run.

    Args:
        files: What `bench`, `compare`, `build` or `regress ab` wrote; a folder of the engine store is its manifest.
        history: Open for writing.
        label: The user's word for the run.
        model: What the model is called in the history; None takes the file's name.
        force: Whether files are recorded again that were recorded before; if not, they are skipped.

    Raises:
        RequestError: A file is no result, has no figures, or two are from different machines.
        StorageError: The history cannot be written.
    """
    if model is not None and not model.strip():
        raise RequestError("the model's name is empty", hint="--model NAME")
    known = {} if force else {sha256: stored.run for stored in history.stored() for sha256 in stored.sources}
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    for file in files:
        text = _text(file)
        result, sha256 = _result(text, file), hashlib.sha256(text.encode()).hexdigest()
        if sha256 in known or sha256 in results:
            skipped[str(file)] = sha256
        else:
            results[sha256] = result
    if not results:
        return _recorded(known[next(iter(skipped.values()))], history, is_new=False, skipped=tuple(skipped))
    observations = observations_of(tuple(results.values()), model)
    if not observations:
        raise RequestError("there is no figure to record", where=", ".join(map(str, files)))
    environment = _common_environment(tuple(results.values()))
    run = history.add(observations, label=label, environment=environment, sources=tuple(results), force=force)
    return _recorded(run, history, is_new=True, skipped=tuple(skipped))


def observations_of(results: Sequence[Result], model: str | None = None) -> tuple[Observation, ...]:
    """The figures of results that belong together, one per series.

    Raises:
        RequestError: One result has two figures for one series.
    """
    naming = Naming(model, origins_of(results))
    chosen: dict[tuple[SeriesKey, str], Observation] = {}
    for result in sorted(results, key=lambda one: RANKS.index(type(one))):
        own: dict[tuple[SeriesKey, str], Observation] = {}
        for one in figures_of(result, naming):
            before = own.setdefault((one.key, one.metric), one)
            if before.value != one.value and before.is_valid and one.is_valid:
                raise RequestError(
                    f"two figures belong to one series: {one.metric} of {one.key}",
                    hint="record the models apart, each with its own --model",
                )
        for name, one in own.items():
            before = chosen.setdefault(name, one)
            if isinstance(result, Benchmark) and before.value != one.value and before.is_valid and one.is_valid:
                raise RequestError(
                    f"two benchmarks have a figure for one series: {one.metric} of {one.key}",
                    hint="record them one after the other, or each with its own --model",
                )
    return tuple(chosen.values())


def environment_of(environment: Environment) -> dict[str, str]:
    """What must be equal for times to be comparable, as the history keeps it; what nobody knows is left out."""
    machine = environment.machine
    governor = environment.states[0].cpu.governor if environment.states else None
    parts: Mapping[str, object] = {
        "host": machine.host,
        "cores": machine.cores,
        "driver": machine.driver,
        "power_mode": machine.power_mode,
        "clocks_locked": None if machine.clocks_locked is None else str(machine.clocks_locked).lower(),
        "governor": governor,
    }
    return {name: str(value) for name, value in parts.items() if value is not None}


def _recorded(run: Run, history: History, *, is_new: bool, skipped: tuple[str, ...]) -> Recorded:
    invalid = sum(not one.is_valid for one in run.observations)
    return Recorded(run, str(history.path), invalid, is_new, skipped)


def _common_environment(results: Sequence[Result]) -> dict[str, str]:
    found: dict[str, str] = {}
    for result in results:
        if isinstance(result, Manifest) or result.environment is None:
            continue
        own = environment_of(result.environment)
        different = [name for name in own if found.get(name, own[name]) != own[name]]
        if different:
            told = ", ".join(f"{name} {found[name]} and {own[name]}" for name in different)
            raise RequestError(f"the results were not measured under the same conditions ({told})", hint="one by one")
        found.update(own)
    return found


def _text(file: Path) -> str:
    path = file / MANIFEST if file.is_dir() else file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RequestError(
            f"the result cannot be read ({reason})", where=str(file)[:200], hint="what bench, compare or build wrote"
        ) from error


def _result(text: str, file: Path) -> Result:
    where = str(file)
    try:
        kind = _kind(text, where)
        if kind not in KINDS:
            raise RequestError(
                f"a {kind!r} has no figures that are tracked",
                where=where,
                hint="record what bench, compare, build or regress ab wrote (-o RESULT.json)",
            )
        result = value_from_json(KINDS[kind], text, where=where)
    except RecursionError as error:
        raise RecipeError("the result is nested too deeply", where=where) from error
    return result.manifest if isinstance(result, BuildOutcome) else result


def _kind(text: str, where: str) -> str:
    kind = kind_from_json(text, where=where)
    if kind is None:
        raise RecipeError("this is no result of trt-opt", where=where, hint="what bench, compare or build wrote")
    return kind
