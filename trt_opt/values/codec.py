"""Values to JSON and back: one codec for every frozen dataclass of this package."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from trt_opt.errors import RecipeError

SCHEMA_VERSION = 1

T = TypeVar("T")


def json_from_value(value: object) -> str:
    """The value as JSON text, with its kind and the schema's version on top."""
    plain = {"schema_version": SCHEMA_VERSION, "kind": type(value).__name__, **_plain_fields(value)}
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def plain_from_value(value: object) -> Any:
    """The value as dicts, lists, numbers and strings; NaN and infinities become None, which JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain_from_value(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_from_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def value_from_json(kind: type[T], text: str, *, where: str) -> T:
    """Reads back what `json_from_value` wrote.

    Args:
        kind: The dataclass expected.
        text: The JSON text.
        where: The file's name, for error messages.

    Raises:
        RecipeError: Not JSON, of another kind or schema, or with fields missing or unknown.
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"not readable as JSON ({error})", where=where) from error
    if not isinstance(plain, dict):
        raise RecipeError("a JSON object was expected", where=where)
    version = plain.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise RecipeError(
            f"schema version {version!r} was found, {SCHEMA_VERSION} is understood",
            where=where,
            hint="write the file again with this version of trt-opt",
        )
    found = plain.pop("kind", None)
    if found != kind.__name__:
        raise RecipeError(f"this file holds a {found!r}, not a {kind.__name__}", where=where)
    return typing.cast(T, _value_from_plain(kind, plain, where))


def kind_from_json(text: str, *, where: str) -> str | None:
    """What the text says it holds; None where it is JSON of somebody else.

    Args:
        text: The JSON text.
        where: The file's name, for error messages.

    Raises:
        RecipeError: Not JSON.
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"not readable as JSON ({error})", where=where) from error
    kind = plain.get("kind") if isinstance(plain, dict) else None
    return kind if isinstance(kind, str) else None


def _plain_fields(value: object) -> dict[str, Any]:
    fields = dataclasses.fields(value)  # type: ignore[arg-type]
    return {field.name: plain_from_value(getattr(value, field.name)) for field in fields}


def _value_from_plain(kind: Any, plain: Any, where: str) -> Any:
    if kind is Any:
        return plain
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_plain(kind, plain, where)
    if origin in (typing.Union, types.UnionType):
        return _union_from_plain(arguments, plain, where)
    if origin is tuple:
        return _tuple_from_plain(arguments, plain, where)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_from_plain(arguments[1], plain, where)
    if origin is typing.Literal:
        if plain not in arguments:
            raise RecipeError(f"{plain!r} is not one of {', '.join(map(str, arguments))}", where=where)
        return plain
    return _scalar_from_plain(kind, plain, where)


def _dataclass_from_plain(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise RecipeError(f"an object was expected, found {plain!r}", where=where)
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(plain) - set(hints))
    missing = sorted(
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in plain
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        problems = [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        problems += [f"missing: {', '.join(missing)}"] * bool(missing)
        raise RecipeError(f"the fields of {kind.__name__} do not fit ({'; '.join(problems)})", where=where)
    return kind(**{name: _value_from_plain(hints[name], plain[name], f"{where}: {name}") for name in plain})


def _union_from_plain(kinds: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _value_from_plain(kind, plain, where)
        except RecipeError:
            if kind is kinds[-1] or (kind is kinds[-2] and kinds[-1] is type(None)):
                raise
    raise RecipeError(f"{plain!r} was not expected", where=where)


def _tuple_from_plain(kinds: tuple[Any, ...], plain: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(plain, list):
        raise RecipeError(f"a list was expected, found {plain!r}", where=where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_value_from_plain(kinds[0], item, where) for item in plain)
    if len(kinds) != len(plain):
        raise RecipeError(f"a list of {len(kinds)} was expected, found {len(plain)}", where=where)
    return tuple(_value_from_plain(kind, item, where) for kind, item in zip(kinds, plain, strict=True))


def _mapping_from_plain(kind: Any, plain: Any, where: str) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise RecipeError(f"an object was expected, found {plain!r}", where=where)
    return {key: _value_from_plain(kind, item, f"{where}: {key}") for key, item in plain.items()}


def _scalar_from_plain(kind: Any, plain: Any, where: str) -> Any:
    if kind is float and plain is None:
        return math.nan  # what `plain_from_value` made of NaN and infinity
    if kind is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if not isinstance(plain, kind) or (kind is int and isinstance(plain, bool)):
        raise RecipeError(f"{kind.__name__} was expected, found {plain!r}", where=where)
    return plain
