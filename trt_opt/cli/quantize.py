"""`trt-opt quantize`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def quantize(
    model: options.Model,
    output: options.Output,
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="INT8 where the placement policy says so.")] = True,
    quantization: options.Quantization = None,
    weights: options.Weights = None,
    block_size: options.BlockSize = None,
    zero_points: options.ZeroPoints = None,
    image_input: options.ImageInput = None,
    fp16: options.Fp16 = None,
    io_fp16: options.IoFp16 = None,
    calib_data: options.CalibData = None,
    eval_data: options.EvalData = None,
    preprocess: options.PreprocessText = None,
    calibrator: options.CalibratorText = None,
    exclude: options.Exclude = None,
    activation_products: options.ActivationProducts = None,
    table: options.Table = None,
    reuse_table: options.ReuseTable = None,
    from_cache: options.FromCache = None,
    target: options.TargetText = None,
    freeze_input: options.FreezeInput = None,
    widen_io: options.WidenIo = None,
    fp8_as_qdq: options.Fp8AsQdq = None,
    nms: options.Nms = None,
    skip_pass: options.SkipPass = None,
    max_drop: options.MaxDrop = None,
    min_sqnr: options.MinSqnr = None,
    min_agreement: options.MinAgreement = None,
    metric: options.MetricText = None,
    int8_all: options.Int8All = None,
    allow_same_data: options.AllowSameData = None,
    seed: options.Seed = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for every layer which rule decided, and why.")
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write Q/DQ pairs and FP16 into a model, ready for any TensorRT that takes explicit quantisation."""
    typed = {name: value for name, value in locals().items() if name not in ("output", "explain", "force", "json")}
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.cli.requests import recipe_from_options
    from trt_opt.quantizing import quantized_file
    from trt_opt.report.quantize import plan_renderer
    from trt_opt.report.search import missed
    from trt_opt.report.show import show

    request = recipe_from_options(typed, None, None)
    result = quantized_file(request, output, TerminalProgress(session().err), force=force)
    show(result, plan_renderer(explain=explain), session().out, as_json=json)
    if missed(result.search):
        raise typer.Exit(1)
