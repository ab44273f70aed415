"""What a page is made of: sections with words, tables and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """An entry of a table.

    Attributes:
        text: What is read.
        sort: What it is sorted by; None stands behind everything.
        style: A class of the style sheet: "pass", "fail", "inconclusive", "invalid", "int8", "fp16", "fp32"; or "".
    """

    text: str
    sort: float | str | None = None
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        numeric: Whether its entries are numbers, set to the right.
        about: What the heading means, shown when it is pointed at.
    """

    title: str
    numeric: bool = False
    about: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: Its caption.
        columns: Its columns.
        rows: One tuple of cells per row, as many as columns.
        filterable: Whether rows can be looked for by a word.
        toggles: Words that can be switched on to show only rows in which a cell reads so.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    filterable: bool = False
    toggles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: a Vega-Lite specification and what it shows in words.

    Attributes:
        title: Its caption.
        spec: The specification, without schema, size and colours of text.
        alt: For whoever cannot see it.
    """

    title: str
    spec: Spec
    alt: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one below the other."""

    title: str
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        id: Its anchor.
        title: Its heading.
        texts: Paragraphs.
        charts: Charts, side by side where there is room.
        tables: Tables.
        facts: Names and values.
        missing: What would have to be given for more, one sentence each; commands stand between backquotes.
    """

    id: str
    title: str
    texts: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[Facts, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to show."""
        return not (self.charts or self.tables or self.facts or self.texts)


def number(value: float | None, form: str = ".4g", unit: str = "") -> Cell:
    """A number as a cell; a dash for None."""
    if value is None:
        return Cell("\N{EN DASH}")
    return Cell(f"{value:{form}}{unit}", value)


def words(text: str, style: str = "") -> Cell:
    """A text as a cell."""
    return Cell(text or "\N{EN DASH}", text.casefold(), style)


def columns(*titles: str, numeric: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns by their titles."""
    return tuple(Column(title, title in numeric) for title in titles)
