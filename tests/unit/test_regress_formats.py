"""A check as table, JUnit XML, Markdown and OpenMetrics: what other programs read of it."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Failure, JUnitXml, Skipped, TestSuite
from markdown_it import MarkdownIt
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from rich.console import Console

from trt_opt.regress.metrics import METRICS, metric_of
from trt_opt.report.junit import junit_text
from trt_opt.report.markdown import MOST_ROWS, markdown_text
from trt_opt.report.openmetrics import FAMILIES, openmetrics_text
from trt_opt.report.regress import show_check
from trt_opt.report.sparkline import change_text, printable, sparkline, value_text
from trt_opt.values.accuracy import Verdict
from trt_opt.values.history import SeriesKey
from trt_opt.values.regression import Effect, RegressionReport, SeriesCheck, SeriesPoint

NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)

AWKWARD = (
    "a|b",
    "a\\|b",
    "`code`",
    "``",
    "<b>bold</b>",
    "<script>alert(1)</script>",
    "&lt;&amp;",
    "**x**_y_~~z~~",
    "[text](http://host)",
    "![image](x)",
    "two\nlines",
    "tab\there",
    "\x1b[31mred",
    "\x00",
    "\ufffe",
    "\u202egnp.model",
    'quote"d',
    "back\\slash",
    "]]>",
    "$x$",
    "Modell für Züge 🚄",
    "# heading",
    "---",
)


def points_of(*values: float) -> tuple[SeriesPoint, ...]:
    """A series, one run per value; NaN is not judged with."""
    return tuple(
        SeriesPoint(f"r{place}", f"2026-11-{place + 1:02d}T00:00:00Z", "", value, not math.isnan(value))
        for place, value in enumerate(values)
    )


def check_of(
    verdict: Verdict = "PASS", model: str = "digits", metric: str = "latency_ms", reason: str = "as before"
) -> SeriesCheck:
    """A series that became 10 % slower, or whatever the verdict says of it."""
    effect = Effect(math.log(1.1), (0.08, 0.12), 0.99, 0.02)
    key = SeriesKey(model, "FP32", "onnxruntime", "CPU", "onnxruntime 1.32.0", "batch=1")
    return SeriesCheck(key, metric_of(metric), verdict, reason, 1.1, 1.0, effect, points_of(1, 1, 1.02, 1.1))


def report_of(*checks: SeriesCheck, label: str = "nightly", verdict: Verdict = "FAIL") -> RegressionReport:
    """A report of these series."""
    return RegressionReport("r3", "2026-11-04T00:00:00Z", label, checks, verdict, "1 of 3", "history.db")


def suite_of(text: str) -> TestSuite:
    """The one suite of a JUnit file, as junitparser reads it."""
    read = JUnitXml.fromroot(ElementTree.fromstring(text))
    (suite,) = list(read)
    return suite


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of every table row, as a browser shows them."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [[_text_of(cell) for cell in row] for row in cells if row]


def _text_of(html: str) -> str:
    assert "<" not in html, f"markup in a cell: {html}"
    return "".join(ElementTree.fromstring(f"<p>{html.replace('&quot;', chr(34))}</p>").itertext())


def test_junit_counts_what_did_not_pass() -> None:
    """FAIL and INCONCLUSIVE are failures of different types, PASS is a case that passed."""
    suite = suite_of(
        junit_text(report_of(check_of("FAIL"), check_of("INCONCLUSIVE"), check_of()), allow_inconclusive=False)
    )
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 2, 0, 0)
    results = [case.result for case in suite]
    assert [[type(one) for one in found] for found in results] == [[Failure], [Failure], []]
    assert [results[0][0].type, results[1][0].type] == ["regression", "inconclusive"]
    assert results[0][0].message == "FAIL: as before"
    assert {one.name: one.value for one in suite.properties()}["label"] == "nightly"


def test_junit_skips_what_may_be_inconclusive() -> None:
    """Where an INCONCLUSIVE is let through it is skipped, never passed; a FAIL stays a failure."""
    suite = suite_of(junit_text(report_of(check_of("FAIL"), check_of("INCONCLUSIVE")), allow_inconclusive=True))
    assert (suite.tests, suite.failures, suite.skipped) == (2, 1, 1)
    assert [type(case.result[0]) for case in suite] == [Failure, Skipped]


def test_junit_without_series_does_not_pass() -> None:
    """A report of nothing is one failed case: an empty suite would look good."""
    suite = suite_of(junit_text(report_of(verdict="INCONCLUSIVE"), allow_inconclusive=False))
    assert (suite.tests, suite.failures) == (1, 1)


@pytest.mark.parametrize("name", AWKWARD)
def test_junit_takes_any_name(name: str) -> None:
    """Names and reasons arrive as they were, what XML cannot hold spelt out."""
    text = junit_text(report_of(check_of("FAIL", name, reason=name), label=name), allow_inconclusive=False)
    (case,) = list(suite_of(text))
    assert case.classname == printable(name)
    assert case.result[0].message == f"FAIL: {printable(name)}"


@given(name=NAMES, reason=NAMES)
def test_junit_takes_any_text(name: str, reason: str) -> None:
    """Whatever the text, the file is well-formed."""
    report = report_of(check_of("FAIL", name, reason=reason), label=reason)
    (case,) = list(suite_of(junit_text(report, allow_inconclusive=False)))
    assert case.classname == printable(name)


def test_markdown_shows_what_did_not_pass_first() -> None:
    """One row per series with its figures, change and history; those that passed are folded away behind the others."""
    report = report_of(check_of("FAIL"), check_of(metric="top1", model="other"))
    text = markdown_text(report)
    failed, passed = rows_of(text)
    assert failed[1:3] == ["digits · FP32 · onnxruntime · CPU · onnxruntime 1.32.0 · batch=1", "latency"]
    assert failed[3:6] == ["1.10 ms", "1.00 ms", "+10.0 %"]
    assert failed[6] == sparkline(report.checks[0].points)
    assert passed[1].startswith("other")
    assert text.index("digits") < text.index("<details>") < text.index("other") < text.index("</details>")


@pytest.mark.parametrize("name", AWKWARD)
def test_markdown_shows_any_name_as_it_is(name: str) -> None:
    """No name makes markup, a column or a row; it is shown as it is, control characters spelt out."""
    report = report_of(check_of("FAIL", name, reason=name), label=name)
    (row,) = rows_of(markdown_text(report))
    assert len(row) == 8
    assert row[1] == f"{printable(name)} · FP32 · onnxruntime · CPU · onnxruntime 1.32.0 · batch=1".strip()
    assert row[7] == printable(name).strip()


@given(name=NAMES, reason=NAMES)
def test_markdown_shows_any_text(name: str, reason: str) -> None:
    """Whatever the text, a row has its eight cells and nothing but text in them."""
    (row,) = rows_of(markdown_text(report_of(check_of("FAIL", f"m{name}", reason=reason), label=reason)))
    assert len(row) == 8
    assert row[1].startswith(f"m{printable(name)}".strip())
    assert row[7] == printable(reason).strip()


def test_markdown_of_very_many_series_is_short_enough() -> None:
    """GitHub shows a summary up to 1 MiB; what is left out is said."""
    text = markdown_text(report_of(*[check_of("FAIL")] * (MOST_ROWS + 7)))
    assert len(text.encode()) < 1 << 20
    assert len(rows_of(text)) == MOST_ROWS
    assert "7 more are not shown" in text


def test_openmetrics_is_understood() -> None:
    """Prometheus's parser reads figures in base units, what was expected, and one verdict of three per series."""
    report = report_of(check_of("FAIL"), check_of(metric="metric:own:f"), check_of(metric="top1"))
    families = {family.name: family for family in text_string_to_metric_families(openmetrics_text(report))}
    latency = families["trt_opt_latency_seconds"]
    assert (latency.type, latency.unit) == ("gauge", "seconds")
    assert latency.documentation
    assert latency.samples[0].value == pytest.approx(1.1e-3)
    assert latency.samples[0].labels["model"] == "digits"
    assert families["trt_opt_latency_expected_seconds"].samples[0].value == pytest.approx(1e-3)
    assert families["trt_opt_metric_ratio"].samples[0].labels["metric"] == "metric:own:f"
    verdicts = [one for one in families["trt_opt_series_verdict"].samples if one.value]
    assert [one.labels["trt_opt_series_verdict"] for one in verdicts] == ["FAIL", "PASS", "PASS"]
    (run,) = [one for one in families["trt_opt_run_verdict"].samples if one.value]
    assert run.labels["trt_opt_run_verdict"] == "FAIL"
    assert families["trt_opt_run"].samples[0].labels == {"run": "r3", "label": "nightly"}


def test_openmetrics_has_a_family_for_every_metric() -> None:
    """Every metric has a family whose name ends in its unit, and no two share one."""
    assert set(FAMILIES) == set(METRICS)
    assert len({family.name for family in FAMILIES.values()}) == len(FAMILIES)
    report = report_of(*(check_of(metric=name) for name in METRICS))
    read = {family.name: family.unit for family in text_string_to_metric_families(openmetrics_text(report))}
    assert all(read[family.name] == family.unit for family in FAMILIES.values())


def test_openmetrics_leaves_out_what_is_no_number() -> None:
    """A figure that is invalid has no sample, and its verdict all the same."""
    report = report_of(replace(check_of("INCONCLUSIVE"), value=math.nan, baseline=None, effect=None))
    families = {family.name for family in text_string_to_metric_families(openmetrics_text(report))}
    assert not {name for name in families if "latency" in name}
    assert "trt_opt_series_verdict" in families


@given(name=NAMES, label=NAMES)
def test_openmetrics_keeps_any_text(name: str, label: str) -> None:
    """Labels are read back as they were, whatever is in them."""
    text = openmetrics_text(report_of(check_of("FAIL", f"m{name}"), label=label))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["trt_opt_latency_seconds"].samples[0].labels["model"] == f"m{name}"
    assert families["trt_opt_run"].samples[0].labels.get("label", "") == label


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((1, 2, 3, 4, 5, 6, 7, 8), "▁▂▃▄▅▆▇█"),
        ((5, 5, 5), "▄▄▄"),
        ((1, math.nan, 8), "▁·█"),
        ((math.nan,), "·"),
        ((), ""),
        ((0.0, 0.0), "▄▄"),
        ((-1, 1), "▁█"),
    ],
)
def test_sparkline(values: tuple[float, ...], shown: str) -> None:
    """From the least to the greatest; all alike are in the middle, what is not judged with is a dot."""
    assert sparkline(points_of(*values)) == shown


def test_sparkline_does_not_stretch_to_what_is_invalid() -> None:
    """A figure that is not judged with is a dot, whatever its value, and leaves the others' heights alone."""
    first, outlier, last = points_of(1, 100, 2)
    assert sparkline((first, replace(outlier, is_valid=False), last)) == "▁·█"


def test_sparkline_shows_the_newest() -> None:
    """A long series is cut in front."""
    assert sparkline(points_of(9, 1, 2), most=2) == "▁█"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.2345, "ms", "1.23 ms"),
        (0.01234, "ms", "0.0123 ms"),
        (123.4, "ms", "123 ms"),
        (16400.2, "per s", "16400 /s"),
        (0.98333, "share", "98.33 %"),
        (31.25, "dB", "31.2 dB"),
        (4_100_000, "bytes", "4.1 MB"),
        (math.nan, "ms", "-"),
        (None, "s", "-"),
    ],
)
def test_figures_carry_their_unit(value: float | None, unit: str, shown: str) -> None:
    """Three digits and the unit; a dash where there is no figure."""
    assert value_text(value, unit) == shown


@pytest.mark.parametrize(
    ("metric", "worse", "shown"),
    [
        ("latency_ms", math.log(1.05), "+5.0 %"),
        ("throughput_per_s", -math.log(0.95), "-5.0 %"),
        ("top1", 0.008, "-0.80 points"),
        ("sqnr_db", -1.5, "+1.50 dB"),
        ("latency_ms", -1e-9, "+0.0 %"),
    ],
)
def test_changes_are_read_as_the_figure_changed(metric: str, worse: float, shown: str) -> None:
    """More latency has a plus, less accuracy a minus; nothing is "-0.0"."""
    assert change_text(Effect(worse, (0, 0), 0.99, 0.02), metric_of(metric)) == shown


def test_the_table_is_safe_for_terminals() -> None:
    """A name cannot steer the terminal, nor be taken for markup; reasons of what did not pass are printed."""
    stream = io.StringIO()
    report = report_of(check_of("FAIL", "\x1b[2J[red]x[/red]", reason="10 % slower"), check_of())
    show_check(report, Console(file=stream, width=160))
    shown = stream.getvalue()
    assert "\x1b" not in shown
    assert r"\x1b[2J[red]x[/red]" in shown
    assert "10 % slower" in shown
    assert sparkline(report.checks[0].points) in shown
