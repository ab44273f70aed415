"""`trt-opt qat`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def qat(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.", show_default=False)],
    calib_data: options.CalibData = None,
    preprocess: options.PreprocessText = None,
    calibrator: options.CalibratorText = None,
    exclude: options.Exclude = None,
    table: options.Table = None,
    reuse_table: options.ReuseTable = None,
    target: options.TargetText = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files in a folder that exists.")] = False,
    json: options.Json = False,
) -> None:
    """Write the script that trains the PyTorch model behind MODEL for INT8, quantised where TensorRT will be."""
    typed = {name: value for name, value in locals().items() if name not in ("output", "force", "json")}
    from trt_opt.cli.progress import TerminalProgress
    from trt_opt.cli.requests import recipe_from_options
    from trt_opt.qat.folder import written_folder
    from trt_opt.report.qat import show_folder
    from trt_opt.report.show import show

    request = recipe_from_options(typed, None, None)
    written = written_folder(request, output, TerminalProgress(session().err), force=force)
    show(written, show_folder, session().out, as_json=json)
