"""The right answers beside a folder of images: `labels.csv`, a line `filename,class number` per image.

A heading is optional. With a heading there may be more columns: the one called file, filename or image and the one
called label, class, class_index, class_id or target are read.
"""

from __future__ import annotations

import csv
from pathlib import Path

from trt_opt.datasets.checks import closest_hint
from trt_opt.errors import DataError

LABELS_FILE = "labels.csv"

_FILE_COLUMNS = ("file", "filename", "image")
_LABEL_COLUMNS = ("label", "labels", "class", "class_index", "class_id", "target")


def labels_from_csv(path: Path, images: tuple[Path, ...]) -> dict[str, int]:
    """The class number of every image, by file name.

    Args:
        path: The labels.csv.
        images: The images of the folder; each needs a label.

    Raises:
        DataError: Not readable, a line that says something else, an unknown image, two labels for one, or none.
    """
    labels: dict[str, int] = {}
    names = {image.name for image in images}
    for where, name, text in _entries(path):
        if not (text.isascii() and text.isdigit()):
            raise DataError(f"{text!r} is not a class number from 0", where=where, hint="write filename,class number")
        if name not in names:
            raise DataError(f"no image {name!r} in the folder", where=where, hint=closest_hint(name, names))
        if name in labels:
            raise DataError(f"{name!r} has two labels", where=where)
        labels[name] = int(text)
    missing = [image.name for image in images if image.name not in labels]
    if missing:
        raise DataError(f"{len(missing)} image(s) have no label, the first is {missing[0]!r}", where=str(path))
    return labels


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
