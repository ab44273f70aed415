"""`trt-opt inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="rtx, rtx:8.6, rtx:8.6+8.9, tensorrt, tensorrt:8.6@orin; may be given several times.",
        show_default="TensorRT with a GPU, else rtx",
    ),
]


@verb
def inspect(model: options.Model, target: Targets = None, json: options.Json = False) -> None:
    """Show what is in a model, what targets refuse of it, what a rewrite would do, and which layers INT8 could help."""
    from pathlib import Path

    from trt_opt.backends import target_or_default
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.report.inspect import show_survey
    from trt_opt.report.show import show
    from trt_opt.survey import survey_of

    targets = [target_or_default(text) for text in target or ()] or [target_or_default(None)]
    survey = survey_of(Path(model), targets, TerminalProgress(session().err))
    show(survey, show_survey, session().out, as_json=json)
