"""The engine store, for people."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from trt_opt.build.store import Entry, Verification


@dataclass(frozen=True, slots=True)
class Listing:
    """The engines in a store."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Verifications:
    """The engines checked."""

    checked: tuple[Verification, ...]

    @property
    def all_good(self) -> bool:
        """Whether there was an engine to check and every one is as its manifest says."""
        return bool(self.checked) and all(entry.is_good for entry in self.checked)


@dataclass(frozen=True, slots=True)
class Removal:
    """The folders removed."""

    removed: tuple[str, ...]


def show_listing(listing: Listing, console: Console) -> None:
    """Prints one line per engine."""
    for entry in listing.entries:
        console.print(f"{entry.model:<24} {entry.key}  {entry.folder}", markup=False, soft_wrap=True)
    if not listing.entries:
        console.print("no engines here")


def show_verifications(found: Verifications, console: Console) -> None:
    """Prints one line per engine, and every problem."""
    for checked in found.checked:
        mark = "[green]good[/green]" if checked.is_good else "[red]bad [/red]"
        console.print(f"{mark}  {checked.entry}")
        for problem in checked.problems:
            console.print(f"      {problem}", markup=False)
    if not found.checked:
        console.print("no engines to verify")


def show_removal(removal: Removal, console: Console) -> None:
    """Prints what is gone."""
    for folder in removal.removed:
        console.print(f"removed  {folder}", markup=False, soft_wrap=True)
