"""`trt-opt rewrite`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

Only = Annotated[
    list[str] | None,
    typer.Option(help="Run this graph pass and no others; may be given several times.", show_default=False),
]


@verb
def rewrite(
    model: options.Model,
    output: options.Output,
    data: Annotated[
        str | None, typer.Option(help="Samples on which every pass is verified.", show_default="made-up numbers")
    ] = None,
    preprocess: options.PreprocessText = None,
    target: options.TargetText = None,
    only: Only = None,
    skip: options.SkipPass = None,
    freeze_input: options.FreezeInput = None,
    widen_io: options.WidenIo = None,
    fp8_as_qdq: options.Fp8AsQdq = None,
    nms: options.Nms = None,
    zero_points: options.ZeroPoints = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Rewrite what the target refuses in a model, verify every step, and say what changed and what was declined.

    Asks the target's own parser and builder. Where the target still refuses
    the model afterwards, the file is written as far as it could be brought,
    and the exit code is 3.
    """
    from trt_opt.buildable import require_accepted
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.conversions import RewriteRequest, rewritten_file
    from trt_opt.ends import EndsRequest
    from trt_opt.errors import UnsupportedModelError
    from trt_opt.recipe import zero_points_from_text
    from trt_opt.report.rewrite import show_rewrite
    from trt_opt.report.show import show

    request = RewriteRequest(
        model=model,
        output=str(output),
        data=data,
        preprocess=preprocess,
        target=target,
        only=tuple(only or ()),
        skip=tuple(skip or ()),
        ends=EndsRequest(tuple(freeze_input or ()), bool(widen_io), bool(fp8_as_qdq), nms or "keep"),
        zero_points=zero_points_from_text(zero_points or "fold"),
        force=force,
    )
    report = rewritten_file(request, TerminalProgress(session().err))
    show(report, show_rewrite, session().out, as_json=json)
    try:
        require_accepted(report)
    except UnsupportedModelError as error:
        session().err.write(f"error: {error}\n")
        raise typer.Exit(error.exit_code) from error
