r"""Writes docs/measured/int8_against_peers.md: INT8 of trt-opt and its peers on the same models, samples and referee.

    python scripts/benchmarks/int8_accuracy.py --models ../shared/models --work /tmp/int8 \
        --modelopt /tmp/modelopt-venv/bin/python --output docs/measured/int8_against_peers.md

Needs onnxruntime with sympy (for its quantization) here, and in an environment of its own, because it pins other
versions, `pip install nvidia-modelopt[onnx]` with torch; without --modelopt it is left out, visibly.

Every tool gets the same calibration samples and writes one file; all files are judged by int8_accuracy_judge.py on
other samples. Every step is a process with a time-out, so that a crash of one is its result. What is done is kept in
--work as one JSON file per model and tool, and not done again: `--again trt-opt` forgets the results of the tools whose
names contain that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from int8_accuracy_cases import CASES, DIGITS_CASE, Case, write_samples
from int8_accuracy_page import NOT_INSTALLED, Result, line_of, page_of
from int8_accuracy_statistics import Measured

from trt_opt.samples import DIGITS

sys.path.append(str(Path(__file__).parents[1]))
from measured_page import write_page

HERE = Path(__file__).parent
TARGET = ("--target", "rtx:8.6")


@dataclass(frozen=True)
class Tool:
    """Who quantises.

    Attributes:
        name: A column of the page.
        options: Of `trt-opt quantize MODEL -o OUT --calib-data DATA` for ours; the peer and its method for a peer.
        ours: Whether it is trt-opt.
    """

    name: str
    options: tuple[str, ...]
    ours: bool = False

    @property
    def slug(self) -> str:
        """The name for files."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)

    def command(self, peers: dict[str, str], model: Path, data: Path, output: Path) -> list[str] | None:
        """The process that writes the file; None where the peer is not installed."""
        if self.ours:
            asked = [sys.executable, "-m", "trt_opt", "quantize", str(model), "--output", str(output), "--force"]
            return [*asked, "--calib-data", str(data), *TARGET, *self.options]
        python = peers.get(self.options[0].partition(":")[0])
        if python is None:
            return None
        return [python, str(HERE / "int8_accuracy_peers.py"), *self.options, str(model), str(data), str(output)]


TOOLS = (
    Tool("trt-opt", ("--int8",), ours=True),
    Tool("trt-opt as placed", ("--int8", "--int8-all"), ours=True),
    Tool("ORT MinMax", ("onnxruntime:minmax",)),
    Tool("ORT Entropy", ("onnxruntime:entropy",)),
    Tool("ORT Percentile", ("onnxruntime:percentile",)),
    Tool("ORT MinMax, compute only", ("onnxruntime:minmax-compute",)),
    Tool("ModelOpt max", ("modelopt:max",)),
    Tool("ModelOpt entropy", ("modelopt:entropy",)),
)
"""The first is what is judged; more variants of ours are more entries."""


@dataclass(frozen=True)
class Bench:
    """Where things are.

    Attributes:
        models: The folder of models; None leaves the project's own sample.
        work: Where results are kept.
        peers: Peer → the Python that has it.
        timeout_s: For one process.
    """

    models: Path | None
    work: Path
    peers: dict[str, str]
    timeout_s: float

    def result(self, case: Case, tool: Tool) -> Result:
        """What the tool reaches on the case, measured now or earlier."""
        folder = self.work / case.name
        output = folder / f"{tool.slug}.onnx"
        command = tool.command(self.peers, self._model(case), folder / "calibration", output)
        kept = folder / f"{tool.slug}.json"
        if not kept.exists() or json.loads(kept.read_text()).get("options") != list(tool.options):
            stored = self._measured(case, command, output) if command else {"failed": NOT_INSTALLED}
            stored["options"] = list(tool.options)
            if command is None:
                return _result(case, tool, stored)
            kept.write_text(json.dumps(stored), encoding="utf-8")
        return _result(case, tool, json.loads(kept.read_text()))

    def _model(self, case: Case) -> Path:
        if case is DIGITS_CASE or self.models is None:
            return DIGITS / "model.onnx"
        return self.models / "models" / f"{case.name}.onnx"

    def _measured(self, case: Case, command: Sequence[str], output: Path) -> dict[str, Any]:
        """Quantises and judges; `failed` holds a message where one of them did not get through."""
        started = time.perf_counter()
        failure = self._failure(command, output.with_suffix(".log"))
        seconds = time.perf_counter() - started
        if failure is not None:
            return {"failed": failure}
        verdict = output.with_suffix(".judged.json")
        judge = [sys.executable, str(HERE / "int8_accuracy_judge.py"), case.name, str(output.parent)]
        failure = self._failure([*judge, str(self._model(case)), str(output), str(verdict)], output.with_suffix(".log"))
        if failure is not None:
            return {"failed": f"its file does not run: {failure}"}
        return {**json.loads(verdict.read_text()), "seconds": seconds}

    def _failure(self, command: Sequence[str], log: Path) -> str | None:
        """The reason if the process failed, None if it did not."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {self.timeout_s:.0f} s"
        log.write_text(f"{done.stdout}\n{done.stderr}", encoding="utf-8")
        if not done.returncode:
            return None
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")] or lines[-1:]
        return errors[0] if errors else f"exit {done.returncode} without a word"


def _result(case: Case, tool: Tool, stored: dict[str, Any]) -> Result:
    failed = stored.get("failed")
    return Result(case, tool.name, tool.ours, None if failed else Measured.from_json(stored), failed)


def all_results(bench: Bench, jobs: int, cases: Sequence[Case]) -> Iterator[Result]:
    """Every tool on every case; cases run beside each other, the tools of one after each other."""

    def of_case(case: Case) -> list[Result]:
        folder = bench.work / case.name
        if not (folder / "evaluation").exists():
            write_samples(case, bench.models, folder)
        found = []
        for tool in TOOLS:
            found.append(bench.result(case, tool))
            print(line_of(found[-1]), flush=True)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        for results in pool.map(of_case, cases):
            yield from results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder of models with feeds.py; without it only the own sample")
    parser.add_argument("--work", type=Path, required=True, help="folder for samples, files and results, kept")
    parser.add_argument("--modelopt", help="the Python of an environment with nvidia-modelopt")
    parser.add_argument("--output", type=Path, help="page to write; its text after the line '## Notes' is kept")
    parser.add_argument("--only", nargs="+", help="names of models")
    parser.add_argument("--again", nargs="+", default=[], help="parts of names of tools to measure anew")
    parser.add_argument("--jobs", type=int, default=2, help="models at the same time")
    parser.add_argument("--timeout-s", type=float, default=400, help="for one process")
    return parser.parse_args()


def main() -> None:
    """Measures what is missing, prints a line per result, and writes the page."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        if any(part in tool.name for part in options.again):
            for kept in options.work.glob(f"*/{tool.slug}.json"):
                kept.unlink()
    peers = {"onnxruntime": sys.executable, **({"modelopt": options.modelopt} if options.modelopt else {})}
    bench = Bench(options.models, options.work.resolve(), peers, options.timeout_s)
    cases = CASES if options.models is not None else (DIGITS_CASE,)
    chosen = [case for case in cases if not options.only or case.name in options.only]
    results = list(all_results(bench, options.jobs, chosen))
    write_page(page_of(results, peers), options.output)


if __name__ == "__main__":
    main()
