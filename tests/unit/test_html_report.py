"""The HTML page, read as text: nothing from outside, no name breaks it, and words stand where something is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run

from trt_opt.report.html import html_from_content, rendering
from trt_opt.run_report.reading import results_of
from trt_opt.values.history import SeriesKey
from trt_opt.values.regression import MetricKind, RegressionReport, SeriesCheck, SeriesPoint
from trt_opt.values.report_content import Distribution, ReportContent

EMPTY = ReportContent("A title", "2026-01-02T03:04:05+00:00", "trt-opt 0.1.0")

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"

LATENCY = MetricKind("latency_ms", "latency", "ms", "lower", True, 0.02)


def regression(name: str = "resnet", count: int = 12) -> RegressionReport:
    """A series that became slower in the middle, and one run in it that was not judged."""
    points = tuple(
        SeriesPoint(
            f"run{place}", f"2026-01-{place + 1:02}", f"commit {place}", 10.0 + (place > 6), place != 3, place == 7
        )
        for place in range(count)
    )
    key = SeriesKey(name, "INT8", "tensorrt", "GPU", "tensorrt 10.3.0", "batch=1")
    check = SeriesCheck(key, LATENCY, "FAIL", "10 % slower", 11.0, 10.0, None, points)
    return RegressionReport("run11", "2026-01-12", "commit 11", (check,), "FAIL", "1 of 1 series is slower", "h.db")


def distribution(name: str = "x") -> Distribution:
    """A tensor with a threshold."""
    return Distribution(name, f"reader of {name}", 0.5, (5, 0, 3, 1), 7, 1.6, -2.0, 1.9, 0.0625)


def own_part(page: str) -> str:
    """The page up to the charting library, which has markup of its own in texts."""
    return page.partition('<script type="module">')[0]


def specs_of(page: str) -> list[dict[str, object]]:
    """The charts' specifications."""
    found = re.search(r'<script type="application/json" id="specs">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    specs: list[dict[str, object]] = json.loads(found[1])
    return specs


def test_nothing_is_fetched() -> None:
    """No address of a script, style, font or picture; the library is inside, and the whole below 2 MB."""
    page = html_from_content(replace(EMPTY, regressions=(regression(),), distributions=(distribution(),)))
    own = own_part(page)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:,)""", own)
    assert "@import" not in own
    assert "url(" not in own
    assert len(page.encode()) < 2_000_000


@pytest.mark.parametrize("where", ["title", "series", "tensor"])
def test_a_name_stays_a_name(where: str) -> None:
    """No name of a model, layer or tensor becomes markup or ends a script."""

    def page_with(name: str) -> str:
        return html_from_content(
            {
                "title": replace(EMPTY, title=name),
                "series": replace(EMPTY, regressions=(regression(name),)),
                "tensor": replace(EMPTY, distributions=(distribution(name),)),
            }[where]
        )

    page = page_with(EVIL)
    assert "<script>alert" not in page
    assert "<img" not in own_part(page)
    assert page.count("</script>") == page_with("good").count("</script>")


def test_what_is_missing_is_said() -> None:
    """In one place, with the command for each; there is no empty section or chart, and no library without charts."""
    page = html_from_content(EMPTY)
    assert page.count("<section") == 3
    for command in (
        "trt-opt bench",
        "trt-opt compare",
        "trt-opt sensitivity",
        "trt-opt regress record",
        "--calib-data",
    ):
        assert command in page[page.index('id="missing"') :]
    assert "<code>trt-opt bench -o</code>" in page
    assert 'class="chart"' not in page
    assert len(page) < 30_000


def test_history_holds_change_points_and_what_was_not_judged() -> None:
    """In the chart's data, and the verdict in a table and in the summary."""
    page = html_from_content(replace(EMPTY, regressions=(regression(),)))
    (spec,) = specs_of(page)
    changes, _, judged, not_judged, _ = (layer["data"]["values"] for layer in spec["layer"])  # type: ignore[attr-defined]
    assert changes == [{"before": 7.5}]
    assert [row["place"] for row in not_judged] == [4]
    assert len(judged) == 11
    assert '<p class="verdict fail">FAIL</p>' in page
    assert "1 of 1 series is slower" in page


def test_a_distribution_shows_its_threshold() -> None:
    """Bins without elements are left out; the line is where INT8 clips; the figures stand in the table too."""
    page = html_from_content(replace(EMPTY, distributions=(distribution(),)))
    (spec,) = specs_of(page)
    bars, line = spec["layer"]  # type: ignore[misc]
    assert [row["left"] for row in bars["data"]["values"]] == [0.0, 1.0, 1.5]
    assert line["data"]["values"] == [{"threshold": 1.6}]
    assert "6.25 %" in page


def test_three_thousand_series_stay_below_two_megabytes() -> None:
    """The first get a chart, all get a row."""
    report = regression()
    checks = tuple(replace(report.checks[0], points=report.checks[0].points[:2]) for _ in range(3000))
    page = html_from_content(replace(EMPTY, regressions=(replace(report, checks=checks),)))
    assert len(page.encode()) < 2_000_000
    assert "2976 more series" in page


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("no json", "no result"),
        ('{"kind": "Lint"}', "shows no Lint"),
        ("[1, 2]", "no result"),
        ('{"kind": "Benchmark", "schema_version": 1}', "missing"),
        ('{"kind": "Benchmark", "schema_version": 99}', "schema version"),
    ],
)
def test_a_file_that_is_no_result_is_named(content: str, what: str, folder: Path) -> None:
    """With exit code 2, and no page is written."""
    Path("run.json").write_text(content)
    done = run("report", "run.json", "-o", "r.html")
    assert done.exit_code == 2
    assert what in done.stderr
    assert "run.json" in done.stderr
    assert not Path("r.html").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "nothing to report"),
        (("none.json",), "no such file"),
        ((".",), "holds no result"),
        (("--model", "m.onnx"), "--calib-data"),
        (("--history", "none.db"), "no history"),
    ],
)
def test_a_wrong_request_is_told(arguments: tuple[str, ...], what: str, folder: Path) -> None:
    """With exit code 2, and no page is written."""
    done = run("report", *arguments, "-o", "r.html")
    assert done.exit_code == 2
    assert what in done.stderr
    assert not Path("r.html").exists()


def test_an_older_page_is_kept_unless_forced(folder: Path) -> None:
    """Like every output."""
    Path("r.html").write_text("old")
    assert run("report", ".", "-o", "r.html").exit_code == 2
    assert Path("r.html").read_text() == "old"


def test_results_are_sorted_by_kind(folder: Path) -> None:
    """A folder's results are found, however deep, and other JSON is left alone."""
    from trt_opt.values.codec import json_from_value

    (folder / "deep").mkdir()
    (folder / "deep" / "regression.json").write_text(json_from_value(regression()))
    (folder / "other.json").write_text("{}")
    assert [len(values) for values in results_of(["."]).values()] == [0, 0, 0, 0, 0, 1]


def test_missing_packages_are_told_before_anything_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 5 and what to install."""
    monkeypatch.setattr(rendering, "PACKAGES", ("jinja2", "a_package_that_nobody_has"))
    done = run("report", "none.json", "-o", "r.html")
    assert done.exit_code == 5
    assert "a_package_that_nobody_has" in done.stderr
    assert "trt-opt[report]" in done.stderr


def test_a_series_of_one_run_has_no_chart() -> None:
    """A point alone shows nothing that its row does not; nor do figures that are not known."""
    report = regression(count=1)
    page = html_from_content(replace(EMPTY, regressions=(report,)))
    assert 'class="chart"' not in page
    assert "1 more series are in the table only" in page


def test_a_history_without_series_is_no_error() -> None:
    """The page says how to fill it."""
    page = html_from_content(replace(EMPTY, regressions=(replace(regression(), checks=()),)))
    assert "regress record" in page
    assert 'class="chart"' not in page


def test_figures_all_but_equal_get_a_readable_axis() -> None:
    """Not one whose labels show the rounding errors of the last digit."""
    report = regression()
    points = tuple(replace(point, value=1e7 + 1e-9 * place) for place, point in enumerate(report.checks[0].points))
    check = replace(report.checks[0], points=points, baseline=1e7)
    (spec,) = specs_of(html_from_content(replace(EMPTY, regressions=(replace(report, checks=(check,)),))))
    scales = [
        layer["encoding"]["y"]["scale"]
        for layer in spec["layer"]
        if "y" in layer["encoding"] and "scale" in layer["encoding"]["y"]
    ]  # type: ignore[attr-defined]
    assert scales[0]["domain"][1] - scales[0]["domain"][0] > 1e4
