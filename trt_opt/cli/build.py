"""`trt-opt build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

ShapeText = Annotated[str | None, typer.Option(help="name:1x3x224x224,…", show_default="from the data")]


@verb
def build(
    model: options.OptionalModel = None,
    int8: options.Int8 = None,
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
    target: options.TargetText = None,
    min_shapes: ShapeText = None,
    opt_shapes: ShapeText = None,
    max_shapes: ShapeText = None,
    exclude: options.Exclude = None,
    activation_products: options.ActivationProducts = None,
    table: options.Table = None,
    reuse_table: options.ReuseTable = None,
    from_cache: options.FromCache = None,
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
    use_dla: options.UseDla = None,
    gpu_fallback: options.GpuFallback = None,
    version_compatible: options.VersionCompatible = None,
    hardware_compatible: options.HardwareCompatible = None,
    tactic_sources: options.TacticSources = None,
    tensorrt_python: options.TensorrtPython = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The engine store.", show_default="engines")
    ] = None,
    baselines: Annotated[
        bool | None, typer.Option(help="Build and compare FP32 and FP16 too.", show_default="yes")
    ] = None,
    workspace_mib: Annotated[
        int | None, typer.Option(help="Builder's scratch memory, MiB.", show_default=False)
    ] = None,
    optimization_level: Annotated[int | None, typer.Option(help="Builder's effort, 0-5.", show_default=False)] = None,
    timeout_s: Annotated[int | None, typer.Option(help="Limit for the builder, seconds.", show_default="3600")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file with these options.", show_default=False)] = None,
    from_manifest: Annotated[
        Path | None, typer.Option("--from", help="Repeat the build of a manifest.json.", show_default=False)
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build even if the store has this engine.")] = False,
    json: options.Json = False,
) -> None:
    """Build an engine, INT8 and FP16 as asked, with a manifest and a table of what it costs in accuracy."""
    typed = {
        name: value for name, value in locals().items() if name not in ("recipe", "from_manifest", "rebuild", "json")
    }
    from trt_opt.bundling.reading import is_bundle
    from trt_opt.cli.bundle import build_from_bundle
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.cli.requests import recipe_from_options
    from trt_opt.report.build import show_build
    from trt_opt.report.search import missed
    from trt_opt.report.show import show

    request = recipe_from_options(typed, recipe, from_manifest)
    if is_bundle(Path(request.model)):
        build_from_bundle(request, rebuild=rebuild, json=json)
        return
    from trt_opt.pipeline import build_engine

    outcome = build_engine(request, TerminalProgress(session().err), rebuild=rebuild)
    show(outcome, show_build, session().out, as_json=json)
    if missed(outcome.manifest.search):
        raise typer.Exit(1)
