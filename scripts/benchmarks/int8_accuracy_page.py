"""The page of int8_accuracy.py."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from int8_accuracy_cases import Case
from int8_accuracy_statistics import (
    PERFECT_DB,
    TOLERANCE_DB,
    TOLERANCE_POINTS,
    TOO_FEW_TO_DRAW_FROM,
    Figure,
    Measured,
    Quantity,
    difference,
    figure,
    sign_of,
    sqnr,
    task,
)

from trt_opt.backends.machine import package_versions

COMPARABLE_SHARE = 0.9
"""A peer that leaves more of our INT8 multiply-accumulates in float than a tenth bought its accuracy with them."""

DEMANDED_SHARE_PCT = 90.0
MESSAGE_LENGTH = 200
NOT_INSTALLED = "not installed"
PEER_PACKAGES = ("nvidia-modelopt", "onnxruntime-gpu", "onnxruntime", "onnx", "torch")


@dataclass(frozen=True)
class Result:
    """One tool on one model; either `measured` or `failed`."""

    case: Case
    tool: str
    ours: bool
    measured: Measured | None
    failed: str | None

    def figure(self, quantity: Quantity) -> Figure | None:
        """The quantity; None where the tool failed or the model has no such quantity."""
        return None if self.measured is None else figure(self.measured, quantity)


Rows = Mapping[str, Mapping[str, Result]]
"""Model → tool → result."""


def line_of(result: Result) -> str:
    """One result for the terminal."""
    if result.measured is None:
        return f"{result.case.name:<24} {result.tool:<24} FAILED {_shortened(result.failed or '')}"
    found = {name: result.figure(quantity) for name, quantity in (("task", task), ("sqnr", sqnr))}
    shown = {name: f"{entry.value:7.2f}" if entry else "      -" for name, entry in found.items()}
    share, seconds = result.measured.share, result.measured.seconds
    return (
        f"{result.case.name:<24} {result.tool:<24} {shown['task']} % {shown['sqnr']} dB {share:5.1f} % {seconds:6.1f} s"
    )


def page_of(results: Sequence[Result], pythons: Mapping[str, str]) -> str:
    """The page in docs/measured."""
    rows: dict[str, dict[str, Result]] = {}
    for result in results:
        rows.setdefault(result.case.name, {})[result.tool] = result
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    others = "\n".join(f"{peer}: {_versions_in(python)}." for peer, python in pythons.items() if peer != "onnxruntime")
    return f"""# INT8 against the peers

What INT8 leaves of a model: trt-opt, ONNX Runtime's `quantize_static` and NVIDIA's ModelOpt on the same models, with
the same calibration samples, judged by one referee on other samples. No engine ran: every file is computed by ONNX
Runtime with its optimisations off and its FP16 tensors rounded to FP16, against the model as it came, in FP32. The
peers' files are FP32 beside the INT8 layers, which favours them; those of trt-opt are FP16 there, as it builds them.

* **SQNR**: error energy pooled over all evaluation samples, at the worst float output.
* **Task**: top-1 against labels where there are some; else against the float model's own answers: F1 of the anchors
  above a score, intersection over union of masks, landmarks within a pixel, the same class.
* **MACs in INT8**: multiply-accumulates of convolutions and matrix products both of whose operands are dequantised
  INT8, in percent of the float model's.
* **ORT**: QDQ, symmetric INT8, one weight scale per channel, float biases: what TensorRT takes; "compute only"
  quantises convolutions and matrix products alone. **ModelOpt**: its defaults, rest in FP32, calibrated on the CPU.

## Verdict

The first column of trt-opt against the best of the peers that have at least {COMPARABLE_SHARE:.0%} of its MACs in INT8.
A difference counts if the 95 % interval of the paired bootstrap over the samples leaves out zero and it is more than
{TOLERANCE_POINTS:g} points or {TOLERANCE_DB:g} dB; with fewer than {TOO_FEW_TO_DRAW_FROM} evaluation samples the
latter alone. MACs in bold: below both {DEMANDED_SHARE_PCT:g} % and a peer.

{_verdicts(rows)}

## Task, percent

95 % intervals in brackets: Wilson's of shares of samples, else bootstrap. Bold: the best of the row. In parentheses:
out of competition, because too little is in INT8.

{_table(rows, task)}

## SQNR at the worst output, dB

{_table(rows, sqnr)}

## MACs in INT8, percent

{_shares(rows)}

## What failed

{_failures(results)}

Written on {date.today().isoformat()} by `python scripts/benchmarks/int8_accuracy.py --models … --work … --modelopt …`,
Python {platform.python_version()}, {versions}.
{others}
"""


def _versions_in(python: str) -> str:
    """The peer's packages as its environment names them."""
    script = "import sys\nfrom importlib.metadata import version\nfor name in sys.argv[1:]:\n"
    script += "    try: print(name, version(name))\n    except ImportError: pass\n"
    done = subprocess.run([python, "-c", script, *PEER_PACKAGES], capture_output=True, text=True, check=False)
    return ", ".join(done.stdout.splitlines())


def _verdicts(rows: Rows) -> str:
    head = ("model", "judged on", "task", "float", "trt-opt", "best peer", "verdict", "SQNR", "best peer", "verdict")
    lines = [f"| {' | '.join(head)} | MACs in INT8 |", "|---" * (len(head) + 1) + "|"]
    for name, row in rows.items():
        ours = next(iter(row.values()))
        if ours.measured is None:
            lines.append(f"| {name} | - | - | - | failed | | | | | | |")
            continue
        cells = [*_compared(row, task, TOLERANCE_POINTS), *_compared(row, sqnr, TOLERANCE_DB)]
        baseline = ours.measured.task_pct(side="float")
        shown = "-" if baseline is None else f"{baseline[0]:.2f}"
        kind = ours.case.task.name if ours.case.task else "-"
        lines.append(
            f"| {name} | {ours.measured.samples} | {kind} | {shown} | {' | '.join(cells)} | {_share_verdict(row)} |"
        )
    return "\n".join(lines)


def _compared(row: Mapping[str, Result], quantity: Quantity, tolerance: float) -> tuple[str, str, str]:
    """Our figure, the best comparable peer's, and who wins."""
    ours = next(iter(row.values()))
    mine = ours.figure(quantity)
    if mine is None or ours.measured is None:
        return "-", "-", "-"
    best = _best(_comparable(row), quantity)
    if best is None or best.measured is None:
        return _number(mine.value), "none", "best"
    theirs = best.figure(quantity)
    gap = difference(ours.measured, best.measured, quantity)
    if theirs is None or gap is None:
        return _number(mine.value), "-", "-"
    interval = "" if gap.low is None or gap.high is None else f" [{gap.low:+.2f}, {gap.high:+.2f}]"
    verdict = {1: "best", 0: "equal", -1: "**worse**"}[sign_of(gap, tolerance)]
    return _number(mine.value), f"{_number(theirs.value)} ({best.tool})", f"{verdict} {gap.value:+.2f}{interval}"


def _comparable(row: Mapping[str, Result]) -> list[Result]:
    """The peers that compute nearly as much in INT8 as we do."""
    floor = _floor(row)
    return [result for result in row.values() if not result.ours and result.measured and result.measured.share >= floor]


def _floor(row: Mapping[str, Result]) -> float:
    """The share of INT8 below which a tool is out of competition; one that quantises nothing always is."""
    ours = next(iter(row.values())).measured
    return max(COMPARABLE_SHARE * (ours.share if ours else 0.0), 1e-9)


def _best(results: Iterable[Result], quantity: Quantity) -> Result | None:
    found = [(entry.value, result) for result in results if (entry := result.figure(quantity)) is not None]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _share_verdict(row: Mapping[str, Result]) -> str:
    ours = next(iter(row.values())).measured
    peers = [result.measured.share for result in row.values() if not result.ours and result.measured]
    demanded = min(DEMANDED_SHARE_PCT, max(peers, default=0.0))
    share = ours.share if ours else 0.0
    return f"{share:.0f} %" if share >= demanded else f"**{share:.0f} %**, a peer {max(peers):.0f} %"


def _table(rows: Rows, quantity: Quantity) -> str:
    lines = _head(rows)
    for name, row in rows.items():
        if not any(result.figure(quantity) for result in row.values()):
            continue
        floor = _floor(row)
        fair = [result for result in row.values() if result.measured and result.measured.share >= floor]
        best = _best(fair, quantity)
        lines.append(f"| {name} | {' | '.join(_cell(result, quantity, best, floor) for result in row.values())} |")
    return "\n".join(lines)


def _cell(result: Result, quantity: Quantity, best: Result | None, floor: float) -> str:
    found = result.figure(quantity)
    if result.measured is None:
        return "-" if result.failed == NOT_INSTALLED else "failed"
    if found is None:
        return "-"
    if not result.measured.int8_macs:
        return "left in float"
    number = f"**{_number(found.value)}**" if result is best else _number(found.value)
    if result.measured.share < floor:
        number = f"({number})"
    if found.low is None or found.high is None:
        return number
    return f"{number} [{found.low:.1f}, {found.high:.1f}]"


def _number(value: float) -> str:
    return "exact" if value == PERFECT_DB else f"{value:.2f}"


def _shares(rows: Rows) -> str:
    lines = _head(rows)
    for name, row in rows.items():
        cells = ["failed" if result.measured is None else f"{result.measured.share:.0f}" for result in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _head(rows: Rows) -> list[str]:
    tools = list(next(iter(rows.values()), {}))
    return [f"| model | {' | '.join(tools)} |", "|---" * (len(tools) + 1) + "|"]


def _failures(results: Sequence[Result]) -> str:
    """One line per message, with the tools and models that gave it."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.failed is not None:
            found.setdefault((result.case.name, _shortened(result.failed)), []).append(result.tool)
    lines = [f"* {model}, {', '.join(tools)}: {message}" for (model, message), tools in found.items()]
    return "\n".join(lines) or "Nothing."


def _shortened(message: str) -> str:
    plain = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(message.replace("|", "/").split()))
    return plain if len(plain) <= MESSAGE_LENGTH else f"{plain[: MESSAGE_LENGTH - 1]}…"
