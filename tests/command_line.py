"""The command line, run in the tests' own process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from trt_opt.cli.app import app


def run(*arguments: str) -> Result:
    """What a user would type after `trt-opt`."""
    return CliRunner().invoke(app, list(arguments))
