"""A night: every model of a configuration made smaller, measured, and held against the nights before.

Run by perf.sh and accuracy.sh. It asks `trt-opt` alone, and reads what that writes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from night_config import Config, ConfigError, config_from_file
from night_journal import JOURNAL, LockedError, only_run, remove_old
from night_process import StoppedError, run_trt_opt, stop_on_signals
from night_steps import DiskFullError, Kind, Night, keep_baseline, require_space
from night_summary import (
    FAILED,
    About,
    exit_code_of,
    junit_text,
    metrics_text,
    summary_text,
    verdict_text,
    write_whole,
)
from night_units import UnitResult, units_of

WRONG_REQUEST, LOCKED = 2, 75

EPILOG = """exit codes: 0 everything was measured and nothing became worse · 1 something became worse, misses a limit,
or could not be told · 2 the configuration is wrong · 4 something was not measured: a step crashed, took too long, or
the disk is full · 75 another run of this configuration is under way · 130, 143 told to end; the next run goes on"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a night and gives its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        config = config_from_file(asked.config)
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}[A-Za-z0-9._-]{0,40}", asked.night):
            raise ConfigError(f"--night {asked.night}: a date, as in 2026-11-25")
    except ConfigError as error:
        return _ended(WRONG_REQUEST, f"error: {error}")
    stop_on_signals()
    try:
        with only_run(config.output):
            return _night(config, asked)
    except LockedError as error:
        return _ended(LOCKED, f"error: {error}; this one does nothing")
    except DiskFullError as error:
        return _ended(FAILED, f"error: {error}; make room, and run it again: it goes on where it is")
    except StoppedError as error:
        return _ended(128 + error.number, f"{error}: ended; run it again, and it goes on where it is")
    except OSError as error:
        return _ended(FAILED, f"error: {error}")


def _night(config: Config, asked: argparse.Namespace) -> int:
    folder = config.output / asked.night
    if asked.fresh and (folder / JOURNAL).is_file():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, config.least_free_mib)
    kind: Kind = asked.kind
    label = asked.label or asked.night
    night = Night(config, folder, kind, label, _tell)
    shutil.copyfile(config.path, folder / "config.toml")
    results = []
    for unit in units_of(config):
        results.append(night.run(unit))
        _write(config, folder, kind, results, label)
    notes = [f"removed {name}: {config.keep_nights} nights are kept" for name in _removed(config, asked.night)]
    _write(config, folder, kind, results, label, notes)
    if kind == "perf":
        for result in results:
            keep_baseline(config, folder, result)
    _report(config, folder, kind, results)
    _tell((folder / kind / "summary.md").read_text(encoding="utf-8"))
    print(folder / kind)
    return exit_code_of(results)


def _removed(config: Config, night: str) -> list[str]:
    return remove_old(config.output, config.keep_nights, night)


def _write(
    config: Config, folder: Path, kind: Kind, results: Sequence[UnitResult], label: str, notes: Sequence[str] = ()
) -> None:
    """The night's files, after every unit: what was found is there whatever comes next."""
    out = folder / kind
    out.mkdir(exist_ok=True)
    about = About(kind, folder.name, label, tuple(notes))
    texts = {}
    for result in results:
        forms = folder / "logs" / f"check-{kind}-{result.unit.name}.txt"
        if result.check and forms.is_file():
            texts[result.unit.name] = forms.read_text(encoding="utf-8")
    write_whole(out / "summary.md", summary_text(results, about))
    write_whole(out / "verdict.json", verdict_text(results, about))
    write_whole(out / "junit.xml", junit_text(results, kind=kind, allow_inconclusive=config.check.allow_inconclusive))
    write_whole(out / "metrics.txt", metrics_text(results, texts, kind=kind))


def _report(config: Config, folder: Path, kind: Kind, results: Sequence[UnitResult]) -> None:
    """The page; without it the night is as good, and says so."""
    page = folder / kind / "report.html"
    found = {file for one in results for file in (folder / "results" / kind).glob(f"{one.unit.name}.*.json")}
    files = sorted(str(file) for file in found if file.stat().st_size)
    if not files:
        return
    words = ["report", *files, "-o", str(page), "--force", "--title", f"Nightly {kind}, {folder.name}"]
    log = folder / "logs" / f"report-{kind}.log"
    outcome = run_trt_opt(words, log=log, stdout=None, timeout_s=config.timeouts.other_s)
    if outcome.code != 0:
        _tell(f"warning: there is no report.html: {outcome.message}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nightly", description=__doc__, epilog=EPILOG)
    parser.add_argument("kind", choices=("perf", "accuracy"))
    parser.add_argument("config", type=Path, help="the TOML file")
    parser.add_argument(
        "--night", default=datetime.now().strftime("%Y-%m-%d"), help="the dated folder (default: today)"
    )
    parser.add_argument("--label", default="", help="your word for what is measured: a commit (default: the night)")
    parser.add_argument("--fresh", action="store_true", help="do everything again, even what this night has done")
    return parser


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _ended(code: int, text: str) -> int:
    print(text, file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
