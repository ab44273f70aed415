"""Arguments checked against the signatures that pybind11 writes into the docstrings of NVIDIA's bindings."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STAND_INS: dict[str, type] = {}
"""The classes that stand in for one of the vendor's, by the vendor's name."""


@dataclass(frozen=True)
class Parameter:
    """One parameter; `default` is source text, None where there is no default."""

    name: str
    annotation: str
    default: str | None

    @property
    def by_keyword(self) -> bool:
        """Whether the bindings name it: pybind11 shows unnamed parameters as arg0, arg1."""
        return re.fullmatch(r"arg\d+", self.name) is None


def signatures_of(name: str, documentation: str | None) -> list[list[Parameter]]:
    """Every overload in a docstring, without `self`."""
    found = []
    for line in (documentation or "").splitlines():
        match = re.match(rf"(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", line)
        if match and match[1] != "*args, **kwargs":
            found.append([_parameter(text) for text in split(match[1])][1:])
    return found


def split(text: str) -> list[str]:
    """Text at its outermost commas."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "([{<":
            depth += 1
        elif character in ")]}>":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()] if text.strip() else []


def _parameter(text: str) -> Parameter:
    name, _, rest = text.partition(":")
    annotation, equals, default = rest.partition(" = ")
    return Parameter(name.strip(), annotation.strip(), default.strip() if equals else None)


def bound(
    name: str, overloads: Sequence[list[Parameter]], vendor: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> list[Any]:
    """The arguments in the order of the first overload they fit, trailing defaults left out.

    Raises:
        TypeError: They fit none, in the words of pybind11.
    """
    for parameters in overloads:
        found = _fitted(parameters, vendor, arguments, named)
        if found is not None:
            return found
    known = "; ".join("(" + ", ".join(f"{p.name}: {p.annotation}" for p in found) + ")" for found in overloads)
    raise TypeError(
        f"{name}(): incompatible function arguments. Supported: {known}. Invoked with: {arguments!r}, {named!r}"
    )


def _fitted(
    parameters: list[Parameter], vendor: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> list[Any] | None:
    if len(arguments) > len(parameters):
        return None
    values: dict[str, Any] = dict(zip((parameter.name for parameter in parameters), arguments, strict=False))
    allowed = {parameter.name for parameter in parameters[len(arguments) :] if parameter.by_keyword}
    if not set(named) <= allowed:
        return None
    values.update(named)
    for parameter in parameters:
        if parameter.name not in values and parameter.default is None:
            return None
        if parameter.name in values and not fits(parameter.annotation, values[parameter.name], vendor):
            return None
    last = max((index for index, parameter in enumerate(parameters) if parameter.name in values), default=-1)
    return [values[p.name] if p.name in values else ast.literal_eval(str(p.default)) for p in parameters[: last + 1]]


def fits(annotation: str, value: Any, vendor: Any) -> bool:
    """Whether pybind11 would convert a value to a parameter of this annotation."""
    if annotation.endswith(" | None") or annotation.startswith("Optional["):
        if value is None:
            return True
        annotation = annotation.removesuffix(" | None").removeprefix("Optional[").removesuffix("]")
    if annotation in PLAIN:
        return PLAIN[annotation](value)
    if re.match(r"(typing\.)?(List|list|Sequence|collections\.abc\.Sequence)\b", annotation):
        return isinstance(value, (list, tuple, np.ndarray)) or (hasattr(value, "__getitem__") and not _is_text(value))
    match = re.fullmatch(r"tensorrt_bindings\.tensorrt\.(\w+)", annotation)
    return _is_vendor_class(match[1], value, vendor) if match else True


def _is_vendor_class(name: str, value: Any, vendor: Any) -> bool:
    kind = STAND_INS.get(name) or getattr(vendor, name)
    if isinstance(value, kind):
        return True
    if name in ("Dims", "Weights", "Permutation"):
        return _converts(kind, value)
    is_enum = hasattr(kind, "__members__")
    return value is None and not is_enum


def _converts(kind: Callable[[Any], Any], value: Any) -> bool:
    try:
        kind(value)
    except TypeError:
        return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes))


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") or (hasattr(value, "__int__") and not isinstance(value, (float, np.floating)))


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") or hasattr(value, "__index__")


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


PLAIN: dict[str, Callable[[Any], bool]] = {
    "int": _is_integer,
    "typing.SupportsInt": _is_integer,
    "typing.SupportsInt | typing.SupportsIndex": _is_integer,
    "float": _is_number,
    "typing.SupportsFloat": _is_number,
    "typing.SupportsFloat | typing.SupportsIndex": _is_number,
    "bool": lambda value: value is None or hasattr(value, "__bool__"),
    "str": _is_text,
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "buffer": _is_buffer,
    "typing_extensions.Buffer": _is_buffer,
    "collections.abc.Buffer": _is_buffer,
}
