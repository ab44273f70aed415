"""The program `trt-opt` and its verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt import __version__
from trt_opt.cli.advise import advise
from trt_opt.cli.bench import bench
from trt_opt.cli.build import build
from trt_opt.cli.bundle import bundle
from trt_opt.cli.calibrate import calibrate
from trt_opt.cli.compare import compare
from trt_opt.cli.doctor import doctor
from trt_opt.cli.engines import engines
from trt_opt.cli.explain import explain
from trt_opt.cli.inspect import inspect
from trt_opt.cli.lint import lint
from trt_opt.cli.qat import qat
from trt_opt.cli.quantize import quantize
from trt_opt.cli.regress import regress
from trt_opt.cli.report import report
from trt_opt.cli.rewrite import rewrite
from trt_opt.cli.sensitivity import sensitivity

app = typer.Typer(
    name="trt-opt",
    help="Turns ONNX models into FP16 and INT8 TensorRT engines that can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done or passed · 1 the gate said no · 2 the request is wrong · "
    "3 this model cannot be handled as asked · 4 a stage failed · 5 something is missing here.",
)
VERBS = (
    *(build, bundle, advise, inspect, lint, rewrite, calibrate),
    *(quantize, sensitivity, qat, compare, bench, report, doctor, explain),
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(engines, name="engines")
app.add_typer(regress, name="regress")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trt-opt {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Runs the command line."""
    app()
