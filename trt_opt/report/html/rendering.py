"""From sections to one file: template, style sheet, script, and the charting library inside it."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_opt.errors import MissingError
from trt_opt.report.html.page import Chart, Section, Table
from trt_opt.report.html.sections import sections_of
from trt_opt.report.html.summary import summary_of
from trt_opt.values.report_content import ReportContent

FOLDER = Path(__file__).parent

EXPOSE = "window.vegaEmbed = vegaEmbed;"
"""What the bundle does with what is in it."""

MOST_ROWS = 1500
"""Of a table: some 0.7 MB of a page that shall stay below 2 MB with the 0.9 MB of the charting library."""

PACKAGES = ("jinja2", "vl_convert")


def require_packages() -> None:
    """Looks for what a page needs, before anything is computed for it.

    Raises:
        MissingError: The packages of the extra `report` are not installed.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingError(
            f"a report needs {' and '.join(missing)}", hint='pip install "trt-opt[report]"', where="trt-opt report"
        )


def html_from_content(content: ReportContent) -> str:
    """The whole page.

    Raises:
        MissingError: The packages of the extra `report` are not installed.
    """
    require_packages()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["identity"] = id
    environment.filters["code"] = _with_code
    every = [_shortened(section) for section in sections_of(content)]
    sections = [section for section in every if not section.is_empty]
    charts = [chart for section in sections for chart in section.charts]
    return environment.get_template("report.html.j2").render(
        content=content,
        summary=summary_of(content),
        sections=sections,
        missing=[text for section in every for text in section.missing],
        numbered=_numbered(sections),
        specs=_json(chart.spec for chart in charts),
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=(FOLDER / "page.js").read_text(encoding="utf-8"),
        library=_library() if charts else "",
    )


def _shortened(section: Section) -> Section:
    """The section with long tables cut, and that said: a page of tens of thousands of rows is read by nobody."""
    return replace(section, tables=tuple(map(_cut, section.tables)))


def _cut(table: Table) -> Table:
    if len(table.rows) <= MOST_ROWS:
        return table
    title = f"{table.title} (the first {MOST_ROWS} of {len(table.rows)} rows; the rest is in the JSON)"
    return replace(table, title=title, rows=table.rows[:MOST_ROWS])


def _with_code(text: str) -> Any:
    """The text as markup, what stands between backquotes as code."""
    import markupsafe

    escaped = str(markupsafe.escape(text))
    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _numbered(sections: Iterable[Section]) -> dict[int, int]:
    """A chart's identity → its place among all charts of the page."""
    charts: list[Chart] = [chart for section in sections for chart in section.charts]
    return {id(chart): place for place, chart in enumerate(charts)}


def _json(specs: Iterable[Any]) -> str:
    """Specifications as a script's text: no "<" in it can end the script, whatever a layer is called."""
    text = json.dumps(list(specs), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@functools.cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(snippet=EXPOSE)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
