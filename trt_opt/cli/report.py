"""`trt-opt report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def report(
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.", show_default=False)],
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="An engine's folder, or JSON of bench, compare, sensitivity, regress; or a folder of such.",
            metavar="RUN…",
            show_default=False,
        ),
    ] = None,
    history: Annotated[str | None, typer.Option(help="A history of `trt-opt regress`.", show_default=False)] = None,
    model: Annotated[
        str | None, typer.Option(help="The float model, for histograms of its tensors.", show_default=False)
    ] = None,
    calib_data: options.CalibData = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(help="A layer whose inputs are shown; several times for several.", show_default="the worst six"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called.", show_default=False)] = None,
    force: options.Force = False,
) -> None:
    """Write one self-contained HTML page about runs, engines and their history."""
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.files import require_free, write_atomically
    from trt_opt.report.html import html_from_content, require_packages
    from trt_opt.report.show import size_text
    from trt_opt.run_report import ReportRequest, content_of

    request = ReportRequest(tuple(runs or ()), history, model, calib_data, tuple(layers or ()), title)
    require_packages()
    require_free(output, force=force)
    content = content_of(request, TerminalProgress(session().err))
    text = html_from_content(content)
    write_atomically(output, text)
    session().out.write(f"{output}, {size_text(len(text.encode()))}\n")
