"""The calibrators by name, and their text notation."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from calibrators.auto import Auto
from calibrators.entropy import Entropy
from calibrators.errors import CalibratorError
from calibrators.minmax import MinMax
from calibrators.mse import Mse
from calibrators.percentile import Percentile

Calibrator: TypeAlias = MinMax | Entropy | Percentile | Mse | Auto

CALIBRATORS: Mapping[str, type[Calibrator]] = MappingProxyType(
    {kind.name: kind for kind in (Entropy, MinMax, Percentile, Mse, Auto)}
)


def calibrator_from_text(text: str) -> Calibrator:
    """Parses `entropy`, `percentile(percent=99.9)`, `entropy(bins=2048, levels=128)`: also what `str()` gives.

    Raises:
        CalibratorError: The notation, the name, an argument or its value is wrong.
    """
    match = re.fullmatch(r"\s*(?P<name>[\w-]+)\s*(?:\((?P<arguments>[^()]*)\))?\s*", text)
    if match is None:
        raise CalibratorError(f"cannot read the calibrator {text!r}: write entropy, or percentile(percent=99.9)")
    kind = CALIBRATORS.get(match["name"])
    if kind is None:
        raise CalibratorError(f"unknown calibrator {match['name']!r}{_suggestion(match['name'], CALIBRATORS)}")
    written = (part for part in (match["arguments"] or "").split(",") if part.strip())
    arguments: dict[str, int | float] = {}
    for part in written:
        key, value = _argument(kind, part)
        if key in arguments:
            raise CalibratorError(f"{kind.name} is given {key} twice")
        arguments[key] = value
    return kind(**arguments)  # type: ignore[arg-type]  # names and types are checked by _argument


def _argument(kind: type[Calibrator], part: str) -> tuple[str, int | float]:
    key, separator, value = (piece.strip() for piece in part.partition("="))
    # With `from __future__ import annotations` a field's type is its source text.
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    if not separator or key not in types:
        taken = f"it takes {', '.join(types)}" if types else "it takes no arguments"
        raise CalibratorError(f"{kind.name} does not understand {part.strip()!r}: {taken}")
    try:
        return key, int(value) if types[key] == "int" else float(value)
    except ValueError as error:
        raise CalibratorError(f"{key} of {kind.name} must be of type {types[key]}, not {value!r}") from error


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; known are {', '.join(known)}" + (f". Did you mean {close[0]}?" if close else "")
