"""`trt-opt doctor`."""

from __future__ import annotations

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def doctor(tensorrt_python: options.TensorrtPython = None, json: options.Json = False) -> None:
    """Show what this machine has, what it lacks, and what to install for what."""
    from trt_opt.backends.machine import machine
    from trt_opt.report.doctor import show_machine
    from trt_opt.report.show import show

    show(machine(tensorrt_python), show_machine, session().out, as_json=json)
