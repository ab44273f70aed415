"""The optimization profile of a build: what the user said, completed from the data."""

from __future__ import annotations

from collections.abc import Mapping

from trt_opt.errors import RequestError
from trt_opt.recipe import Recipe
from trt_opt.values.shapes import Profile, Shape, ShapeRange, shapes_from_text
from trt_opt.values.tensors import TensorSpec


def profile_for(
    recipe: Recipe, inputs: tuple[TensorSpec, ...], seen: Mapping[str, ShapeRange]
) -> tuple[Profile, tuple[str, ...]]:
    """One range for every input with a dynamic dimension, and what the user should know about them.

    What --min-shapes, --opt-shapes and --max-shapes say is taken; a gap is filled from the shapes the data had.

    Args:
        recipe: The request.
        inputs: The graph's inputs.
        seen: The shapes of the data, by input.

    Raises:
        RequestError: A shape names no input or does not fit it, or nothing tells the size of a dynamic dimension.
    """
    told = tuple(shapes_from_text(text or "") for text in (recipe.min_shapes, recipe.opt_shapes, recipe.max_shapes))
    _check_names(told, inputs)
    profile: dict[str, ShapeRange] = {}
    notes: list[str] = []
    for spec in inputs:
        if spec.is_static:
            continue
        profile[spec.name] = _range_for(spec, [shapes.get(spec.name) for shapes in told], seen.get(spec.name))
        if not any(spec.name in shapes for shapes in told):
            notes.append(_note(spec.name, profile[spec.name]))
    return profile, tuple(notes)


def _range_for(spec: TensorSpec, told: list[Shape | None], seen: ShapeRange | None) -> ShapeRange:
    known = [shape for shape in told if shape is not None]
    if known:
        opt = told[1] or known[-1]
        found = ShapeRange(told[0] or min(known), opt, told[2] or max(known))
    elif seen is not None:
        found = seen
    else:
        raise RequestError(
            f"the input {spec} has dynamic dimensions and nothing tells their sizes",
            hint=f"--min-shapes {spec.name}:1x… --opt-shapes {spec.name}:1x… --max-shapes {spec.name}:8x…, or data",
        )
    for shape in (found.min, found.opt, found.max):
        _check_fits(spec, shape)
    return found


def _check_names(told: tuple[dict[str, Shape], ...], inputs: tuple[TensorSpec, ...]) -> None:
    known = {spec.name: spec for spec in inputs}
    for shapes in told:
        for name, shape in shapes.items():
            if name not in known:
                raise RequestError(f"the model has no input {name!r}", hint=f"its inputs are {', '.join(known)}")
            _check_fits(known[name], shape)


def _check_fits(spec: TensorSpec, shape: Shape) -> None:
    if spec.shape is None:
        return
    fits = len(shape) == len(spec.shape) and all(
        isinstance(want, str) or want == size for want, size in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise RequestError(f"the shape {'x'.join(map(str, shape)) or 'scalar'} does not fit the input {spec}")


def _note(name: str, found: ShapeRange) -> str:
    sizes = ["x".join(map(str, shape)) for shape in (found.min, found.opt, found.max)]
    told = sizes[0] if len(set(sizes)) == 1 else f"{sizes[0]} to {sizes[2]}, best at {sizes[1]}"
    return f"the engine takes {name} as {told}, the shapes of the data (--min-shapes, --opt-shapes, --max-shapes)"
