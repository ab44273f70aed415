"""Options as typed, a recipe file and an earlier manifest, merged into one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trt_opt.errors import StaleError
from trt_opt.files import sha256_of_file
from trt_opt.recipe import Recipe, recipe_from_file, recipe_from_manifest


def recipe_from_options(typed: Mapping[str, Any], recipe: Path | None, manifest: Path | None) -> Recipe:
    """What was typed wins over the recipe file, which wins over the manifest.

    Args:
        typed: Option → value, None where it was not typed.
        recipe: A TOML file.
        manifest: The manifest of a build to repeat.

    Raises:
        StaleError: The manifest's model is not the same file any more.
        RecipeError: A file cannot be read.
    """
    options: dict[str, Any] = {}
    if manifest is not None:
        repeated, made = recipe_from_manifest(manifest)
        options |= repeated
        _check_same_model(Path(str(typed.get("model") or options["model"])), made.model.sha256)
    if recipe is not None:
        options |= recipe_from_file(recipe)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()}
    options |= {name: value for name, value in given.items() if value is not None}
    return Recipe(**{"model": "", **options})


def _check_same_model(model: Path, sha256: str) -> None:
    if model.is_file() and sha256_of_file(model) != sha256:
        raise StaleError(
            "the model is not the one this manifest was made from",
            where=str(model),
            hint="name the right file as MODEL, or build without --from",
        )
