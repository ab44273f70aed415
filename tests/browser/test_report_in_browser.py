"""The HTML report in a real browser without a network, from file://, narrow and wide, light and dark, on paper."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run

from trt_opt.samples import DIGITS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

MODEL, CALIBRATION, TEST = (str(DIGITS / name) for name in ("model.onnx", "calibration.npz", "test.npz"))

DASH = "\N{EN DASH}"

READY = "html[data-ready=yes]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about the digits model: sensitivity, a comparison, times, histograms."""
    folder = tmp_path_factory.mktemp("report")
    sensitivity, quantized = folder / "sensitivity.json", folder / "int8.onnx"
    done = run("sensitivity", MODEL, "--calib-data", CALIBRATION, "--json")
    sensitivity.write_text(done.stdout)
    assert run("quantize", MODEL, "--int8", "--calib-data", CALIBRATION, "-o", str(quantized)).exit_code == 0
    comparison = str(folder / "comparison.json")
    limits = ("--min-sqnr", "20", "--layerwise", "--rounds", "2", "-o", comparison)
    assert run("compare", MODEL, str(quantized), "--data", TEST, *limits).exit_code == 0
    histograms = ("--model", MODEL, "--calib-data", CALIBRATION)
    history = ("--history", str(folder / "history.db"))
    for label in ("first", "second"):
        assert run("regress", "record", comparison, *history, "--label", label).exit_code == 0
    page = folder / "report.html"
    done = run("report", str(sensitivity), comparison, *history, *histograms, "-o", str(page))
    assert done.exit_code == 0, done.output
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    """Chromium, once for all."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser: playwright.Browser, report: Path, width: int, scheme: str) -> tuple[playwright.Page, list[str]]:
    """The page in a window without a network, and what the console and the network said."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.as_uri())
    page.wait_for_selector(READY, timeout=30_000)
    return page, said


def cells(page: playwright.Page, table: int, column: int) -> list[str]:
    """The texts of a column, of the rows that are shown."""
    rows = page.locator("table").nth(table).locator("tbody tr:not([hidden])")
    return [rows.nth(row).locator("td").nth(column).inner_text() for row in range(rows.count())]


def layer_table(page: playwright.Page) -> int:
    """Which of the tables holds the layers."""
    captions = page.locator("caption").all_inner_texts()
    return next(place for place, text in enumerate(captions) if "quantised layers" in text)


@pytest.mark.parametrize(("width", "scheme"), list(itertools.product((400, 1600), ("light", "dark"))))
def test_it_renders_without_complaint_and_fits(
    browser: playwright.Browser, report: Path, width: int, scheme: str
) -> None:
    """Every chart is drawn, nothing is asked for, the console is silent, and nothing is wider than the window."""
    page, said = opened(browser, report, width, scheme)
    charts = page.locator(".chart")
    assert charts.count() >= 9
    drawn = [charts.nth(place).locator("svg").count() for place in range(charts.count())]
    assert drawn == [1] * charts.count()
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widest = page.evaluate("Math.max(...[...document.querySelectorAll('.chart svg')].map(x => x.clientWidth))")
    assert widest <= width


def test_columns_sort_by_number_both_ways(browser: playwright.Browser, report: Path) -> None:
    """By value and not by text, and the heading says which way."""
    page, _ = opened(browser, report, 1600, "light")
    place = layer_table(page)
    head = page.locator("table").nth(place).locator("th").nth(6)
    head.locator("button").click()
    rising = [int(text.replace(",", "")) for text in cells(page, place, 6) if text != DASH]
    assert rising == sorted(rising)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert [int(text.replace(",", "")) for text in cells(page, place, 6) if text != DASH] == rising[::-1]
    assert head.get_attribute("aria-sort") == "descending"


def test_rows_are_found_by_a_word(browser: playwright.Browser, report: Path) -> None:
    """Only those are shown, and how many."""
    page, _ = opened(browser, report, 1600, "light")
    place = layer_table(page)
    part = page.locator(".table").nth(place)
    whole = len(cells(page, place, 0))
    part.locator(".filter").fill("depthwise")
    shown = cells(page, place, 0)
    assert 0 < len(shown) < whole
    assert all("depthwise" in " ".join(row).lower() for row in zip(shown, cells(page, place, 8), strict=True))
    assert f"of {whole} rows" in part.locator(".shown").inner_text()


def test_light_and_dark_can_be_switched(browser: playwright.Browser, report: Path) -> None:
    """Whatever the system prefers; words stay readable (contrast 4.5 or more) either way."""
    page, _ = opened(browser, report, 1600, "dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.locator("#theme").click()
    after = page.evaluate(paper)
    assert before != after
    assert {contrast(page, selector) >= 4.5 for selector in ("p", "td", "a", ".made", ".verdict")} == {True}
    page.locator("#theme").click()
    assert page.evaluate(paper) == before
    assert {contrast(page, selector) >= 4.5 for selector in ("p", "td", "a", ".made", ".verdict")} == {True}


def contrast(page: playwright.Page, selector: str) -> float:
    """WCAG's contrast of the first such element's words against the page."""
    colours = page.evaluate(
        "selector => [getComputedStyle(document.querySelector(selector)).color, "
        "getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    one, other = (luminance(colour) for colour in colours)
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_it_prints(browser: playwright.Browser, report: Path, tmp_path: Path) -> None:
    """On paper there are no buttons, the paper is white, and tables are whole."""
    page, _ = opened(browser, report, 1600, "dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#theme").is_visible()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000


def test_without_scripts_the_figures_are_there(browser: playwright.Browser, report: Path) -> None:
    """Charts are told to need them; tables do not."""
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "Charts need JavaScript" in page.content()
    assert page.locator("tbody tr").count() > 20
