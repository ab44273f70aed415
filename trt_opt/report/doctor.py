"""What this machine has, for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trt_opt.report.show import size_text
from trt_opt.values.machine import Capability, Finding, Interpreter, Machine, Step

SEVERITIES = {
    "breaks": ("does not work", "red"),
    "wrong": ("goes wrong", "yellow"),
    "caution": ("to be careful with", "cyan"),
}


def show_machine(machine: Machine, console: Console) -> None:
    """Prints what works here, what to do about what does not, and then the facts."""
    _show_capabilities(machine.capabilities, console)
    _show_steps(machine.steps, console)
    _show_findings(machine.findings, console)
    _heading("This machine", console)
    _show_rows(_facts(machine), console)
    _heading("Pythons that might run TensorRT", console)
    _show_interpreters(machine, console)


def _heading(text: str, console: Console) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _show_rows(rows: Iterator[tuple[str, str]], console: Console) -> None:
    table = _grid()
    for name, text in rows:
        table.add_row(Text(name), Text(text, overflow="fold"))
    console.print(table)


def _grid() -> Table:
    """Two columns without lines; the second is folded to what the first leaves."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _show_capabilities(capabilities: tuple[Capability, ...], console: Console) -> None:
    table, before = _grid(), ""
    for entry in capabilities:
        mark = Text("yes", style="green") if entry.available else Text("no", style="yellow")
        # What several lack is said once.
        detail = [] if entry.detail == before else [Text(entry.detail, style="dim", overflow="fold")]
        table.add_row(mark, Group(Text(entry.name), *detail))
        before = entry.detail
    console.print(Text("What works here", style="bold"))
    console.print(table)


def _show_steps(steps: tuple[Step, ...], console: Console) -> None:
    if not steps:
        return
    _heading("What to do for the rest", console)
    for number, step in enumerate(steps, 1):
        console.print(Text(f"{number}. {step.purpose}"))
        # Commands stand alone in their lines, whole, so that they can be copied.
        for command in step.commands:
            console.print(Text(f"     {command}", style="cyan"), soft_wrap=True)


def _show_findings(findings: tuple[Finding, ...], console: Console) -> None:
    if not findings:
        return
    _heading("Known to go wrong", console)
    for finding in findings:
        words, style = SEVERITIES[finding.severity]
        console.print(Text.assemble((words, style), f": {finding.subject}"))
        more = f" and {len(finding.where) - 1} more" if len(finding.where) > 1 else ""
        for line in (
            f"in {finding.where[0]}{more}",
            finding.consequence,
            f"do: {finding.remedy}",
            f"source: {finding.source}",
        ):
            console.print(Padding(Text(line, overflow="fold"), (0, 0, 0, 5)))


def _facts(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "system", f"{machine.platform}, {machine.cores} cores, {size_text(machine.memory_bytes)}"
    if machine.board is not None:
        board = machine.board
        jetpack = f"JetPack {board.jetpack}" if board.jetpack else "an unknown JetPack"
        yield "board", f"{board.model or 'a Jetson'}, {jetpack} (Jetson Linux {board.l4t or 'unknown'})"
    for gpu in machine.cuda.gpus:
        yield "gpu", f"{gpu}, {size_text(gpu.memory_bytes)}"
    if not machine.cuda.gpus:
        yield "gpu", f"none that can be used: {machine.cuda.problem}"
    cuda = f"serves CUDA up to {machine.cuda.cuda}" if machine.cuda.cuda else "serves no CUDA"
    yield "driver", f"NVIDIA {machine.driver}, {cuda}" if machine.driver or machine.cuda.cuda else "no NVIDIA driver"
    if machine.trtexec:
        yield "trtexec", machine.trtexec
    yield "python", machine.python
    yield "packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())


def _show_interpreters(machine: Machine, console: Console) -> None:
    table = _grid()
    for interpreter in filter(_is_of_interest, machine.interpreters):
        used = interpreter.path == machine.tensorrt_python
        mark = Text("used", style="green") if used else Text("-", style="dim")
        table.add_row(mark, Group(*_lines(interpreter)))
    console.print(table)
    without = [entry for entry in machine.interpreters if not _is_of_interest(entry)]
    if without:
        listed = ", ".join(f"{entry.path} ({entry.python})" for entry in without)
        console.print(Text(f"without TensorRT: {listed}", style="dim", overflow="fold"))
    if machine.tensorrt_python:
        console.print(f"TensorRT runs under {machine.tensorrt_python}: {machine.tensorrt_reason}", markup=False)
    else:
        console.print(f"none is used: {machine.tensorrt_reason}", markup=False)


def _is_of_interest(interpreter: Interpreter) -> bool:
    """Whether there is more to say about it than that TensorRT is not there."""
    is_here_or_named = bool({"this one", "--tensorrt-python", "TRT_OPT_TENSORRT_PYTHON"} & set(interpreter.origins))
    return bool(interpreter.packages or interpreter.problem or is_here_or_named)


def _lines(interpreter: Interpreter) -> Iterator[Text]:
    origins = ", ".join(dict.fromkeys(interpreter.origins))
    version = f" Python {interpreter.python}" if interpreter.python else ""
    yield Text(f"{interpreter.path}{version} ({origins})", overflow="fold")
    if interpreter.problem:
        yield Text(f"no answer: {interpreter.problem}", style="yellow", overflow="fold")
        return
    broken = [package for package in interpreter.packages if not package.works]
    works = [f"{package.name} {package.version or '?'}" for package in interpreter.packages if package.works]
    if interpreter.package("tensorrt") is None:
        works.insert(0, "no TensorRT")
    elif not interpreter.is_new_enough:
        works.insert(0, "too old: Python 3.8 or later is needed")
    yield Text(", ".join(works), style="dim", overflow="fold")
    for package in broken:
        text = f"{package.name} {package.version or ''}".strip()
        yield Text(f"{text} cannot be imported: {package.detail}", style="yellow", overflow="fold")
    if interpreter.has_tensorrt and interpreter.lacks:
        yield Text(f"lacks {' and '.join(interpreter.lacks)}", style="yellow")
