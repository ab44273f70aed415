"""The command line: builds values, calls one function, prints. Nothing heavy is imported before a verb runs."""

from trt_opt.cli.app import main

__all__ = ["main"]
