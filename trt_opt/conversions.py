"""File to file: what the verbs rewrite and calibrate do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import onnx

from calibrators import CalibrationCache, CalibratorError, text_from_cache
from trt_opt.acceptance import judge_for
from trt_opt.backends import target_or_default
from trt_opt.backends.tensorrt_versions import support_of
from trt_opt.buildable import ImportChoice, PassChoice, made_buildable
from trt_opt.cache_import import CacheImport
from trt_opt.calibrate.cache import cache_from_table
from trt_opt.datasets import open_dataset, preprocess_from_text
from trt_opt.ends import EndsRequest, with_asked_ends
from trt_opt.errors import RequestError, StaleError
from trt_opt.files import require_free, write_atomically
from trt_opt.graph.load import load_model
from trt_opt.graph.query import graph_inputs, opset, opset_or_none
from trt_opt.graph.save import save_model
from trt_opt.implicit.caches import sidecar_of
from trt_opt.passes.clean_up.raise_opset import RaiseOpset
from trt_opt.preparation import (
    SAMPLES_FOR_PASSES,
    loaded,
    ranged,
    require_method,
    runnable,
)
from trt_opt.quantizing import write_cache
from trt_opt.recipe import Recipe
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import json_from_value
from trt_opt.values.importing import ZeroPoints
from trt_opt.values.progress import Progress
from trt_opt.values.rewriting import Change, PassReport, RewriteReport
from trt_opt.values.samples import Dataset


@dataclass(frozen=True, slots=True)
class RewriteRequest:
    """What `trt-opt rewrite` was asked for; the fields are its options."""

    model: str
    output: str
    data: str | None = None
    preprocess: str | None = None
    target: str | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    ends: EndsRequest = field(default_factory=EndsRequest)
    zero_points: ZeroPoints = "fold"
    force: bool = False


def rewritten_file(request: RewriteRequest, progress: Progress) -> RewriteReport:
    """Rewrites a model file until its target takes it, or as far as that goes; `report.after` tells.

    Raises:
        RequestError: The output exists, or a pass or an input is unknown.
        ModelFileError: The model cannot be read.
    """
    output = require_free(Path(request.output), force=request.force, source=request.model)
    asked = with_asked_ends(load_model(request.model), request.ends)
    tail_file = output.with_suffix(".tail.onnx")
    if asked.tail is not None:
        require_free(tail_file, force=request.force)
    model = runnable(asked.model)
    if request.preprocess and request.data is None:
        raise RequestError("--preprocess says how images become inputs, and there are none", hint="--data FOLDER")
    data = () if request.data is None else _opened(request.data, request.preprocess, model)
    samples = tuple(islice(data, SAMPLES_FOR_PASSES))
    importing = None if request.only else ImportChoice(zero_points=request.zero_points)
    choice = PassChoice(request.only, request.skip, request.ends.passes, importing=importing)
    with judge_for(target_or_default(request.target), thorough=True) as judge:
        rewritten, report = made_buildable(model, judge, samples, progress, choice=choice)
    report = _with_raised_opset(report, asked.model, model)
    save_model(rewritten, output)
    if asked.tail is not None:
        save_model(asked.tail, tail_file)
        report = replace(report, tail=str(tail_file))
    return report


def _with_raised_opset(report: RewriteReport, given: onnx.ModelProto, run: onnx.ModelProto) -> RewriteReport:
    """The report, which begins with what had to be done before the model could be run at all."""
    if run is given:
        return report
    raised = PassReport(RaiseOpset.name, (Change("model", f"opset {opset_or_none(given)} raised to {opset(run)}"),))
    return replace(report, passes=(raised, *report.passes))


def calibrated_file(
    recipe: Recipe, output: Path, progress: Progress, *, cache_version: str | None, force: bool
) -> CalibrationTable:
    """Calibrates a model and writes the table, and TensorRT's calibration cache beside it if a version is named.

    Raises:
        RequestError: The output exists, or there is nothing to calibrate with.
        DataError: The data do not fit.
    """
    require_free(output, force=force, source=recipe.model)
    if recipe.calib_data is None and recipe.from_cache is None:
        raise RequestError("there is nothing to calibrate with", hint="--calib-data DATA")
    cache_file = output.with_suffix(".cache")
    if cache_version is not None:
        _require_version(cache_version)
        _require_cache_free(cache_file, output, force=force)
    target = target_or_default(recipe.target)
    require_method(recipe, target)
    with judge_for(target, thorough=False) as judge:
        source, data = loaded(recipe, judge, progress)
    _, table, imported = ranged(recipe, source, data, progress)
    if table is None:
        raise RequestError("this model has no tensor to calibrate", where=recipe.model)
    if imported is not None:
        _require_no_gap(imported)
    write_atomically(output, json_from_value(table))
    if cache_version is not None:
        write_cache(cache_file, cache_from_table(table, cache_version), table, (cache_version, source))
    return table


def _require_no_gap(imported: CacheImport) -> None:
    """Refuses to write a table that lacks ranges: whoever uses it would not know which layers to leave out."""
    missing = imported.coverage.missing
    if missing:
        raise StaleError(
            f"the calibration cache has no range for {len(missing)} tensors that this table needs, "
            f"{next(iter(missing))!r} is the first",
            where=imported.coverage.file,
            hint="--calib-data DATA fills them in; or `trt-opt quantize --from-cache`, which leaves layers in float",
        )


def _require_version(version: str) -> None:
    """Refuses what is no version of TensorRT that reads caches, before any data are run."""
    try:
        text_from_cache(CalibrationCache(version, "EntropyCalibration2", {}))
    except CalibratorError as error:
        raise RequestError(f"--cache: {error}", hint="--cache 8.6.1") from error
    if not support_of(version).int8_calibrators:
        raise RequestError(
            f"--cache: TensorRT {version} reads no calibration cache, it has no INT8 calibrators",
            hint="leave --cache out: the ranges go into the graph (trt-opt quantize --table)",
        )


def _require_cache_free(cache_file: Path, output: Path, *, force: bool) -> None:
    """Refuses to write a cache over a file that is there, or over the one it is to lie beside."""
    if cache_file == output:
        raise RequestError("the calibration cache would have the same name", where=str(output), hint="-o TABLE.json")
    require_free(cache_file, force=force)
    require_free(sidecar_of(cache_file), force=force)


def _opened(source: str, preprocess: str | None, model: onnx.ModelProto) -> Dataset:
    steps = preprocess_from_text(preprocess) if preprocess else None
    return open_dataset(source, graph_inputs(model), preprocess=steps)
