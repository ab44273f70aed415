"""A check as GitHub-flavoured Markdown, for a pull request or a job's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trt_opt.report.sparkline import change_text, printable, sparkline, value_text
from trt_opt.values.regression import RegressionReport, SeriesCheck

MARKS = {"PASS": "\u2705", "FAIL": "\u274c", "INCONCLUSIVE": "\u26a0\ufe0f"}

MOST_ROWS = 500
"""GitHub shows a job's summary up to 1 MiB."""

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#~!$])")

_HEAD = "| | series | figure | newest | expected | change | history | why |\n|:-:|:--|:--|--:|--:|--:|:--|:--|\n"


def markdown_text(report: RegressionReport) -> str:
    """The report as Markdown: what did not pass in a table of its own, what passed folded away."""
    lines = [
        f"## {MARKS[report.verdict]} {report.verdict}: {_text(report.reason)}\n",
        f"Run {_text(report.label or report.run)} of {_text(report.recorded_at)}: {_counts(report.checks)}.\n",
    ]
    wrong = [check for check in report.checks if check.verdict != "PASS"]
    passed = [check for check in report.checks if check.verdict == "PASS"]
    if wrong:
        lines.append(_table(wrong))
    if passed:
        # A blank line behind the tag lets Markdown begin again.
        lines.append(f"<details><summary>{len(passed)} passed</summary>\n\n{_table(passed)}\n</details>\n")
    return "\n".join(lines)


def _counts(checks: Sequence[SeriesCheck]) -> str:
    counts = {
        verdict: sum(check.verdict == verdict for check in checks) for verdict in ("FAIL", "INCONCLUSIVE", "PASS")
    }
    words = {"FAIL": "worse", "INCONCLUSIVE": "inconclusive", "PASS": "passed"}
    told = [f"{count} {words[verdict]}" for verdict, count in counts.items() if count]
    return f"{len(checks)} series, {', '.join(told)}" if told else "no series"


def _table(checks: Sequence[SeriesCheck]) -> str:
    rows = [_row(_cells(check)) for check in checks[:MOST_ROWS]]
    more = len(checks) - len(rows)
    return _HEAD + "".join(rows) + (f"\n{more} more are not shown.\n" if more else "")


def _cells(check: SeriesCheck) -> Iterable[str]:
    metric = check.metric
    yield MARKS[check.verdict]
    yield _text(str(check.key))
    yield _text(metric.title)
    yield value_text(check.value, metric.unit)
    yield value_text(check.baseline, metric.unit)
    yield change_text(check.effect, metric)
    yield sparkline(check.points)
    yield _text(check.reason)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _text(text: str) -> str:
    """The text as Markdown that shows exactly it."""
    active = _ACTIVE.sub(r"\\\1", printable(text).replace("&", "&amp;"))
    # An entity and no backslash: a table is cut into cells before backslashes are read.
    return active.replace("|", "&#124;")
