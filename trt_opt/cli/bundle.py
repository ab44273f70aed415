"""`trt-opt bundle`, and `trt-opt build` where it is given a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

if TYPE_CHECKING:
    from trt_opt.recipe import Recipe
    from trt_opt.values.bundle import BundleReport

ShapeText = Annotated[str | None, typer.Option(help="name:1x3x224x224,…", show_default="from the data")]

ABOUT_THE_MACHINE = ("model", "output", "timeout_s", "tensorrt_python", "workspace_mib", "optimization_level")
"""Options of `build` that are taken with a bundle; it has decided the others."""


@verb
def bundle(
    model: Annotated[str, typer.Argument(help="The ONNX file; with --check the bundle.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The bundle to write.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check every byte of a bundle and show what is in it.")
    ] = False,
    samples: Annotated[int, typer.Option(help="Evaluation samples that travel, 1 to 999.")] = 8,
    int8: options.Int8 = None,
    quantization: options.Quantization = None,
    weights: options.Weights = None,
    block_size: options.BlockSize = None,
    zero_points: options.ZeroPoints = None,
    fp16: options.Fp16 = None,
    io_fp16: options.IoFp16 = None,
    calib_data: options.CalibData = None,
    eval_data: options.EvalData = None,
    preprocess: options.PreprocessText = None,
    calibrator: options.CalibratorText = None,
    target: Annotated[
        str | None,
        typer.Option(help="TensorRT and board: tensorrt:8.6@orin, tensorrt:10.3, tensorrt@orin.", show_default=False),
    ] = None,
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
    workspace_mib: Annotated[
        int | None, typer.Option(help="Builder's scratch memory, MiB.", show_default="1024")
    ] = None,
    optimization_level: Annotated[int | None, typer.Option(help="Builder's effort, 0-5.", show_default=False)] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML file with these options.", show_default=False)] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Pack a quantised model, and samples to judge its engine by, for a machine that builds the engine itself."""
    own = ("output", "check", "samples", "recipe", "force", "json")
    typed = {name: value for name, value in locals().items() if name not in own and name != "own"}
    from trt_opt.report.bundle import show_bundle
    from trt_opt.report.search import missed
    from trt_opt.report.show import show

    report = _looked_at(Path(model)) if check else _made(typed, recipe, output, samples, force=force)
    show(report, show_bundle, session().out, as_json=json)
    if missed(report.search):
        raise typer.Exit(1)


def _looked_at(path: Path) -> BundleReport:
    from trt_opt.bundling.reading import looked_at

    return looked_at(path)


def _made(
    typed: Mapping[str, Any], recipe: Path | None, output: Path | None, samples: int, *, force: bool
) -> BundleReport:
    from trt_opt.bundling.making import bundled_file
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.cli.requests import recipe_from_options
    from trt_opt.errors import RequestError

    if output is None:
        raise RequestError("nothing says where to write the bundle", hint="-o app.bundle, or --check to look at one")
    request = recipe_from_options(typed, recipe, None)
    return bundled_file(request, output, samples, TerminalProgress(session().err), force=force)


def build_from_bundle(request: Recipe, *, rebuild: bool, json: bool) -> None:
    """What `build` does where its model is a bundle.

    Args:
        request: The options of `build`.
        rebuild: Build even if the store has this engine.
        json: Print the result as JSON.

    Raises:
        RequestError: An option was given that the bundle has decided.
        typer.Exit: With 1, where the engine is not what its model is.
    """
    from trt_opt.bundling.building import BundleRequest, built_from_bundle
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.errors import RequestError
    from trt_opt.recipe import plain_from_recipe
    from trt_opt.report.bundle import show_bundle_build
    from trt_opt.report.show import show

    decided = [name for name in plain_from_recipe(request) if name not in ABOUT_THE_MACHINE]
    if decided:
        option = f"--{decided[0].replace('_', '-')}"
        raise RequestError("the bundle has decided that", where=option, hint="leave the option out")
    asked = BundleRequest(**{name: getattr(request, name) for name in ABOUT_THE_MACHINE})
    build = built_from_bundle(asked, TerminalProgress(session().err), rebuild=rebuild)
    show(build, show_bundle_build, session().out, as_json=json)
    if build.verdict != "PASS":
        raise typer.Exit(1)
