"""`trt-opt rewrite`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

Names = Annotated[list[str] | None, typer.Option(show_default=False, help="A pass; may be given several times.")]


@verb
def rewrite(
    model: options.Model,
    output: options.Output,
    data: Annotated[
        str | None, typer.Option(help="Samples on which every pass is verified.", show_default=False)
    ] = None,
    preprocess: options.PreprocessText = None,
    only: Names = None,
    skip: Names = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Rewrite a model with the graph passes, verifying each, and report what changed and what was declined."""
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.conversions import RewriteRequest, rewritten_file
    from trt_opt.report.rewrite import show_rewrite
    from trt_opt.report.show import show

    request = RewriteRequest(model, str(output), data, preprocess, tuple(only or ()), tuple(skip or ()), force)
    report = rewritten_file(request, TerminalProgress(session().err))
    show(report, show_rewrite, session().out, as_json=json)
