"""A model quantised as a recipe asks, and written to a file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from trt_opt import __version__
from trt_opt.acceptance import judge_for
from trt_opt.accuracy_search.decision import Decision, Question, decided
from trt_opt.backends import target_or_default
from trt_opt.backends.machine import package_versions
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.build.manifest import build_key
from trt_opt.calibrate.cache import cache_from_table
from trt_opt.errors import RequestError
from trt_opt.files import require_free, sha256_of_file, write_atomically
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.save import save_model
from trt_opt.implicit.caches import expected_record, record_cache, sidecar_of
from trt_opt.implicit.native import is_native
from trt_opt.preparation import (
    DataSets,
    SourceModel,
    data_warnings,
    import_notes,
    loaded,
    metric_sha256,
    parser_notes,
    ranged,
    require_method,
)
from trt_opt.quantize.methods.full_integer import FullInteger
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.recipe import Recipe, plain_from_recipe
from trt_opt.report.integer_ends import PREPROCESSING, note_text
from trt_opt.values.accuracy import Comparison
from trt_opt.values.cache_import import CacheCoverage
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.precision import QuantizationReport
from trt_opt.values.progress import Progress
from trt_opt.values.target import Target, TensorRTTarget
from trt_opt.variants import GraphVariant, accuracies


def write_cache(file: Path, text: str, table: CalibrationTable, made_for: tuple[str, SourceModel]) -> None:
    """Writes TensorRT's calibration cache, and beside it what it belongs to."""
    write_atomically(file, text)
    version, source = made_for
    origin = fingerprint(source.original)
    record_cache(file, expected_record(table.model_sha256, table.data, table.calibrator, version, source_sha256=origin))


def quantized_file(recipe: Recipe, output: Path, progress: Progress, *, force: bool) -> QuantizationReport:
    """Writes the model with Q/DQ pairs and FP16 in it.

    With implicit quantisation the model stays float, and TensorRT's calibration cache is written beside it.

    Raises:
        RequestError: The output or what lies beside it exists, or the method needs data that are not there.
        TargetError: The target cannot run the method's graph.
        UnsupportedModelError: No layer can be quantised as asked, or a GPU of the target lacks the kernels.
        DataError: The data do not fit.
        StaleError: The calibration table was made for something else.
    """
    require_free(output, force=force, source=recipe.model)
    cache_file = output.with_suffix(".cache")
    if recipe.method == Implicit.name:
        require_free(cache_file, force=force)
        require_free(sidecar_of(cache_file), force=force)
    note = output.with_suffix(f".{PREPROCESSING}")
    if recipe.method == FullInteger.name:
        require_free(note, force=force)
    found = quantized(recipe, output.with_name(f".{output.name}.search.jsonl"), progress)
    decision, result = found.decision, found.decision.graph
    save_model(result.built, output)
    beside: list[Path] = []
    if result.ends is not None:
        write_atomically(note, note_text(result.ends))
        beside.append(note)
    warnings = list(found.warnings)
    if found.cache is not None and decision.table is not None:
        write_cache(
            cache_file, found.cache, decision.table, (_cache_version(target_or_default(recipe.target)), found.source)
        )
        beside += [cache_file, sidecar_of(cache_file)]
        command = ["trtexec", f"--onnx={output}", "--int8", *(["--fp16"] if recipe.wants_fp16 else [])]
        warnings.append(
            f"the file is float; TensorRT chooses what runs in INT8: {shlex.join([*command, f'--calib={cache_file}'])}"
        )
    if decision.journal is not None:
        decision.journal.done()
    return QuantizationReport(
        str(output),
        result.plan,
        decision.table.data if decision.table else None,
        tuple(warnings),
        tuple(map(str, beside)),
        found.source.report.imported,
        decision.reported(found.accuracy),
        found.accuracy,
        found.coverage,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A model quantised as a recipe asks; nothing of it is written yet.

    Attributes:
        source: The model as given and as rewritten.
        data: The samples.
        decision: The graph, its ranges, and how they came about.
        accuracy: The graph against the model as given; None without evaluation data.
        cache: TensorRT's calibration cache, where quantisation is implicit.
        warnings: What the user should know.
        coverage: What a calibration cache covered of the ranges; None where they come from elsewhere.
    """

    source: SourceModel
    data: DataSets
    decision: Decision
    accuracy: Comparison | None
    cache: str | None
    warnings: tuple[str, ...]
    coverage: CacheCoverage | None = None


def quantized(recipe: Recipe, journal: Path, progress: Progress) -> Quantized:
    """Quantises a model as the recipe asks, and sees how accurate the result is and whether it runs.

    Args:
        recipe: The request.
        journal: Where a search keeps what it measured, until the caller says that all is done.
        progress: Told of every stage.

    Raises:
        RequestError: The method needs data that are not there.
        TargetError: The target cannot run the method's graph.
        UnsupportedModelError: No layer can be quantised as asked, or a GPU of the target lacks the kernels.
        DataError: The data do not fit.
        StaleError: The calibration table was made for something else.
    """
    if is_native(recipe.calibrator):
        raise RequestError(
            f"{recipe.calibrator} calibrates while TensorRT builds, and nothing is built here",
            hint="trt-opt build on the machine with the GPU, or --calibrator entropy",
        )
    target = target_or_default(recipe.target)
    require_method(recipe, target)
    cache_version = _cache_version(target) if recipe.method == Implicit.name else None
    with judge_for(target, thorough=False) as judge:
        source, data = loaded(recipe, judge, progress)
    graph, table, imported = ranged(recipe, source, data, progress)
    question = Question(recipe, source, data, graph, table, progress, journal)
    decision = decided(question, _search_key(recipe, source, data))
    result, table = decision.graph, decision.table
    variant = GraphVariant(decision.source.name, result.model, result.ends, result.weak)
    measured = accuracies(source.original, (variant,), decision.judged_on, progress, limits=decision.limits)
    with OnnxRuntimeRunner(result.built, optimised=False):
        pass  # a graph that does not load is never written
    warnings = (
        *import_notes(recipe, source),
        *parser_notes(recipe, result.built),
        *(imported.warnings if imported is not None else ()),
        *result.warnings,
        *decision.warnings,
        *data_warnings(data, allow_same=recipe.allow_same_data),
    )
    cache = None if cache_version is None or table is None else cache_from_table(table, cache_version)
    coverage = None if imported is None else imported.coverage
    return Quantized(source, data, decision, measured.get(variant.name), cache, warnings, coverage)


def _search_key(recipe: Recipe, source: SourceModel, data: DataSets) -> str:
    """What decides every measurement of a search."""
    options = {name: value for name, value in plain_from_recipe(recipe).items() if name != "output"}
    sets = (data.calibration, data.evaluation)
    return build_key(
        {
            "tool": __version__,
            "model": sha256_of_file(source.path),
            "options": options,
            "metric": metric_sha256(recipe),
            "table": sha256_of_file(Path(recipe.table)) if recipe.table else None,
            "data": [None if dataset is None else dataset.provenance().sha256 for dataset in sets],
        }
    )


def _cache_version(target: Target) -> str:
    """The TensorRT a cache is for: the target's, or the one installed here.

    Raises:
        RequestError: Neither is known.
    """
    if isinstance(target, TensorRTTarget) and target.version is not None:
        return target.version
    installed = package_versions().get("tensorrt")
    if installed is None:
        raise RequestError("a calibration cache is for one version of TensorRT", hint="--target tensorrt:8.6")
    return installed
