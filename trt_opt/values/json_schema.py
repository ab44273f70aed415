"""JSON Schemas of what `--json` prints, made from the dataclasses themselves."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from trt_opt.values.codec import SCHEMA_VERSION

DIALECT = "https://json-schema.org/draft/2020-12/schema"

SCALARS: Mapping[type, str] = types.MappingProxyType({str: "string", bool: "boolean", int: "integer", float: "number"})


def json_schema_of(kind: type) -> dict[str, Any]:
    """The schema of a dataclass's JSON, as `codec.json_from_value` writes it.

    Every field is required, because every field is written; nothing else may stand there. Numbers that may be NaN or
    infinite are null then.

    Args:
        kind: A frozen dataclass of this package.

    Raises:
        TypeError: A field of a type that JSON has no form for.
    """
    definitions: dict[str, Any] = {}
    top = _object(kind, definitions)
    head = {"schema_version": {"const": SCHEMA_VERSION}, "kind": {"const": kind.__name__}}
    return {
        "$schema": DIALECT,
        "title": kind.__name__,
        **top,
        "properties": {**head, **top["properties"]},
        "required": [*head, *top["required"]],
        "$defs": definitions,
    }


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip().partition("\n")[0],
        "properties": {name: _schema(hints[name], definitions) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # so that a value that holds its own kind ends
            definitions[kind.__name__] = _object(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(one, definitions) for one in arguments]}
    if origin is tuple:
        return _array(arguments, definitions)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    return _scalar(kind)


def _array(arguments: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    entries = [_schema(one, definitions) for one in arguments]
    return {"type": "array", "prefixItems": entries, "minItems": len(entries), "maxItems": len(entries)}


def _scalar(kind: Any) -> dict[str, Any]:
    if kind is type(None):
        return {"type": "null"}
    if kind is float:
        return {"type": ["number", "null"]}
    if kind in SCALARS:
        return {"type": SCALARS[kind]}
    raise TypeError(f"{kind!r} has no form in JSON")
