"""Ranges from a TensorRT calibration cache: what of a model it covers, and what becomes of the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from trt_opt.cache_import.gaps import without_gaps
from trt_opt.cache_import.matching import Match
from trt_opt.cache_import.owner import own_record, require_own
from trt_opt.cache_import.reading import cache_from_file
from trt_opt.cache_import.tables import far_from_data, filled_table, plain_table, with_provenance
from trt_opt.quantize.stage import FloatGraph
from trt_opt.recipe import Recipe
from trt_opt.values.cache_import import CacheCoverage
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset

__all__ = ["CacheImport", "cache_from_file", "imported_cache"]


@dataclass(frozen=True, slots=True, eq=False)
class CacheImport:
    """A model with the ranges of a calibration cache.

    Attributes:
        graph: The model made ready; layers without ranges stay in float.
        table: The ranges.
        coverage: What the cache covered.
        warnings: What the user should know.
    """

    graph: FloatGraph
    table: CalibrationTable
    coverage: CacheCoverage
    warnings: tuple[str, ...]


def imported_cache(
    recipe: Recipe,
    given: onnx.ModelProto,
    graph: FloatGraph,
    data: tuple[Dataset | None, Dataset | None],
    progress: Progress,
) -> CacheImport:
    """The ranges of the recipe's calibration cache, matched to the tensors that the graph's INT8 layers need.

    A tensor the cache lacks takes the range of one that holds all its values, else one from calibration data, else the
    layers that read it stay in float.

    Args:
        recipe: The request, with `from_cache`.
        given: The model as it came: the cache names its tensors.
        graph: The model rewritten and made ready, every layer placed that the policy allows.
        data: Calibration data to fill gaps with; evaluation data, whose shapes count where there are no others.
        progress: Told of the data pass.

    Raises:
        DataError: The cache cannot be read.
        StaleError: The cache is another model's or has no range, or lacks the range of an integer input or output.
        UnsupportedModelError: No layer is left that could run in INT8.
    """
    cache, sha256 = cache_from_file(Path(recipe.from_cache or ""))
    match = Match(cache, given, graph)
    require_own(match, recipe.from_cache or "", despite=recipe.reuse_table)
    record = own_record(recipe.from_cache or "", sha256, (given, graph.model), despite=recipe.reuse_table)
    calibration, evaluation = data
    if calibration is None:
        placed, missing = without_gaps(graph, match)
        table = plain_table(placed, match, evaluation)
        coverage = match.coverage(recipe.from_cache or "", sha256, placed, missing)
    else:
        placed = graph
        table = filled_table(recipe, graph, match, calibration, progress)
        coverage = match.coverage(recipe.from_cache or "", sha256, placed, {})
        coverage = replace(coverage, from_data=match.gaps, far_from_data=far_from_data(match, table))
    coverage = replace(coverage, record=record)
    table = with_provenance(table, coverage)
    return CacheImport(placed, table, coverage, _notes(coverage, placed, seen=calibration is not None))


def _origin(coverage: CacheCoverage) -> str:
    if coverage.record is None:
        return "which says nothing of the model or data it was made with"
    return (
        f"made for this model on {coverage.record.data.samples} samples of {coverage.record.data.source or 'no data'}"
    )


def _notes(coverage: CacheCoverage, graph: FloatGraph, *, seen: bool) -> tuple[str, ...]:
    notes = [
        f"the ranges are those of a calibration cache ({coverage.header}), {_origin(coverage)}: whether they fit, only "
        "--eval-data tells"
    ]
    if coverage.missing:
        notes.append(
            f"the cache has no range for {len(coverage.missing)} of {coverage.needed} tensors: layers that read them "
            f"({len(coverage.layers_in_float)}) stay in float; --calib-data DATA fills them in"
        )
    if coverage.far_from_data:
        name, ratio = next(iter(coverage.far_from_data.items()))
        notes.append(
            f"{len(coverage.far_from_data)} of {len(coverage.exact)} ranges are far from what the calibration data "
            f"reach ({name!r}: {ratio:.3g} times): the cache may be another model's, or of other preprocessing"
        )
    if graph.request.fp16 and not seen:
        notes.append(
            "FP16 was chosen without data: no tensor's range was seen, only constants and the cache's thresholds, "
            "which may clip, were checked for overflow"
        )
    return tuple(notes)
