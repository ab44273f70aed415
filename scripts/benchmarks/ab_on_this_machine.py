"""What `trt-opt regress ab` says on this machine, busy as it is, where the answer is known.

A convolutional network in ONNX Runtime against itself, again and again, which must never be a regression; and against
the same network with every layer twice, which must always be one.

    python scripts/benchmarks/ab_on_this_machine.py --tries 50 --doubled 20 --output docs/measured/ab_on_cpu.md
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_opt.regress.ab import ABLimits
from trt_opt.regressing.ab import ABRequest, ab_result
from trt_opt.telemetry import machine_identity
from trt_opt.values.metric import wilson_interval
from trt_opt.values.regression import ABResult
from trt_opt.values.timing import TimingSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measured_page import write_page

CHANNELS, SIZE, LAYERS = 16, 48, 8

SETTINGS = TimingSettings(rounds=4, round_s=0.04, warm_up_s=0.3, threads=1)
LAUNCHES, MOST_LAUNCHES = 5, 10


def network(layers: int) -> onnx.ModelProto:
    """So many 3x3 convolutions with ReLU, seeded."""
    rng = np.random.default_rng(0)
    nodes, constants, name = [], [], "x"
    for index in range(layers):
        weight = rng.normal(0, 1 / math.sqrt(9 * CHANNELS), (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1, 1, 1, 1]))
        name = "y" if index == layers - 1 else f"r{index}"
        nodes.append(helper.make_node("Relu", [f"c{index}"], [name], f"relu{index}"))
    shape = [1, CHANNELS, SIZE, SIZE]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", "y")]
    graph = helper.make_graph(nodes, f"convolutions_{layers}", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass(frozen=True, slots=True)
class Try:
    """One comparison.

    Attributes:
        result: What came of it.
        seconds: How long it took.
    """

    result: ABResult
    seconds: float

    @property
    def launches(self) -> int:
        """How often the sides were started."""
        return len(self.result.base.rounds) // SETTINGS.rounds


def tried(base: Path, candidate: Path, count: int) -> Iterator[Try]:
    """Compares so many times."""
    for number in range(count):
        start = time.perf_counter()
        request = ABRequest(
            str(base),
            str(candidate),
            launches=LAUNCHES,
            most_launches=MOST_LAUNCHES,
            settings=SETTINGS,
            limits=ABLimits(),
            allow_invalid=True,
        )
        done = Try(ab_result(request), time.perf_counter() - start)
        print(f"{number + 1}/{count} {done.result.verdict} {done.result.reason} ({done.seconds:.0f} s)", flush=True)
        yield done


def row(name: str, tries: Sequence[Try]) -> str:
    """A line of the table."""
    verdicts = Counter(entry.result.verdict for entry in tries)
    cells = []
    for verdict in ("FAIL", "PASS", "INCONCLUSIVE"):
        low, high = wilson_interval(verdicts[verdict] / len(tries), len(tries))
        cells.append(f"{verdicts[verdict]} ({100 * low:.0f} … {100 * high:.0f} %)")
    effects = [100 * math.expm1(entry.result.effect.worse) for entry in tries if entry.result.effect]
    told = [100 * math.expm1(entry.result.pilot.floor) for entry in tries if entry.result.pilot]
    spread = [100 * entry.result.pilot.spread for entry in tries if entry.result.pilot]
    invalid = sum(bool(entry.result.environment.problems) for entry in tries)
    launches = np.mean([entry.launches for entry in tries])
    seconds = np.median([entry.seconds for entry in tries])
    return (
        f"| {name} | {len(tries)} | {' | '.join(cells)} | {np.median(effects):+.1f} % "
        f"({min(effects):+.1f} … {max(effects):+.1f}) | {np.median(spread):.1f} % | {np.median(told):.1f} % "
        f"| {invalid} | {launches:.1f} | {seconds:.0f} s |"
    )


HEADINGS = (
    "candidate",
    "tries",
    "FAIL",
    "PASS",
    "INCONCLUSIVE",
    "slower by, median (all)",
    "scatter of rounds",
    "tells apart",
    "too busy",
    "launches, mean",
    "time, median",
)


def page(same: Sequence[Try], doubled: Sequence[Try]) -> str:
    """The page of both tables."""
    machine = machine_identity()
    return f"""# What an A/B comparison says on a busy machine

{LAYERS} convolutions of {CHANNELS} channels on {SIZE}x{SIZE} in ONNX Runtime, one thread, by the code of
`trt-opt regress ab`: floor 2 %, confidence 99 %, {LAUNCHES} launches of {SETTINGS.rounds} rounds of
{SETTINGS.round_s:g} s, and up to {MOST_LAUNCHES} launches while nothing can be told. The defaults are two to three
times as many launches, and longer rounds. Other work ran on the same cores meanwhile, and `--allow-invalid` was on: how
often the machine was too busy for a valid run is a column.

| {" | ".join(HEADINGS)} |
|{"---|" * len(HEADINGS)}
{row("the same file", same)}
{row("every layer twice", doubled)}

In brackets behind a count: Wilson's 95 % interval of its share. "Scatter of rounds" and "tells apart" are what the
pilot learnt, the base against itself: the robust standard deviation of a round's log-ratio, and the least effect that
this machine could tell in this try, medians over the tries.

Written on {datetime.now(timezone.utc):%Y-%m-%d} by
`python scripts/benchmarks/ab_on_this_machine.py --tries {len(same)} --doubled {len(doubled)}`
on {machine.cpu}, {machine.cores} cores, Python {platform.python_version()}, {same[0].result.base.library}.
"""


def main() -> int:
    """Compares, prints and writes the page; fails where a verdict was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=50, help="comparisons of a model with itself")
    parser.add_argument("--doubled", type=int, default=20, help="comparisons with doubled work")
    parser.add_argument("--output", type=Path, help="page to write; its text after the line '## Notes' is kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, twice = Path(folder) / "convolutions.onnx", Path(folder) / "convolutions_twice.onnx"
        onnx.save(network(LAYERS), base)
        onnx.save(network(2 * LAYERS), twice)
        doubled = tuple(tried(base, twice, asked.doubled))
        same = tuple(tried(base, base, asked.tries))
    text = page(same, doubled)
    print(text)
    write_page(text, asked.output)
    wrong = [entry for entry in same if entry.result.verdict == "FAIL"]
    wrong += [entry for entry in doubled if entry.result.verdict != "FAIL"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
