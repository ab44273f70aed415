"""`trt-opt sensitivity`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def sensitivity(
    model: options.Model,
    calib_data: options.CalibData = None,
    eval_data: Annotated[
        str | None,
        typer.Option(help="Samples for the errors at the model's outputs.", show_default="the calibration data"),
    ] = None,
    preprocess: options.PreprocessText = None,
    calibrator: options.CalibratorText = None,
    exclude: options.Exclude = None,
    activation_products: options.ActivationProducts = None,
    target: options.TargetText = None,
    freeze_input: options.FreezeInput = None,
    skip_pass: options.SkipPass = None,
    top: Annotated[int, typer.Option(min=1, help="How many layers the table shows, the worst first.")] = 20,
    json: options.Json = False,
) -> None:
    """Measure what INT8 costs in every layer, alone and together, and say why; no GPU is needed."""
    typed = {name: value for name, value in locals().items() if name not in ("top", "json")}
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.cli.requests import recipe_from_options
    from trt_opt.report.sensitivity import sensitivity_renderer
    from trt_opt.report.show import show
    from trt_opt.sensitivity.measure import sensitivity_of

    # What is not INT8 stays float32 here: the loss is INT8's alone.
    request = recipe_from_options({**typed, "int8": True, "fp16": False}, None, None)
    report = sensitivity_of(request, TerminalProgress(session().err))
    show(report, sensitivity_renderer(top=top), session().out, as_json=json)
