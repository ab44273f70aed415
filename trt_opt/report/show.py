"""One way out for every result: rendered for people, or as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO, TypeVar

from rich.console import Console

from trt_opt.values.codec import json_from_value

T = TypeVar("T")

WIDTH_OF_FILES = 160
"""Columns where the output is no terminal: tables must not be folded in a log."""


class _Console(Console):
    """A console that leaves it to the command line what a reader who has gone means."""

    def on_broken_pipe(self) -> None:
        """Raises the error that was caught, where Rich would exit with 1."""
        raise  # noqa: PLE0704  called by Rich while it handles a BrokenPipeError


def show(value: T, render: Callable[[T, Console], None], stream: TextIO, *, as_json: bool) -> None:
    """Writes a value to a stream.

    Args:
        value: A frozen dataclass.
        render: Writes it for people.
        stream: Where to.
        as_json: Write JSON instead.
    """
    if as_json:
        stream.write(json_from_value(value))
        return
    render(value, _Console(file=stream, width=None if stream.isatty() else WIDTH_OF_FILES, highlight=False))


def size_text(count: int | None) -> str:
    """A number of bytes as people read it: "412 B", "98.3 KB", "5.54 MB" (powers of 1000)."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"


def percent_text(share: float | None) -> str:
    """A share, 0 … 1, in per cent: "98.3 %"; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def short(name: str, most: int = 40) -> str:
    """A node's name, its middle left out where it is long: exporters write names of hundreds of characters."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"
