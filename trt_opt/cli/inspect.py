"""`trt-opt inspect`."""

from __future__ import annotations

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def inspect(model: options.Model, target: options.TargetText = None, json: options.Json = False) -> None:
    """Show what is in a model, what the target's parser refuses, and which layers INT8 could help."""
    from pathlib import Path

    from trt_opt.backends import target_or_default
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.report.inspect import show_survey
    from trt_opt.report.show import show
    from trt_opt.survey import survey_of

    survey = survey_of(Path(model), target_or_default(target), TerminalProgress(session().err))
    show(survey, show_survey, session().out, as_json=json)
