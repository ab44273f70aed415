"""The request as the TOML file that `--recipe` reads."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from trt_opt.recipe import Recipe
from trt_opt.values.codec import plain_from_value

NOT_TOLD = ("output", "tensorrt_python")
"""What is about the machine where the request was made."""


def text_from_recipe(recipe: Recipe) -> str:
    """The options that differ from their defaults; `recipe_from_file` reads them.

    Paths are as they were typed, so that the text is the same wherever it is written.
    """
    plain: dict[str, Any] = plain_from_value(recipe)
    defaults = {field.name: plain_from_value(field.default) for field in dataclasses.fields(Recipe)}
    told = {name: value for name, value in plain.items() if value != defaults[name] and name not in NOT_TOLD}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in told.items())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for DEL and for what is no Unicode.
        text = json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
        return text.replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
