"""`trt-opt calibrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def calibrate(
    model: options.Model,
    output: options.Output,
    quantization: options.Quantization = None,
    zero_points: options.ZeroPoints = None,
    image_input: options.ImageInput = None,
    calib_data: options.CalibData = None,
    preprocess: options.PreprocessText = None,
    calibrator: options.CalibratorText = None,
    from_cache: options.FromCache = None,
    reuse_table: options.ReuseTable = None,
    fp16: options.Fp16 = None,
    exclude: options.Exclude = None,
    activation_products: options.ActivationProducts = None,
    cache: Annotated[
        str | None, typer.Option(help="Write TensorRT's calibration cache too, for this version: 8.6.1, 10.3.0 …")
    ] = None,
    target: options.TargetText = None,
    freeze_input: options.FreezeInput = None,
    widen_io: options.WidenIo = None,
    fp8_as_qdq: options.Fp8AsQdq = None,
    nms: options.Nms = None,
    skip_pass: options.SkipPass = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Run the data through the float model and write the calibration table."""
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.cli.requests import recipe_from_options
    from trt_opt.conversions import calibrated_file
    from trt_opt.report.calibrate import show_table
    from trt_opt.report.show import show

    typed = {"model": model, "int8": True, "fp16": fp16, "calib_data": calib_data, "preprocess": preprocess}
    typed |= {"calibrator": calibrator, "exclude": exclude, "activation_products": activation_products}
    typed |= {"target": target, "freeze_input": freeze_input, "widen_io": widen_io, "fp8_as_qdq": fp8_as_qdq}
    typed |= {"nms": nms, "skip_pass": skip_pass, "quantization": quantization, "zero_points": zero_points}
    typed |= {"image_input": image_input, "from_cache": from_cache, "reuse_table": reuse_table}
    request = recipe_from_options(typed, None, None)
    table = calibrated_file(request, output, TerminalProgress(session().err), cache_version=cache, force=force)
    show(table, show_table, session().out, as_json=json)
