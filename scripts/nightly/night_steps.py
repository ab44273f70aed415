"""The steps of a night: what `trt-opt` is asked, one model, precision and target after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from night_config import Config
from night_journal import Entry, Journal, fingerprint_of
from night_options import (
    input_files,
    limit_options,
    precision_options,
    preprocess_options,
    python_options,
    timing_options,
)
from night_process import Outcome, run_trt_opt
from night_units import Unit, UnitResult

Kind = Literal["perf", "accuracy"]

MISSING_HERE = 5
"""The exit code of `trt-opt` for a library or a GPU that is not here."""

MIB = 1 << 20


class DiskFullError(Exception):
    """Less space is free than the configuration asks for."""


class Night:
    """One kind of run in one dated folder.

    Args:
        config: What is asked.
        folder: The dated folder.
        kind: What is measured.
        label: The user's word for what is measured.
        tell: Says how it goes.
    """

    def __init__(self, config: Config, folder: Path, kind: Kind, label: str, tell: Callable[[str], None]) -> None:
        self._config, self._folder, self._kind, self._label, self._tell = config, folder, kind, label, tell
        self._journal = Journal(folder)
        self._results = folder / "results" / kind
        self._results.mkdir(parents=True, exist_ok=True)
        self._done: list[Entry] = []

    def run(self, unit: Unit) -> UnitResult:
        """Takes a unit as far as it goes."""
        result = UnitResult(unit)
        self._done = result.steps
        try:
            self._measure(unit, result)
        except _EndedError:
            pass
        except OSError as error:
            reason = f"{error.filename or ''}: {error.strerror or error}"
            self._done.append(Entry(f"{self._kind}/{unit.name}", "", "failed", 4, 0.0, reason))
        return result

    def _measure(self, unit: Unit, result: UnitResult) -> None:
        results = []
        if unit.target.is_engine:
            runs, manifest = self._built(unit)
            results.append(manifest)
        else:
            runs = self._quantized(unit)
        measure = self._benched if self._kind == "perf" else self._compared
        measured = measure(unit, runs)
        if measured is not None:
            results.append(measured)
        if measured is not None and self._kind == "perf" and not unit.target.is_engine:
            self._timed_in_turns(unit, runs)
        if not results:
            return
        run = self._recorded(unit, results)
        result.check = self._checked(unit, run)

    def _quantized(self, unit: Unit) -> Path:
        """The graph in this precision; the model itself where nothing is to be done."""
        model, precision = unit.model, unit.precision
        if not (precision.int8 or precision.fp16 or precision.options):
            if not Path(model.file).is_file():
                self._end(Entry(f"quantize/{unit.name}", "", "failed", 2, 0.0, f"{model.file}: there is no such file"))
            return Path(model.file)
        graph = self._folder / "graphs" / f"{unit.name}.onnx"
        graph.parent.mkdir(exist_ok=True)
        words = ["quantize", model.file, "-o", str(graph), "--force", *precision_options(unit), "--json"]
        step = f"quantize/{unit.name}"
        self._step(step, words, input_files(model), made=[graph], timeout_s=self._config.timeouts.quantize_s)
        return graph

    def _built(self, unit: Unit) -> tuple[Path, Path]:
        """The engine's folder, and its manifest."""
        store = self._folder / "engines" / unit.name
        store.mkdir(parents=True, exist_ok=True)
        target = unit.target
        words = ["build", unit.model.file, "--target", target.target, "-o", str(store), "--no-baselines", "--json"]
        words += [*precision_options(unit), *target.options, *python_options(target)]
        out = self._folder / "logs" / f"build-{unit.name}.json"
        self._step(
            f"build/{unit.name}",
            words,
            input_files(unit.model),
            made=[out],
            stdout=out,
            timeout_s=self._config.timeouts.build_s,
        )
        built = json.loads(out.read_text(encoding="utf-8"))
        manifest = Path(built["manifest_path"])
        kept = self._results / f"{unit.name}.manifest.json"
        shutil.copyfile(manifest, kept)
        return manifest.parent, kept

    def _compared(self, unit: Unit, runs: Path) -> Path | None:
        made = self._results / f"{unit.name}.compare.json"
        words = [
            "compare",
            unit.model.reference or unit.model.file,
            str(runs),
            "--data",
            unit.model.data,
            "--no-timing",
        ]
        words += [*limit_options(unit, self._config), *preprocess_options(unit.model), *python_options(unit.target)]
        words += ["-o", str(made), "--force"]
        return self._gate(
            unit, "compare", words, (runs, *input_files(unit.model)), made, self._config.timeouts.compare_s
        )

    def _benched(self, unit: Unit, runs: Path) -> Path | None:
        made = self._results / f"{unit.name}.bench.json"
        words = [
            "bench",
            str(runs),
            "--data",
            unit.model.data,
            *preprocess_options(unit.model),
            *python_options(unit.target),
        ]
        words += [*timing_options(self._config), *self._config.perf.options, "-o", str(made), "--force"]
        return self._gate(unit, "bench", words, (runs, unit.model.data), made, self._config.timeouts.bench_s)

    def _gate(
        self, unit: Unit, verb: str, words: Sequence[str], reads: Sequence[str | Path], made: Path, timeout_s: float
    ) -> Path | None:
        """A measurement, which may say no; None where this machine has no GPU and none is required."""
        may_miss = unit.target.is_engine and unit.target.gpu == "if-present"
        if self._journal.finished(f"{verb}/{unit.name}", fingerprint_of(words, reads), [made]) is None:
            made.unlink(missing_ok=True)
        entry = self._step(
            f"{verb}/{unit.name}",
            words,
            reads,
            made=[made],
            timeout_s=timeout_s,
            gate=True,
            may_miss=may_miss,
            facts_of=lambda: {"verdict": json.loads(made.read_text(encoding="utf-8")).get("verdict")},
        )
        return None if entry.status == "skipped" else made

    def _timed_in_turns(self, unit: Unit, runs: Path) -> None:
        """Against the graph of the last good night, if this one is another: the noise of two nights is not in it."""
        base = baseline_of(self._config, unit)
        if not (self._config.perf.ab and base.is_file()) or base.read_bytes() == runs.read_bytes():
            return
        perf = self._config.perf
        made = self._results / f"{unit.name}.ab.json"
        words = ["regress", "ab", str(base), str(runs), "--data", unit.model.data, *preprocess_options(unit.model)]
        words += ["--floor", perf.ab_floor, "--launches", str(perf.ab_launches), "--streams", str(perf.streams)]
        words += ["--threads", str(perf.threads)] if perf.threads else []
        words += ["--allow-invalid"] if perf.ab_allow_invalid else []
        words += ["--allow-inconclusive"] if self._config.check.allow_inconclusive else []
        words += ["-o", str(made), "--force"]
        self._gate(unit, "ab", words, (base, runs), made, self._config.timeouts.ab_s)

    def _recorded(self, unit: Unit, results: Sequence[Path]) -> str:
        """The run's id in the history; `trt-opt` gives that of a run recorded right before a crash again."""
        out = self._folder / "logs" / f"record-{self._kind}-{unit.name}.json"
        words = ["regress", "record", *map(str, results), "--model", unit.series, "--label", self._label]
        words += ["--history", str(self._config.history), "--json"]
        self._config.history.parent.mkdir(parents=True, exist_ok=True)
        entry = self._step(
            f"record-{self._kind}/{unit.name}",
            words,
            results,
            made=[out],
            stdout=out,
            timeout_s=self._config.timeouts.other_s,
            facts_of=lambda: _run_facts(out),
        )
        return str(entry.facts["run"])

    def _checked(self, unit: Unit, run: str) -> dict[str, Any]:
        made = self._results / f"{unit.name}.check.json"
        forms = self._folder / "logs" / f"check-{self._kind}-{unit.name}"
        words = ["regress", "check", "--run", run, "--history", str(self._config.history), "--json"]
        for metric, floor in sorted(self._config.check.floors.items()):
            words += ["--floor", f"{metric}={floor}"]
        words += ["--allow-inconclusive"] if self._config.check.allow_inconclusive else []
        words += ["--markdown", f"{forms}.md", "--openmetrics", f"{forms}.txt", *self._config.check.options]
        self._step(
            f"check-{self._kind}/{unit.name}",
            words,
            (),
            made=[made],
            stdout=made,
            timeout_s=self._config.timeouts.other_s,
            gate=True,
            facts_of=lambda: {"verdict": json.loads(made.read_text(encoding="utf-8")).get("verdict")},
        )
        found: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
        return found

    def _step(  # noqa: PLR0913 - a step is all of this
        self,
        step: str,
        words: Sequence[str],
        reads: Sequence[str | Path],
        *,
        made: Sequence[Path],
        timeout_s: float,
        stdout: Path | None = None,
        gate: bool = False,
        may_miss: bool = False,
        facts_of: Callable[[], Mapping[str, Any]] = dict,
    ) -> Entry:
        """Runs a step unless it was finished; what cannot go on ends the unit."""
        fingerprint = fingerprint_of(words, reads)
        entry = self._journal.finished(step, fingerprint, made)
        if entry is not None:
            self._tell(f"{step}: already {entry.status}")
            self._done.append(entry)
            return entry
        require_space(self._folder, self._config.least_free_mib)
        self._tell(f"{step} …")
        log = self._folder / "logs" / f"{step.replace('/', '-')}.log"
        outcome = run_trt_opt(words, log=log, stdout=stdout, timeout_s=timeout_s)
        status, reason = _judged(outcome, made, timeout_s, gate=gate, may_miss=may_miss)
        facts = facts_of() if status in ("done", "no") or not gate else {}
        entry = Entry(step, fingerprint, status, outcome.code, round(outcome.seconds, 2), reason or _notes(log), facts)
        self._journal.write(entry)
        if status == "failed":
            self._end(entry)
        self._done.append(entry)
        return entry

    def _end(self, entry: Entry) -> None:
        self._tell(f"{entry.step}: {entry.reason}")
        self._done.append(entry)
        raise _EndedError


class _EndedError(Exception):
    """A unit can go no further."""


def baseline_of(config: Config, unit: Unit) -> Path:
    """The graph of the last good night."""
    return config.output / "baseline" / f"{unit.name}.onnx"


def keep_baseline(config: Config, folder: Path, result: UnitResult) -> None:
    """Makes the graph of a good night what later nights are timed against."""
    unit = result.unit
    verdicts = {str(check.get("verdict")) for check in result.check.get("checks", ())}
    if unit.target.is_engine or not result.check or "FAIL" in verdicts or result.status == "failed":
        return
    base = baseline_of(config, unit)
    # A night that said no for want of history is good enough to begin with, not to replace one that was good.
    turns = [step.facts.get("verdict") for step in result.steps if step.step.startswith("ab/")]
    if base.exists() and (result.status != "done" or turns not in ([], ["PASS"])):
        return
    made = folder / "graphs" / f"{unit.name}.onnx"
    base.parent.mkdir(exist_ok=True)
    part = base.with_suffix(".part")
    shutil.copyfile(made if made.is_file() else unit.model.file, part)
    part.replace(base)


def require_space(folder: Path, least_mib: int) -> None:
    """Raises DiskFullError where less is free."""
    free = shutil.disk_usage(folder).free // MIB
    if free < least_mib:
        raise DiskFullError(f"{folder}: {free} MiB are free, least_free_mib is {least_mib}")


def _judged(outcome: Outcome, made: Sequence[Path], timeout_s: float, *, gate: bool, may_miss: bool) -> tuple[str, str]:
    """What an outcome means, and why."""
    if outcome.timed_out:
        return "failed", f"it took longer than {timeout_s:g} s and was ended"
    missing = [path for path in made if not path.exists() or not path.stat().st_size]
    if outcome.code in (0, 1) and not missing and (outcome.code == 0 or gate):
        return ("done", "") if outcome.code == 0 else ("no", _reason_in(made[0]) or outcome.message)
    if may_miss and outcome.code == MISSING_HERE:
        return "skipped", outcome.message
    how = f"signal {-outcome.code}" if outcome.code < 0 else f"exit code {outcome.code}"
    return "failed", f"{outcome.message or 'it ended without a word'} ({how})"


def _reason_in(made: Path) -> str:
    """Why a result says no: its reason, else what made the measurement invalid."""
    try:
        plain = json.loads(made.read_text(encoding="utf-8"))
    except ValueError:
        return ""
    timings = [one.get("problems", ()) for one in plain.get("timings", ())]
    problems = [*(plain.get("environment") or {}).get("problems", ()), *(one for own in timings for one in own)]
    return str(plain.get("reason") or "; ".join(dict.fromkeys(problems)))


def _notes(log: Path) -> str:
    """Warnings about the history that must not go unseen."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " ".join(line for line in lines if "the history was damaged" in line)[:400]


def _run_facts(out: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads(out.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return {"run": plain["run"]["id"]} if plain.get("kind") == "Recorded" else {}
