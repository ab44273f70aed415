"""How a stage tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a stage has done; the command line turns it into bars or plain lines."""

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        """A stage begins; `total` is None where the amount of work is unknown."""

    def advance(self, amount: int = 1) -> None:
        """Some of it is done."""

    def finish(self) -> None:
        """The stage is done."""

    def note(self, text: str) -> None:
        """Something worth knowing before the end: the best found so far."""


class Silent:
    """Listens to nothing: for library use and tests."""

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        """Ignores the start."""

    def advance(self, amount: int = 1) -> None:
        """Ignores the progress."""

    def finish(self) -> None:
        """Ignores the end."""

    def note(self, text: str) -> None:
        """Ignores the note."""


class Renamed:
    """Passes everything on under another stage's name: "build FP16" where the builder only knows that it builds."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress = progress
        self._stage = stage

    def start(self, stage: str, total: int | None, unit: str = "samples") -> None:
        """Starts under the other name."""
        del stage
        self._progress.start(self._stage, total, unit)

    def advance(self, amount: int = 1) -> None:
        """Passes it on."""
        self._progress.advance(amount)

    def finish(self) -> None:
        """Passes it on."""
        self._progress.finish()

    def note(self, text: str) -> None:
        """Passes it on."""
        self._progress.note(text)
