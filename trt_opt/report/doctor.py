"""What this machine has, for people."""

from __future__ import annotations

from rich.console import Console

from trt_opt.report.show import size_text
from trt_opt.values.machine import Machine


def show_machine(machine: Machine, console: Console) -> None:
    """Prints the facts, then what works here and what to do about what does not."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    gpus = ", ".join(machine.gpus) or "none"
    for line in (
        f"system     {machine.platform}, {machine.cores} cores, {size_text(machine.memory_bytes)}",
        f"python     {machine.python}",
        f"gpu        {gpus}; NVIDIA driver {machine.driver or 'none'}",
        f"packages   {packages}",
    ):
        console.print(line, markup=False, soft_wrap=True)
    for entry in machine.capabilities:
        mark = "[green]yes[/green]" if entry.available else "[yellow]no [/yellow]"
        console.print(f"{mark}  {entry.name}: {entry.detail}")
