"""Calibration tables with the thresholds of a cache, and what they tell of where these come from."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from calibrators import calibrator_from_text
from trt_opt.cache_import.matching import Match
from trt_opt.calibrate.ranges import calibration_pass
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.quantize.stage import FloatGraph
from trt_opt.recipe import Recipe
from trt_opt.values.cache_import import CacheCoverage
from trt_opt.values.calibration import CalibrationTable, TensorRange
from trt_opt.values.placement import Taps
from trt_opt.values.progress import Progress
from trt_opt.values.samples import DataProvenance, Dataset
from trt_opt.values.shapes_seen import ShapesSeen

FAR = 8.0
"""How many times above or below the data's extreme a threshold of the same network does not come to lie: on 20
networks with real data the lowest that entropy chose was 0.39 of the extreme."""

NO_DATA = DataProvenance("", "", 0)


def plain_table(graph: FloatGraph, match: Match, samples: Dataset | None) -> CalibrationTable:
    """The table without calibration data: thresholds stand for the extremes too, which are at least as large.

    Args:
        graph: The graph whose ranges are needed.
        match: The thresholds.
        samples: Their shapes are those to build for; None where there are none.
    """
    ranges = {}
    calibrated = set(graph.taps.calibrated)
    for name in graph.taps.all:
        found = match.found(name)
        if found is not None:
            ranges[name] = TensorRange(-found.amax, found.amax, found.amax if name in calibrated else None, 0)
    seen = ShapesSeen(samples or ())
    return CalibrationTable(fingerprint(graph.model), NO_DATA, "", ranges, seen.ranges(), seen.values())


def filled_table(
    recipe: Recipe, graph: FloatGraph, match: Match, data: Dataset, progress: Progress
) -> CalibrationTable:
    """The table with calibration data: their thresholds where the cache has none, their extremes everywhere."""
    gaps = match.gaps
    watched = tuple(name for name in graph.taps.all if name not in gaps)
    calibrator = calibrator_from_text(recipe.calibrator)
    table = calibration_pass(graph.model, Taps(gaps, watched), data, calibrator, progress).table
    held = {name: replace(table.ranges[name], amax=found.amax) for name, found in match.covered.items()}
    return replace(table, calibrator=str(calibrator) if gaps else "", ranges={**table.ranges, **held})


def with_provenance(table: CalibrationTable, coverage: CacheCoverage) -> CalibrationTable:
    """The table that says where its ranges come from."""
    calibrator = " + ".join(text for text in (f"cache({coverage.header})", table.calibrator) if text)
    if not coverage.from_data:
        return replace(
            table,
            calibrator=calibrator,
            data=DataProvenance(coverage.file, coverage.sha256, 0, cache=coverage.file),
        )
    both = hashlib.sha256(f"{coverage.sha256} {table.data.sha256}".encode()).hexdigest()
    return replace(table, calibrator=calibrator, data=replace(table.data, sha256=both, cache=coverage.file))


def far_from_data(match: Match, table: CalibrationTable) -> dict[str, float]:
    """Tensor → threshold of the cache divided by the data's extreme, where the two are far apart."""
    far = {}
    for name, found in match.covered.items():
        extreme = table.ranges[name].extreme
        if found.tensors == (name,) and extreme and not 1 / FAR <= found.amax / extreme <= FAR:
            far[name] = found.amax / extreme
    return far
