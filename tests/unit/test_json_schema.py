"""The schemas of what --json prints."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

from trt_opt.values.codec import json_from_value
from trt_opt.values.json_schema import json_schema_of

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("write_schemas", ROOT / "scripts" / "write_schemas.py")
assert _spec is not None
assert _spec.loader is not None
write_schemas = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(write_schemas)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf."""

    size: float
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Tree:
    """A tree."""

    leaves: tuple[Leaf, ...]
    ends: tuple[int, str] | None
    named: Mapping[str, Leaf]


TREE = Tree((Leaf(1.5), Leaf(math.nan, "b")), (3, "x"), {"one": Leaf(2.0)})


def changed(**fields: Any) -> dict[str, Any]:
    """The tree's JSON with some fields in another form."""
    return {**json.loads(json_from_value(TREE)), **fields}


@pytest.mark.parametrize("name", list(write_schemas.KINDS))
def test_the_written_schemas_are_those_of_the_code(name: str) -> None:
    """docs/schemas was written after the last change of a value (python scripts/write_schemas.py)."""
    written = (ROOT / "docs" / "schemas" / f"{name}.json").read_text(encoding="utf-8")
    assert written == write_schemas.schema_text(write_schemas.KINDS[name])
    jsonschema.Draft202012Validator.check_schema(json.loads(written))


def test_what_the_codec_writes_is_valid() -> None:
    """NaN is null, tuples are arrays, and all fields are there."""
    jsonschema.validate(changed(), json_schema_of(Tree))


@pytest.mark.parametrize(
    "fields",
    [
        {"schema_version": 2},
        {"kind": "Leaf"},
        {"more": 1},
        {"ends": [3]},
        {"ends": ["x", 3]},
        {"leaves": [{"size": "1", "kind": "a"}]},
        {"leaves": [{"size": 1, "kind": "c"}]},
        {"named": {"one": None}},
    ],
)
def test_anything_else_is_refused(fields: dict[str, Any]) -> None:
    """Another version, kind, type, length or choice, or a field nobody knows."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(**fields), json_schema_of(Tree))


def test_a_missing_field_is_refused() -> None:
    """Every field is written, so every one is required."""
    plain = changed()
    del plain["ends"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, json_schema_of(Tree))
