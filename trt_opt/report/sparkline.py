"""What a row about a series holds: names, figures with their unit, changes, and the series as block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trt_opt.report.show import short, size_text
from trt_opt.values.regression import Effect, MetricKind, SeriesPoint

LEVELS = "".join(chr(code) for code in range(0x2581, 0x2589))
"""One eighth of a block up to the whole."""

UNJUDGED = "\N{MIDDLE DOT}"
"""Stands for a figure that was not judged with."""

MOST_POINTS = 24

NONE = "-"


def sparkline(points: Sequence[SeriesPoint], most: int = MOST_POINTS) -> str:
    """The newest points, one character each, from the least to the greatest value; all alike are of middle height."""
    newest = points[-most:]
    usable = [point.value for point in newest if _is_usable(point)]
    if not usable:
        return UNJUDGED * len(newest)
    low, high = min(usable), max(usable)
    return "".join(_level(point.value, low, high) if _is_usable(point) else UNJUDGED for point in newest)


def value_text(value: float | None, unit: str) -> str:
    """A figure with its unit: "1.23 ms", "98.33 %", "31.2 dB", "4.1 MB"; "-" where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    if unit == "share":
        return f"{100 * value:.2f} %"
    if unit == "bytes":
        return size_text(round(value))
    if unit == "dB":
        return f"{value:.1f} dB"
    number = f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return f"{number} {'/s' if unit == 'per s' else unit}"


def change_text(effect: Effect | None, metric: MetricKind) -> str:
    """A change as it is read: "+3.1 %", "-0.80 points", "-1.50 dB"; "-" where none is known."""
    if effect is None or not math.isfinite(effect.worse):
        return NONE
    change = effect.worse if metric.better == "lower" else -effect.worse
    # 0 is added so that nothing is "-0.0".
    if metric.relative:
        return f"{round(100 * math.expm1(change), 1) + 0:+.1f} %"
    if metric.unit == "share":
        return f"{round(100 * change, 2) + 0:+.2f} points"
    return f"{round(change, 2) + 0:+.2f} {metric.unit}"


def printable(text: str, most: int | None = None) -> str:
    r"""Text from elsewhere, with what steers terminals and parsers spelt out: "a\n", "\x1b[0m", "\u202e".

    Args:
        text: The text.
        most: How long it may be; its middle is left out where it is longer.
    """
    spelt = "".join(one if one.isprintable() else _escape(one) for one in text)
    return spelt if most is None else short(spelt, most)


def _is_usable(point: SeriesPoint) -> bool:
    return point.is_valid and math.isfinite(point.value)


def _level(value: float, low: float, high: float) -> str:
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return LEVELS[len(LEVELS) // 2 - 1]
    return LEVELS[round((value - low) / (high - low) * (len(LEVELS) - 1))]


def _escape(one: str) -> str:
    return one.encode("unicode_escape", "surrogatepass").decode("ascii")
