"""How often `trt-opt regress` is wrong, on made-up timings with the troubles of real machines.

Counts false alarms and missed slowdowns of A/B comparisons and of nightly series, with what a plain method makes of the
same figures.

    python scripts/benchmarks/regression_statistics.py --output docs/measured/regression_statistics.md
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import NormalDist

import numpy as np
from regression_noise import AB_NOISES, NIGHT_NOISES, Floats, Run

from trt_opt.regress.ab import ABLimits, judge_ab
from trt_opt.regress.location import student_quantile
from trt_opt.regress.metrics import METRICS
from trt_opt.regress.pilot import pilot_noise
from trt_opt.regress.series import judge_series
from trt_opt.values.metric import wilson_interval

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measured_page import write_page

LATENCY = METRICS["latency_ms"]

FIRST_LAUNCHES, MOST_LAUNCHES = 10, 30

NAIVE_THRESHOLD = 0.05

HISTORY, SHIFTED = 60, 5
"""Nights before a shift, and nights within which it is to be found."""

FIRST_CHECK = 6


@dataclass(frozen=True, slots=True)
class ABCase:
    """One row of A/B comparisons.

    Attributes:
        noise: A key of `AB_NOISES`.
        level: Of the noise.
        slowdown: Of the candidate, a share.
        tries: How many comparisons.
    """

    noise: str
    level: float
    slowdown: float
    tries: int


@dataclass(frozen=True, slots=True)
class NightCase:
    """One row of nightly series.

    Attributes:
        noise: A key of `NIGHT_NOISES`.
        level: Of the noise.
        shift: After `HISTORY` nights, a share; 0 asks for false alarms, night after night.
        series: How many.
    """

    noise: str
    level: float
    shift: float
    series: int


def ab_counts(case: ABCase) -> Counter[str]:
    """Verdicts, and the alarms of plain methods, of one case; "launches" adds them up."""
    counts: Counter[str] = Counter()
    for number in range(case.tries):
        rng = np.random.default_rng([number, round(1e4 * case.level), round(1e4 * case.slowdown), len(case.noise)])
        times = np.exp(AB_NOISES[case.noise](Run(launches=MOST_LAUNCHES, noise=case.level), rng))
        times[..., 2] *= 1 + case.slowdown
        verdict, launches = looked_at(times)
        counts[verdict] += 1
        counts["launches"] += launches
        first = times[:FIRST_LAUNCHES]
        counts["default"] += verdict_of(first) == "FAIL"
        base, candidate = first[..., 0].ravel(), first[..., 2].ravel()
        counts["t-test"] += is_slower_by_t_test(base, candidate)
        counts["threshold"] += bool(np.median(candidate) > (1 + NAIVE_THRESHOLD) * np.median(base))
    return counts


def verdict_of(times: Floats) -> str:
    """What the launches come to: [launches, rounds, sides]."""
    base, again, candidate = (times[..., side].ravel().tolist() for side in range(3))
    limits = ABLimits(blocks=len(times))
    pilot = pilot_noise(base, again, blocks=limits.blocks, confidence=limits.confidence)
    return judge_ab(base, candidate, pilot, limits, again=again)[1]


def looked_at(times: Floats) -> tuple[str, int]:
    """The verdict as `trt-opt regress ab` comes to it, with more launches while it is INCONCLUSIVE."""
    for launches in range(FIRST_LAUNCHES, MOST_LAUNCHES + 1, FIRST_LAUNCHES):
        verdict = verdict_of(times[:launches])
        if verdict != "INCONCLUSIVE":
            break
    return verdict, launches


def is_slower_by_t_test(base: Floats, candidate: Floats) -> bool:
    """Welch's one-sided t-test at 99 % on all rounds, as if they were independent."""
    error = math.sqrt(base.var(ddof=1) / len(base) + candidate.var(ddof=1) / len(candidate))
    return bool(candidate.mean() - base.mean() > student_quantile(0.99, 2 * len(base) - 2) * error)


def night_counts(case: NightCase) -> Counter[str]:
    """Verdicts of all checks of series without a shift, or in which night a shift was found."""
    counts: Counter[str] = Counter()
    nights = HISTORY + SHIFTED
    for number in range(case.series):
        rng = np.random.default_rng([number, round(1e4 * case.level), round(1e4 * case.shift), len(case.noise)])
        logs = NIGHT_NOISES[case.noise](nights, case.level, rng)
        logs[HISTORY:] += math.log1p(case.shift)
        times = np.exp(logs).tolist()
        if case.shift:
            found = [night for night in range(1, SHIFTED + 1) if is_flagged(times[: HISTORY + night])]
            naive = [night for night in range(1, SHIFTED + 1) if naive_flags(times[: HISTORY + night])]
            counts[f"night {found[0]}" if found else "missed"] += 1
            counts["naive found"] += bool(naive)
            continue
        for night in range(FIRST_CHECK, nights + 1):
            counts[("early " if night <= 25 else "") + judge_series(times[:night], LATENCY).verdict] += 1
            counts["threshold"] += naive_flags(times[:night])
            counts["z-score"] += z_score_flags(times[:night])
    return counts


def is_flagged(times: Sequence[float]) -> bool:
    """Whether the series check fails."""
    return judge_series(times, LATENCY).verdict == "FAIL"


def naive_flags(times: Sequence[float]) -> bool:
    """Whether the newest night is 5 % above the median of the ten before."""
    return times[-1] > (1 + NAIVE_THRESHOLD) * float(np.median(times[-11:-1]))


def z_score_flags(times: Sequence[float]) -> bool:
    """Whether the newest night is above mean plus 2.33 standard deviations of the ten before."""
    before = np.asarray(times[-11:-1])
    return times[-1] > before.mean() + NormalDist().inv_cdf(0.99) * before.std(ddof=1)


def rate(count: int, of: int) -> str:
    """A share in per cent with Wilson's 95 % interval."""
    low, high = wilson_interval(count / of, of)
    return f"{100 * count / of:.2f} ({100 * low:.2f} … {100 * high:.2f})"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ab_cases(tries: int) -> tuple[list[ABCase], list[ABCase]]:
    """False alarms by kind of noise, and power by slowdown and level."""
    alarms = [ABCase(noise, 0.02, 0.0, tries) for noise in AB_NOISES]
    power = [
        ABCase("log-normal", level, slowdown, max(100, tries // 2))
        for level in (0.01, 0.02, 0.04)
        for slowdown in (0.0, 0.03, 0.05, 0.1)
    ]
    power += [ABCase(noise, 0.02, 0.05, max(100, tries // 2)) for noise in AB_NOISES if noise != "log-normal"]
    return alarms, power


def night_cases(series: int) -> tuple[list[NightCase], list[NightCase]]:
    """False alarms by kind of noise and level, and how fast a shift of 3 % is found."""
    alarms = [NightCase(noise, level, 0.0, series) for level in (0.01, 0.02) for noise in NIGHT_NOISES]
    shifts = [NightCase("log-normal", level, 0.03, 2 * series) for level in (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02)]
    shifts += [NightCase("log-normal", 0.02, 0.05, 2 * series)]
    shifts += [NightCase(noise, 0.01, 0.03, 2 * series) for noise in NIGHT_NOISES if noise != "log-normal"]
    return alarms, shifts


def ab_alarm_row(case: ABCase, counts: Mapping[str, int]) -> list[str]:
    """One kind of noise without a slowdown."""
    names = ("FAIL", "INCONCLUSIVE", "t-test", "threshold")
    return [case.noise, *(rate(counts[name], case.tries) for name in names), f"{counts['launches'] / case.tries:.0f}"]


def ab_power_row(case: ABCase, counts: Mapping[str, int]) -> list[str]:
    """One slowdown."""
    told = [case.noise, f"{100 * case.level:g} %", f"{100 * case.slowdown:g} %"]
    names = ("FAIL", "default", "PASS", "INCONCLUSIVE")
    return [*told, *(rate(counts[name], case.tries) for name in names), f"{counts['launches'] / case.tries:.0f}"]


def night_alarm_row(case: NightCase, counts: Mapping[str, int]) -> list[str]:
    """One kind of noise without a shift."""
    early = 26 - FIRST_CHECK
    late = HISTORY + SHIFTED - 25
    cells = [
        rate(counts["FAIL"] + counts["early FAIL"], case.series * (early + late)),
        rate(counts["early INCONCLUSIVE"], case.series * early),
        rate(counts["INCONCLUSIVE"], case.series * late),
        *(rate(counts[name], case.series * (early + late)) for name in ("threshold", "z-score")),
    ]
    return [case.noise, f"{100 * case.level:g} %", *cells]


def night_shift_row(case: NightCase, counts: Mapping[str, int]) -> list[str]:
    """How fast one shift is found."""
    by_night = np.cumsum([counts[f"night {night}"] for night in range(1, SHIFTED + 1)])
    cells = [f"{100 * count / case.series:.0f}" for count in by_night[:-1]]
    naive = rate(counts["naive found"], case.series)
    told = [case.noise, f"{100 * case.level:g} %", f"{100 * case.shift:g} %"]
    return [*told, *cells, rate(int(by_night[-1]), case.series), naive]


def main() -> int:
    """Simulates, prints and writes the page; fails where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=400, help="A/B comparisons per kind of noise")
    parser.add_argument("--series", type=int, default=100, help="nightly series per kind of noise")
    parser.add_argument("--output", type=Path, help="page to write; its text after the line '## Notes' is kept")
    asked = parser.parse_args()
    start = time.perf_counter()
    ab, nights = ab_cases(asked.tries), night_cases(asked.series)
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        ab_done = [list(pool.map(ab_counts, cases)) for cases in ab]
        night_done = [list(pool.map(night_counts, cases)) for cases in nights]
    text = page(
        [ab_alarm_row(case, done) for case, done in zip(ab[0], ab_done[0], strict=True)],
        [ab_power_row(case, done) for case, done in zip(ab[1], ab_done[1], strict=True)],
        [night_alarm_row(case, done) for case, done in zip(nights[0], night_done[0], strict=True)],
        [night_shift_row(case, done) for case, done in zip(nights[1], night_done[1], strict=True)],
        (asked, time.perf_counter() - start),
    )
    print(text)
    write_page(text, asked.output)
    return 0


AB_ALARMS = ("noise", "FAIL", "INCONCLUSIVE", "t-test alarms", "5 % limit alarms", "launches, mean")
AB_POWER = (
    "noise",
    "level",
    "slower by",
    "FAIL",
    "FAIL, first 10 launches",
    "PASS",
    "INCONCLUSIVE",
    "launches, mean",
)
NIGHT_ALARMS = (
    "noise",
    "level",
    "FAIL",
    "INCONCLUSIVE, night 6 to 25",
    "INCONCLUSIVE, later",
    "5 % limit alarms",
    "z-score alarms",
)
NIGHT_SHIFTS = (
    "noise",
    "level",
    "shift",
    *(f"by night {night}" for night in range(1, SHIFTED + 1)),
    "5 % limit by night 5",
)


def page(
    ab_alarms: Sequence[Sequence[str]],
    ab_power: Sequence[Sequence[str]],
    night_alarms: Sequence[Sequence[str]],
    night_shifts: Sequence[Sequence[str]],
    run: tuple[argparse.Namespace, float],
) -> str:
    """All tables."""
    asked, seconds = run
    return f"""# How often a regression check is wrong

Made-up timings, seeded. Every rate is in per cent, with Wilson's 95 % interval in brackets. What the kinds of noise are
is said in `scripts/benchmarks/regression_noise.py`; the level is the standard deviation of one round, or of one night's
figure, which is the median of its rounds already.

## A/B: two files timed in turns

As `trt-opt regress ab` does it: floor 2 %, confidence 99 %, a pilot, {FIRST_LAUNCHES} launches of 5 rounds, and up to
{MOST_LAUNCHES} launches while the verdict is INCONCLUSIVE. Beside it, on the first {FIRST_LAUNCHES} launches, Welch's
t-test on all rounds at 99 %, and a limit of 5 % on the ratio of medians.

### Alarms where nothing changed, noise of 2 %

{table(AB_ALARMS, ab_alarms)}

### Slowdowns

"first 10 launches" is what FAILs without any more of them.

{table(AB_POWER, ab_power)}

## Nights: the newest figures against their series

`judge_series` with its defaults and the floor of latency, 2 %. A check in every night from the {FIRST_CHECK}th to the
{HISTORY + SHIFTED}th. Beside it a limit of 5 % above the median of the ten nights before, and mean plus 2.33 standard
deviations of them.

### Alarms where nothing changed, per check

{table(NIGHT_ALARMS, night_alarms)}

### A lasting shift after {HISTORY} nights: share of the series in which it is found

{table(NIGHT_SHIFTS, night_shifts)}

Written on {datetime.now(timezone.utc):%Y-%m-%d} by
`python scripts/benchmarks/regression_statistics.py --tries {asked.tries} --series {asked.series}`
in {seconds:.0f} s on {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}.
"""


if __name__ == "__main__":
    sys.exit(main())
