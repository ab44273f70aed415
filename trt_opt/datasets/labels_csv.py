"""The right answers beside a folder of images: `labels.csv`, a line `filename,class number` per image.

A heading is optional. With a heading there may be more columns: the one called file, filename or image and the one
called label, class, class_index, class_id or target are read.

A metric of the user's own takes numbers or texts in their place.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_opt.datasets.checks import closest_hint
from trt_opt.errors import DataError

LABELS_FILE = "labels.csv"

_FILE_COLUMNS = ("file", "filename", "image")
_MOST_DIGITS = 18
"""All such numbers fit int64."""

_LABEL_COLUMNS = ("label", "labels", "class", "class_index", "class_id", "target")


def labels_from_csv(path: Path, images: tuple[Path, ...], *, any_labels: bool = False) -> dict[str, np.generic]:
    """The label of every image by file name: class numbers as int64.

    Args:
        path: The labels.csv.
        images: The images of the folder; each needs a label.
        any_labels: Where one is no class number, all are float64 if all are numbers, else texts.

    Raises:
        DataError: Not readable, a line that says something else, an unknown image, two labels for one, or none.
    """
    labels: dict[str, str] = {}
    names = {image.name for image in images}
    for where, name, text in _entries(path):
        if not any_labels and not _is_class_number(text):
            raise DataError(f"{text!r} is not a class number from 0", where=where, hint="write filename,class number")
        if name not in names:
            raise DataError(f"no image {name!r} in the folder", where=where, hint=closest_hint(name, names))
        if name in labels:
            raise DataError(f"{name!r} has two labels", where=where)
        labels[name] = text
    missing = [image.name for image in images if image.name not in labels]
    if missing:
        raise DataError(f"{len(missing)} image(s) have no label, the first is {missing[0]!r}", where=str(path))
    return dict(zip(labels, _column_values(list(labels.values())), strict=True))


def _is_class_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _column_values(texts: list[str]) -> NDArray[np.generic]:
    """The narrowest that holds all of them: class numbers, floating-point numbers, texts."""
    if all(map(_is_class_number, texts)):
        return np.array(list(map(int, texts)), np.int64)
    try:
        return np.array(list(map(float, texts)), np.float64)
    except ValueError:
        return np.array(texts)


def _entries(path: Path) -> list[tuple[str, str, str]]:
    """(where, file name, label as written) for every line that is not empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", where=str(path)) from error
    columns = _columns(rows[0][1]) if rows else None
    if columns is not None:
        rows = rows[1:]
    name_column, label_column = columns or (0, 1)
    entries: list[tuple[str, str, str]] = []
    for number, row in rows:
        where = f"{path}, line {number}"
        if len(row) <= max(name_column, label_column) or (columns is None and len(row) != 2):
            raise DataError(
                f"cannot read {','.join(row)!r}",
                where=where,
                hint=f"write filename,class number; or begin with a heading that names {', '.join(_FILE_COLUMNS)} "
                f"and {', '.join(_LABEL_COLUMNS)}",
            )
        entries.append((where, row[name_column], row[label_column]))
    return entries


def _columns(row: list[str]) -> tuple[int, int] | None:
    """Which columns hold the file name and the label, if this row is a heading."""
    cells = [cell.lower() for cell in row]
    names = [index for index, cell in enumerate(cells) if cell in _FILE_COLUMNS]
    labels = [index for index, cell in enumerate(cells) if cell in _LABEL_COLUMNS]
    return (names[0], labels[0]) if len(names) == len(labels) == 1 else None
