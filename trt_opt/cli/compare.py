"""`trt-opt compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def compare(
    reference: Annotated[str, typer.Argument(help="The ONNX file to compare with.", show_default=False)],
    candidate: Annotated[str, typer.Argument(help="The ONNX file to judge.", show_default=False)],
    data: Annotated[str, typer.Option(help="Samples, with `labels` if there are any.", show_default=False)],
    preprocess: options.PreprocessText = None,
    min_sqnr: Annotated[float | None, typer.Option(help="Least SQNR of every output, dB.", show_default=False)] = None,
    max_drop: Annotated[float | None, typer.Option(help="Most points of the metric lost.", show_default=False)] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Least share of equal top-1 answers, percent.", show_default=False)
    ] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance per element.", show_default=False)] = None,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance per element.", show_default=False)] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What --max-drop is about: top1, top5, agreement, cosine, or your package.module:function; or sqnr.",
            show_default="top1",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare two ONNX models on data; exits 1 if a limit is missed or nothing could be told."""
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.compare import Limits, metric_from_text
    from trt_opt.conversions import compared_files
    from trt_opt.report.compare import show_comparison
    from trt_opt.report.show import show

    asked = None if metric is None else metric_from_text(metric)
    limits = Limits(min_sqnr, max_drop, min_agreement, atol, rtol, asked)
    progress = TerminalProgress(session().err)
    result = compared_files((reference, candidate), data, preprocess, limits, progress)
    show(result, show_comparison, session().out, as_json=json)
    if limits.any and result.verdict != "PASS":
        raise typer.Exit(1)
