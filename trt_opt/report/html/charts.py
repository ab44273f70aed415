"""Vega-Lite specifications; colours are the style sheet's variables, so that light and dark need no second chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
ACCENT, ALARM = "var(--series-1)", "var(--fail)"

ROW_PX = 34
"""Height of a name's row."""

BAR_PX = 22

LOG_FROM = 30
"""How many times the smallest median the largest percentile must be for a logarithmic axis."""

AXES_PX = 50
"""Height of an axis with its title."""


def interval_chart(rows: Rows, title: str) -> dict[str, Any]:
    """A point per name, and its interval.

    Args:
        rows: "name", "value", "low", "high", "tip".
        title: Of the axis.
    """
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 180}}
    x: dict[str, Any] = {"field": "value", "type": "quantitative", "title": title, "axis": {"tickCount": 6}}
    x["scale"] = {"zero": False, "nice": True}
    tip = [{"field": "tip", "title": "name"}]
    return {
        "data": {"values": list(rows)},
        "height": ROW_PX * len(rows) + AXES_PX,
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": ACCENT, "opacity": 0.55},
                "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "color": ACCENT},
                "encoding": {"y": y, "x": x, "tooltip": tip},
            },
        ],
    }


def latency_chart(rows: Rows) -> dict[str, Any]:
    """The median as a bar, with the 90th and 99th percentile as ticks; a point where the axis is logarithmic.

    Args:
        rows: "name", "median", "p90", "p99", "tip".
    """
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 180}}
    x: dict[str, Any] = {"field": "median", "type": "quantitative", "axis": {"tickCount": 6}}
    x["title"] = "ms per request: median, and p90, p99 as ticks"
    least = min((row["median"] for row in rows), default=0.0)
    wide = 0 < LOG_FROM * least < max((row["p99"] for row in rows), default=0.0)
    if wide:
        x |= {"scale": {"type": "log"}, "axis": {"format": "~g", "tickCount": 5, "grid": False}}
    median = {"type": "point", "filled": True, "size": 80} if wide else {"type": "bar", "height": 14}
    tip = [{"field": "tip", "title": "name"}]
    tick = {"type": "tick", "thickness": 2, "size": 18}
    return {
        "data": {"values": list(rows)},
        "height": ROW_PX * len(rows) + AXES_PX,
        "layer": [
            {"mark": {**median, "color": ACCENT}, "encoding": {"y": y, "x": x, "tooltip": tip}},
            {"mark": {**tick, "color": "var(--ink)"}, "encoding": {"y": y, "x": {**x, "field": "p90"}}},
            {"mark": {**tick, "color": "var(--soft)"}, "encoding": {"y": y, "x": {**x, "field": "p99"}}},
        ],
    }


def lines_chart(rows: Rows, x: str, y: str, *, log_x: bool = False) -> dict[str, Any]:
    """A line per name.

    Args:
        rows: "x", "y", "name".
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        log_x: Whether the horizontal axis is logarithmic with base 2.
    """
    scale = {"type": "log", "base": 2} if log_x else {"zero": False, "nice": False}
    ticks = {"values": sorted({row["x"] for row in rows})} if log_x else {"tickMinStep": 1}
    axis = {"grid": False, "format": "d", **ticks}
    names = list(dict.fromkeys(str(row["name"]) for row in rows))
    return {
        "data": {"values": list(rows)},
        "height": 220,
        "mark": {"type": "line", "point": {"size": 28, "filled": True}, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "title": x, "scale": scale, "axis": axis},
            "y": {"field": "y", "type": "quantitative", "title": y, "scale": {"zero": False}},
            "color": {
                "field": "name",
                "type": "nominal",
                "scale": {"domain": names, "range": [SERIES[place % len(SERIES)] for place in range(len(names))]},
                "legend": {"title": None, "orient": "top", "columns": 1, "labelLimit": 280} if len(names) > 1 else None,
            },
            "tooltip": [{"field": "name"}, {"field": "x", "title": x}, {"field": "y", "title": y, "format": ".4g"}],
        },
    }


def bars_chart(rows: Rows, title: str) -> dict[str, Any]:
    """A bar per name.

    Args:
        rows: "name", "value", "tip".
        title: Of the axis.
    """
    return {
        "data": {"values": list(rows)},
        "height": BAR_PX * len(rows) + AXES_PX,
        "mark": {"type": "bar", "color": ACCENT, "height": 12},
        "encoding": {
            "y": {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 180}},
            "x": {"field": "value", "type": "quantitative", "title": title, "axis": {"tickCount": 6}},
            "tooltip": [{"field": "tip", "title": "name"}],
        },
    }


def distribution_chart(rows: Rows, threshold: float | None) -> dict[str, Any]:
    """A histogram of magnitudes with a logarithmic count, and the threshold as a line.

    Args:
        rows: "left", "right", "count", none with a count of 0.
        threshold: The largest magnitude that INT8 holds.
    """
    bars = {
        "data": {"values": list(rows)},
        "mark": {"type": "rect", "color": ACCENT, "opacity": 0.75},
        "encoding": {
            "x": {"field": "left", "type": "quantitative", "title": "magnitude", "axis": {"grid": False}},
            "x2": {"field": "right"},
            "y": {
                "field": "count",
                "type": "quantitative",
                "title": "elements",
                "scale": {"type": "log", "domainMin": 0.8},
                "axis": {"format": "~s", "tickCount": 4, "grid": False},
            },
            "y2": {"datum": 0.8},
            "tooltip": [{"field": "left", "format": ".3g"}, {"field": "count", "format": ","}],
        },
    }
    line = {
        "data": {"values": [{"threshold": threshold}]},
        "mark": {"type": "rule", "color": ALARM, "strokeWidth": 2, "strokeDash": [5, 3]},
        "encoding": {"x": {"field": "threshold", "type": "quantitative"}},
    }
    return {"height": 170, "layer": [bars] if threshold is None else [bars, line]}


def history_chart(rows: Rows, baseline: float | None, title: str) -> dict[str, Any]:
    """A series over its runs; change-points are vertical lines, figures that were not judged with hollow.

    Args:
        rows: "place", "value" (None is left out), "valid", "change", "verdict", "tip".
        baseline: What the history leads to expect; None without.
        title: Of the vertical axis.
    """
    known = [row["value"] for row in rows if row["value"] is not None] + ([] if baseline is None else [baseline])
    axis = {"grid": False, "tickMinStep": 1, "format": "d"}
    x = {"field": "place", "type": "quantitative", "title": "run", "axis": axis}
    x["scale"] = {"domain": [0.5, max((row["place"] for row in rows), default=1) + 0.5], "nice": False}
    y = {"field": "value", "type": "quantitative", "title": title, "scale": _y_scale(known)}
    colour = {"condition": {"test": "datum.verdict === 'FAIL'", "value": ALARM}, "value": ACCENT}
    tip = [{"field": "tip", "title": "run"}]
    valid = [row for row in rows if row["valid"] and row["value"] is not None]
    invalid = [row for row in rows if not row["valid"] and row["value"] is not None]
    changes = [{"before": row["place"] - 0.5} for row in rows if row["change"]]
    point = {"type": "point", "size": 42}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": changes},
            "mark": {"type": "rule", "color": "var(--inconclusive)", "strokeDash": [4, 3], "strokeWidth": 1.5},
            "encoding": {"x": {**x, "field": "before"}},
        },
        {
            "data": {"values": valid},
            "mark": {"type": "line", "color": ACCENT, "strokeWidth": 1.2, "opacity": 0.6},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"values": valid},
            "mark": {**point, "filled": True},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": tip},
        },
        {
            "data": {"values": invalid},
            "mark": {**point, "filled": False, "color": "var(--soft)"},
            "encoding": {"x": x, "y": y, "tooltip": tip},
        },
    ]
    layers = [layer for layer in layers if layer["data"]["values"]]
    if baseline is not None:
        layers.append(
            {
                "data": {"values": [{"baseline": baseline}]},
                "mark": {"type": "rule", "color": "var(--soft)", "strokeWidth": 1},
                "encoding": {"y": {"field": "baseline", "type": "quantitative"}},
            }
        )
    return {"height": 190, "layer": layers}


def _y_scale(values: Sequence[float]) -> dict[str, Any]:
    """Not from zero; around values that are all but equal a domain is named, or the axis shows rounding errors."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high - low > 1e-6 * max(abs(low), abs(high)):
        return {"zero": False}
    margin = 0.01 * abs(high) or 1.0
    return {"domain": [low - margin, high + margin]}
