"""`trt-opt compare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trt_opt.cli import options
from trt_opt.cli.session import command_line, session, verb

Bounds = list[str] | None

QUICK_ROUNDS = 10


def _bound(text: str) -> Any:
    """An option that holds for every output, or for the one that is named."""
    return typer.Option(metavar="[OUTPUT:]VALUE", help=f"{text} Several times for several outputs.", show_default=False)


@verb
def compare(
    reference: Annotated[str, typer.Argument(help="The ONNX file or engine to compare with.", show_default=False)],
    candidates: Annotated[list[str], typer.Argument(help="ONNX files and engines to judge.", show_default=False)],
    data: Annotated[str, typer.Option(help="Samples, with `labels` if there are any.", show_default=False)],
    preprocess: options.PreprocessText = None,
    min_sqnr: Annotated[Bounds, _bound("Least SQNR of every output, dB.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Most points of the metric lost.", show_default=False)] = None,
    min_agreement: Annotated[Bounds, _bound("Least share of equal top-1 answers, percent.")] = None,
    atol: Annotated[Bounds, _bound("Absolute tolerance per element.")] = None,
    rtol: Annotated[Bounds, _bound("Relative tolerance per element.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What --max-drop is about: top1, top5, agreement, cosine, or your package.module:function; or sqnr.",
            show_default="top1",
        ),
    ] = None,
    layerwise: Annotated[bool, typer.Option("--layerwise", help="Find where two ONNX graphs first part.")] = False,
    layerwise_sqnr: Annotated[
        float | None, typer.Option(help="SQNR below which inner tensors have parted, dB.", show_default="30")
    ] = None,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time the sides in the same run.")] = True,
    rounds: Annotated[int, typer.Option(help="How often each side is timed, in turns.")] = QUICK_ROUNDS,
    tensorrt_python: Annotated[
        list[str] | None,
        typer.Option(
            help="The Python that has TensorRT; several times where engines want several versions.",
            show_default="TRT_OPT_TENSORRT_PYTHON, else the first that has it",
        ),
    ] = None,
    output: options.ResultFile = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compare ONNX models and engines on data; exits 1 if a limit is missed or nothing could be told."""
    from dataclasses import replace

    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.compare import limits_from_texts, metric_from_text
    from trt_opt.comparing import ComparisonRequest, compared_models
    from trt_opt.comparing.request import QUICK
    from trt_opt.files import require_free, write_atomically
    from trt_opt.report.compare import show_models
    from trt_opt.report.show import show
    from trt_opt.values.codec import json_from_value

    asked = None if metric is None else metric_from_text(metric)
    bounds = {"min_sqnr_db": min_sqnr, "min_agreement": min_agreement, "atol": atol, "rtol": rtol}
    texts = {name: given or () for name, given in bounds.items()}
    limits = limits_from_texts(texts, max_drop=max_drop, metric=asked)
    if output is not None:
        for file in (reference, *candidates):
            require_free(output, force=force, source=file)
    request = ComparisonRequest(
        files=(reference, *candidates),
        data=data,
        preprocess=preprocess,
        limits=limits,
        layerwise=layerwise,
        threshold_db=layerwise_sqnr,
        timing=replace(QUICK, rounds=rounds) if timing else None,
        pythons=tuple(tensorrt_python or ()),
        command=command_line(),
    )
    result = compared_models(request, TerminalProgress(session().err))
    if output is not None:
        write_atomically(output, json_from_value(result))
    show(result, show_models, session().out, as_json=json)
    if limits.any and result.verdict != "PASS":
        raise typer.Exit(1)
