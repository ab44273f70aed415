"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

_SINGULAR = {"passes": "pass"}


class TerminalProgress:
    """Listens to the stages of one verb.

    Args:
        stream: Where to write; bars are drawn if it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Progress | None = None
        self._stage, self._unit, self._noted = "", "", ""
        self._done, self._began = 0, 0.0

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        """Draws an empty bar."""
        self.close()
        self._stage, self._unit, self._done, self._began = stage, unit, 0, time.perf_counter()
        if not self._stream.isatty():
            return
        columns = [SpinnerColumn(), TextColumn("{task.description:<17}"), BarColumn(), MofNCompleteColumn()]
        self._bar = Progress(
            *columns,
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            transient=True,
        )
        self._bar.add_task(stage, total=total, rate="")
        self._bar.start()

    def advance(self, amount: int = 1) -> None:
        """Moves the bar."""
        self._done += amount
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, advance=amount, rate=self._rate())

    def finish(self) -> None:
        """Removes the bar and leaves one line."""
        if not self._stage:
            return
        took = time.perf_counter() - self._began
        unit = _SINGULAR.get(self._unit, self._unit.removesuffix("s")) if self._done == 1 else self._unit
        amount = f"{self._done} {unit}, {self._rate()}, " if self._done else ""
        self.close()
        self._stream.write(f"{self._stage:<17} {amount}{took:.1f} s\n")
        self._stream.flush()
        self._stage = ""

    def note(self, text: str) -> None:
        """Writes a line, if it says something new; a bar that is drawn goes on below it."""
        if text == self._noted:
            return
        self._noted = text
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def close(self) -> None:
        """Removes the bar without a word."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rate(self) -> str:
        took = max(time.perf_counter() - self._began, 1e-9)
        return f"{self._done / took:.1f} {self._unit}/s"
