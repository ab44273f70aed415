"""What a builder is told, from a recipe and from what the data had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trt_opt.quantize.weak_form import WeakForm
from trt_opt.recipe import Recipe
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.engine import BuildOptions
from trt_opt.values.samples import Dataset
from trt_opt.values.shapes import Profile, ShapeRange, ValueRange
from trt_opt.values.shapes_seen import ShapesSeen
from trt_opt.values.target import Target


def options_for(recipe: Recipe, target: Target, profile: Profile, values: Mapping[str, ValueRange]) -> BuildOptions:
    """What every builder is told, whatever the precision.

    Args:
        recipe: The request.
        target: What is built for, with the version where it is known.
        profile: One range per dynamic input.
        values: One range per input that decides a shape.
    """
    return BuildOptions(
        target=str(target),
        profile=profile,
        values=values,
        workspace_bytes=None if recipe.workspace_mib is None else recipe.workspace_mib * 2**20,
        optimization_level=recipe.optimization_level,
        dla_core=recipe.use_dla,
        gpu_fallback=recipe.gpu_fallback,
        version_compatible=recipe.version_compatible,
        hardware_compatible=recipe.hardware_compatible,
        tactic_sources=recipe.tactic_sources,
    )


def with_flags(options: BuildOptions, weak: WeakForm | None) -> BuildOptions:
    """The options with the flags of a graph for builders that are told precisions so; unchanged where types decide."""
    if weak is None:
        return options
    return replace(options, strongly_typed=False, fp16=weak.fp16, int8=weak.int8, float32_layers=weak.float32_layers)


def seen(
    table: CalibrationTable | None, evaluation: Dataset | None
) -> tuple[Mapping[str, ShapeRange], Mapping[str, ValueRange]]:
    """The shapes and values that the data had: as calibration saw them, else those of the evaluation data."""
    if table is not None:
        return table.shapes, table.values
    found = ShapesSeen(evaluation or ())
    return found.ranges(), found.values()
