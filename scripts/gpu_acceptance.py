"""Checks on a machine with a GPU what the tests can only simulate: real engines of every TensorRT that is named.

    python scripts/gpu_acceptance.py                                     the TensorRT that `trt-opt doctor` finds
    python scripts/gpu_acceptance.py --tensorrt-python /usr/bin/python3 --tensorrt-python ~/trt11/bin/python
    python scripts/gpu_acceptance.py --kit /tmp/kit                      a TensorRT that brings its own Python
    python scripts/gpu_acceptance.py --rtx                               this interpreter's TensorRT-RTX

Prints one table and writes the same as JSON after every check, so that a run that is ended leaves what it found. What
could not be checked is SKIPPED with the reason, never PASS. Exit code: 0 nothing failed and something passed; 1
something failed, or nothing could be checked; 2 a wrong option; 5 no TensorRT or no GPU. What each check proves is in
docs/measured/gpu_acceptance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from gpu_checks.bench import Bench
from gpu_checks.builder import cancel, dla, manifest, timing
from gpu_checks.engines import accuracy, latency, layers, scales
from gpu_checks.events import events
from gpu_checks.libraries import Library, introduced, is_a_gpu_of_this_machine, python_of_kit, sources_of_kit
from gpu_checks.running import Check, Result, results_of
from rich.console import Console
from rich.table import Table

from trt_opt.backends.machine import driver_version, has_gpu, package_versions
from trt_opt.errors import TrtOptError
from trt_opt.files import write_atomically

COLOURS = {"PASS": "green", "FAIL": "red", "SKIPPED": "yellow"}

MISSING = 5

ENGINES = (
    ("digits", "int8", 10),
    ("digits", "native-entropy", 11),
    ("digits", "portable-entropy", 12),
    ("digits", "fp16", 16),
    ("digits", "fp32", 17),
    ("digits", "native-minmax", 23),
    ("digits", "portable-minmax", 24),
    ("resnet50", "int8", 30),
    ("resnet50", "fp16", 31),
    ("transformer", "fp16", 33),
    ("transformer", "int8", 34),
    ("resnet50", "native-entropy", 40),
    ("resnet50", "portable-entropy", 41),
    ("resnet50", "fp32", 50),
    ("transformer", "fp32", 51),
)
"""Model, precision and rank: what says the most comes first."""

LAYERS = (
    ("digits", "int8", 14),
    ("digits", "native-entropy", 15),
    ("resnet50", "int8", 32),
    ("transformer", "int8", 35),
)

SCALES = (("digits", "entropy", 13), ("resnet50", "entropy", 42), ("digits", "minmax", 25))

LATENCIES = (("digits", 19), ("resnet50", 52), ("transformer", 53))


def checks_of(bench: Bench, options: argparse.Namespace) -> list[Check]:
    """Everything there is to check of a library."""
    library = bench.label
    needs = {"digits": 10.0, "resnet50": 25.0, "transformer": 15.0}
    found = [
        Check(f"{name}.{precision}", library, partial(accuracy, bench, name, precision), rank, needs[name], 240)
        for name, precision, rank in ENGINES
    ]
    found += [
        Check(f"{name}.{precision}.layers", library, partial(layers, bench, name, precision), rank)
        for name, precision, rank in LAYERS
    ]
    found += [
        Check(f"{name}.scales.{algorithm}", library, partial(scales, bench, name, algorithm), rank)
        for name, algorithm, rank in SCALES
    ]
    found += [Check(f"{name}.latency", library, partial(latency, bench, name), rank) for name, rank in LATENCIES]
    found += [
        Check("manifest", library, partial(manifest, bench), 18),
        Check("cancel", library, partial(cancel, bench), 20),
        Check("timing-cache", library, partial(timing, bench), 21, 15),
        Check("digits.events", library, partial(events, bench, "digits"), 26),
        Check("dla", library, partial(dla, bench, options.use_dla), 22),
    ]
    wanted = options.only
    return [check for check in found if not wanted or any(_is_meant(check.name, text) for text in wanted)]


def _is_meant(name: str, text: str) -> bool:
    """A name, the beginning of one up to a dot, or a pattern."""
    return fnmatch(name, text) or name.startswith(f"{text}.")


class Acceptance:
    """One run: its libraries, what came of the checks, and where that is written.

    Args:
        options: The command line.
        file: Where the JSON goes; None keeps it.
    """

    def __init__(self, options: argparse.Namespace, file: Path | None) -> None:
        self._options = options
        self._file = file
        self._began = time.monotonic()
        self._started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._libraries: list[dict[str, Any]] = []
        self.results: list[Result] = []
        self.is_real = has_gpu()

    def run(self, benches: Sequence[Bench]) -> int:
        """Introduces the libraries, runs the checks, and returns the exit code."""
        usable = [bench for bench in benches if self._introduce(bench)]
        checks = [check for bench in usable for check in checks_of(bench, self._options)]
        for result in results_of(checks, self._began + 60 * self._options.minutes):
            self._tell(result)
        code = self._exit_code(any_usable=bool(usable))
        self._write(code)
        return code

    def _introduce(self, bench: Bench) -> bool:
        library, began = bench.library, time.monotonic()
        entry: dict[str, Any] = {"name": library.name, "tactic_sources": library.tactic_sources, "problem": None}
        self._libraries.append(entry)
        try:
            known = bench.introduced = introduced(library)
        except TrtOptError as error:
            entry["problem"] = str(error)
            self._tell(Result("library", library.name, "FAIL", str(error), time.monotonic() - began, {}))
            return False
        entry.update(library=known.library, gpu=asdict(known.gpu), python=known.python)
        entry.update(support=asdict(known.support), on_a_gpu=is_a_gpu_of_this_machine(known.gpu))
        self.is_real = self.is_real and entry["on_a_gpu"]
        reason = f"{known.library} of {known.python}, {known.gpu}"
        self._tell(Result("library", bench.label, "PASS", reason, round(time.monotonic() - began, 2), {}))
        return True

    def _tell(self, result: Result) -> None:
        self.results.append(result)
        sys.stderr.write(f"{result.status:<8}{result.library}: {result.name}, {result.seconds:.1f} s\n")
        self._write(None)

    def _exit_code(self, *, any_usable: bool) -> int:
        if not any_usable:
            return MISSING
        checked = [result.status for result in self.results if result.name != "library"]
        failed = any(result.status == "FAIL" for result in self.results)
        return 1 if failed or "PASS" not in checked else 0

    def _write(self, code: int | None) -> None:
        if self._file is not None:
            text = json.dumps(self._plain(code), indent=2, allow_nan=False, default=str)
            write_atomically(self._file, text + "\n")

    def _plain(self, code: int | None) -> dict[str, Any]:
        host = {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "driver": driver_version(),
            "nvidia_device": has_gpu(),
            "packages": package_versions(),
        }
        return {
            "schema_version": 1,
            "kind": "GpuAcceptance",
            "started_at": self._started_at,
            "minutes": self._options.minutes,
            "seconds": round(time.monotonic() - self._began, 1),
            "exit_code": code,
            "host": host,
            "libraries": self._libraries,
            "checks": [asdict(result) for result in self.results],
        }

    def show(self, console: Console) -> None:
        """Prints the table."""
        missing = "not every GPU above is one of this machine: what ran on another was no GPU"
        table = Table(caption=None if self.is_real else missing, expand=False)
        for title in ("", "check", "library"):
            table.add_column(title, no_wrap=title == "")
        table.add_column("s", justify="right")
        table.add_column("what was found", overflow="fold")
        for result in self.results:
            status = f"[{COLOURS[result.status]}]{result.status}[/]"
            words = result.reason.replace("[", r"\[")
            table.add_row(status, result.name, result.library, f"{result.seconds:.1f}", words)
        console.print(table)


def libraries_of(options: argparse.Namespace, folder: Path) -> list[Library]:
    """The libraries that were named; what `trt-opt doctor` finds where none was.

    Raises:
        MissingError: A kit is none.
    """
    asked = tuple(options.tactic_source)
    found = [Library(f"TensorRT of {python}", python, False, asked) for python in options.tensorrt_python]
    for kit in options.kit:
        python = python_of_kit(kit, folder)
        found.append(Library(f"TensorRT of {kit}", str(python), False, asked or sources_of_kit(kit)))
    if options.rtx:
        found.append(Library("TensorRT-RTX", is_rtx=True))
    return found or [Library("TensorRT", tactic_sources=asked)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tensorrt-python", action="append", default=[], metavar="PATH", help="a Python with TensorRT")
    made.add_argument("--kit", action="append", default=[], type=Path, metavar="DIR", help="a folder with env.sh")
    made.add_argument("--rtx", action="store_true", help="TensorRT-RTX of this interpreter")
    made.add_argument("--tactic-source", action="append", default=[], metavar="NAME", help="as for trt-opt build")
    made.add_argument("--use-dla", type=int, metavar="CORE", help="build for a Deep Learning Accelerator too")
    made.add_argument("--optimization-level", type=int, metavar="0-5", help="the builder's effort")
    made.add_argument("--samples", type=int, default=128, help="how many digits an engine is judged on")
    made.add_argument("--minutes", type=float, default=8.0, help="how long it may take")
    made.add_argument("--only", action="append", default=[], metavar="NAME", help="a check, a model, or a pattern")
    made.add_argument("--list", action="store_true", help="print the names of the checks")
    made.add_argument("--json", type=Path, metavar="FILE", help="the result; $OUT/gpu_acceptance.json where OUT is set")
    made.add_argument("--keep", type=Path, metavar="DIR", help="where engines go and stay; else they are removed")
    return made


def json_file(options: argparse.Namespace) -> Path | None:
    """Where the result is written."""
    out = os.environ.get("OUT")
    file: Path | None = options.json or (Path(out) / "gpu_acceptance.json" if out else None)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return file


def main() -> int:
    """Runs what was asked for and returns the exit code."""
    options = parser().parse_args()
    names = [check.name for check in checks_of(Bench(Library(""), Path(), 1), options)]
    if options.list or not names:
        print("\n".join(names) or f"no check is called {' or '.join(options.only)}: see --list")
        return 0 if names else 2
    acceptance = Acceptance(options, json_file(options))
    with ExitStack() as stack:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
        # A folder of its own each time: engines and caches of an earlier run would be found and not made.
        folder = (
            options.keep / stamp
            if options.keep
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trt-opt-acceptance-")))
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            libraries = libraries_of(options, folder)
        except TrtOptError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
        benches = []
        for number, library in enumerate(libraries):
            place = folder / str(number)
            place.mkdir(exist_ok=True)
            benches.append(Bench(library, place, options.samples, options.optimization_level))
        code = acceptance.run(benches)
    acceptance.show(Console(width=None if sys.stdout.isatty() else 160))
    return code


if __name__ == "__main__":
    sys.exit(main())
