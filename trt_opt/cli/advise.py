"""`trt-opt advise`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def advise(
    model: options.Model,
    target: options.TargetText = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where it shall run: orin, nano, xavier, t4, a100, rtx-3060 …", show_default=False),
    ] = None,
    calib_data: options.CalibData = None,
    eval_data: options.EvalData = None,
    preprocess: options.PreprocessText = None,
    target_drop: Annotated[float, typer.Option(help="How many points of top-1 may be lost.")] = 1.0,
    edge: Annotated[
        bool, typer.Option("--edge", help="Integers shall go in and come out: a pipeline without floats.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Try the quantisation methods on a model, measure size and accuracy, and say which to take on which hardware."""
    from trt_opt.advising import advice_for
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.report.advise import show_advice
    from trt_opt.report.show import show
    from trt_opt.values.advice import AdviceRequest

    request = AdviceRequest(model, target, device, calib_data, eval_data, preprocess, target_drop, edge)
    advice = advice_for(request, TerminalProgress(session().err))
    show(advice, show_advice, session().out, as_json=json)
