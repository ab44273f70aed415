"""The stages in order: from a recipe to an engine in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from trt_opt import __version__
from trt_opt.acceptance import LibraryJudge
from trt_opt.accuracy_search.decision import Decision, Question, decided
from trt_opt.backends import Backend, backend_for, target_or_default
from trt_opt.backends.machine import package_versions
from trt_opt.backends.onnxruntime import check_in_onnxruntime
from trt_opt.build.manifest import MANIFEST, build_key, record_of_file, write_manifest
from trt_opt.build.store import CACHE, ENGINE, GRAPH, TABLE, TAIL, EngineStore
from trt_opt.buildable import require_accepted
from trt_opt.builder_options import options_for, seen
from trt_opt.cache_import import CacheImport
from trt_opt.engine_building import EngineBuilder, Engines
from trt_opt.files import sha256_of_file, write_atomically
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.query import graph_inputs
from trt_opt.graph.save import save_model
from trt_opt.graph.tensors import weight_bytes
from trt_opt.implicit.calibration import Ranges, implicit_calibration
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
from trt_opt.profiles import profile_for
from trt_opt.quantize.given_ends import given_ends
from trt_opt.recipe import Recipe, plain_from_recipe
from trt_opt.report.integer_ends import PREPROCESSING, note_text
from trt_opt.stopwatch import Stopwatch
from trt_opt.values.accuracy import Comparison
from trt_opt.values.codec import json_from_value
from trt_opt.values.engine import BuildOutcome, Manifest, Variant
from trt_opt.values.integer_ends import IntegerEnds
from trt_opt.values.native_calibration import NativeCalibration
from trt_opt.values.progress import Progress
from trt_opt.values.samples import DataProvenance
from trt_opt.variants import GraphVariant, accuracies, graph_variants

NOT_DECISIVE = ("model", "output", "calib_data", "eval_data", "table", "from_cache", "timeout_s", "tensorrt_python")
"""Options that do not enter an engine's key by their text: files enter by their content."""


def build_engine(recipe: Recipe, progress: Progress, *, rebuild: bool = False) -> BuildOutcome:
    """Builds the engine a recipe asks for, or finds it in the store.

    Args:
        recipe: The request.
        progress: Told of every stage.
        rebuild: Build even if the store has this engine.

    Raises:
        TrtOptError: Any branch of it; nothing is left behind.
    """
    watch = Stopwatch()
    store = EngineStore(Path(recipe.output))
    target = target_or_default(recipe.target, recipe.tensorrt_python)
    require_method(recipe, target)
    with backend_for(target, recipe.tensorrt_python) as backend:
        exact = replace(recipe, target=str(backend.target))
        require_method(exact, backend.target)
        with watch.stage("rewrite"):
            source, data = loaded(exact, LibraryJudge(backend, thorough=False), progress)
            require_accepted(source.report)
        name, key = source.path.stem, _key(exact, backend, source, data)
        found = None if rebuild else store.find(name, key)
        if found is not None:
            return found
        with store.stage(name, key) as folder:
            timings = None if backend.gpu is None else store.timing_cache(backend.gpu, backend.library)
            build = _Build(exact, backend, progress, watch, folder, store, timings)
            build.run(source, data, key, asked=recipe)
    return store.outcome(name, key, reused=False)


def _key(recipe: Recipe, backend: Backend, source: SourceModel, data: DataSets) -> str:
    """What decides an engine and its manifest, hashed."""
    options = {name: value for name, value in plain_from_recipe(recipe).items() if name not in NOT_DECISIVE}
    return build_key(
        {
            "tool": __version__,
            "library": backend.library,
            "target": str(backend.target),
            "gpu": None if backend.gpu is None else str(backend.gpu),
            "model": sha256_of_file(source.path),
            "frozen": fingerprint(source.original) if recipe.freeze_input else None,  # the text may name a file
            "options": options,
            "metric": metric_sha256(recipe),
            "calibration": data.calibration.provenance().sha256 if data.calibration else None,
            "evaluation": data.evaluation.provenance().sha256 if data.evaluation else None,
            "table": sha256_of_file(Path(recipe.table)) if recipe.table else None,
            "cache": sha256_of_file(Path(recipe.from_cache)) if recipe.from_cache else None,
        }
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Build:
    """One build into an empty folder."""

    recipe: Recipe
    backend: Backend
    progress: Progress
    watch: Stopwatch
    folder: Path
    store: EngineStore
    timings: Path | None

    def run(self, source: SourceModel, data: DataSets, key: str, *, asked: Recipe) -> None:
        """Runs the stages and writes what they give; `asked` is the recipe as the user gave it."""
        with self.watch.stage("calibrate"):
            graph, table, imported = ranged(self.recipe, source, data, self.progress)
        with self.watch.stage("search" if self.recipe.has_budget else "quantize"):
            question = Question(self.recipe, source, data, graph, table, self.progress, self.store.journal(key))
            decision = decided(question, key)
            final = decision.graph
            wanted = GraphVariant(decision.source.name, final.model, final.ends, final.weak)
            ranges = table.ranges if table else {}
            variants = graph_variants(graph, ranges, wanted, baselines=self.recipe.baselines)
            table = decision.table
            for variant in variants:
                check_in_onnxruntime(variant.model, f"the {variant.name} graph")
        with self.watch.stage("evaluate"):
            measured = accuracies(
                source.original,
                variants,
                decision.judged_on,
                self.progress,
                limits=decision.limits,
            )
        with self.watch.stage("build"):
            shapes, values = seen(table, data.evaluation)
            profile, notes = profile_for(self.recipe, graph_inputs(graph.model), shapes)
            options = options_for(self.recipe, self.backend.target, profile, values)
            given = Ranges(source.original, graph, table, data.calibration)
            with implicit_calibration(
                self.recipe, given, self.backend, self.folder, self.store, self.progress
            ) as calibration:
                told = None if calibration is None else calibration.request
                builder = EngineBuilder(self.recipe, self.backend, self.folder, self.timings, self.progress, told)
                engines = builder.engines(variants, options, source.original, decision)
                implicit = None if calibration is None else calibration.settled(engines.built.calibration)
        if table is not None:
            write_atomically(self.folder / TABLE, json_from_value(table))
        if source.tail is not None:
            save_model(source.tail, self.folder / TAIL)
        ends = final.ends or given_ends(source.original)
        if ends is not None:
            write_atomically(self.folder / PREPROCESSING, note_text(ends))
        result = _Result(source, data, decision, variants, measured, engines, notes, ends, implicit, imported)
        write_manifest(self._manifest(result, asked), self.folder / MANIFEST)
        if decision.journal is not None:
            decision.journal.done()

    def _manifest(self, result: _Result, asked: Recipe) -> Manifest:
        table, cache = self.folder / TABLE, self.folder / CACHE
        evaluation = result.data.evaluation
        return Manifest(
            tool=f"trt-opt {__version__}",
            library=self.backend.library,
            built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            recipe=plain_from_recipe(asked),
            model=record_of_file(result.source.path),
            engine=record_of_file(self.folder / ENGINE),
            graph=record_of_file(self.folder / GRAPH),
            table=record_of_file(table) if table.exists() else None,
            options=result.engines.options,
            inputs=result.engines.built.inputs,
            outputs=result.engines.built.outputs,
            calibration=result.ranges_from,
            evaluation=evaluation.provenance() if evaluation else None,
            precision=result.decision.graph.plan,
            rewrite=replace(result.source.report, tail=TAIL if result.source.tail else None),
            variants=result.figures(),
            seconds={stage: round(seconds, 3) for stage, seconds in self.watch.seconds.items()},
            warnings=(
                *import_notes(self.recipe, result.source),
                *(result.imported.warnings if result.imported else ()),
                *parser_notes(self.recipe, result.variants[-1].built),
                *result.decision.graph.warnings,
                *result.decision.warnings,
                *result.notes,
                *result.engines.notes,
                *(result.implicit.warnings if result.implicit else ()),
                *_tail_note(result.source),
                *data_warnings(result.data, allow_same=self.recipe.allow_same_data),
            ),
            builder_warnings=result.engines.built.warnings,
            packages=package_versions(),
            ends=result.ends,
            search=result.decision.reported(result.final_accuracy),
            gpu=self.backend.gpu,
            layers=result.engines.layers,
            mismatches=result.engines.mismatches,
            cache=record_of_file(cache) if cache.exists() else None,
            cache_coverage=result.imported.coverage if result.imported else None,
            implicit=result.implicit,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """What the stages of one build gave."""

    source: SourceModel
    data: DataSets
    decision: Decision
    variants: tuple[GraphVariant, ...]
    measured: Mapping[str, Comparison]
    engines: Engines
    notes: tuple[str, ...]
    ends: IntegerEnds | None
    implicit: NativeCalibration | None
    imported: CacheImport | None

    @property
    def final_accuracy(self) -> Comparison | None:
        """How far the result is from the model as given: the engine itself where it could be run, else simulated."""
        name = self.variants[-1].name
        return self.engines.on_gpu.get(name) or self.measured.get(name)

    @property
    def ranges_from(self) -> DataProvenance | None:
        """What the ranges rest on: calibration data, or a cache of which nothing is known."""
        if self.imported is not None:
            return self.imported.table.data
        return self.data.calibration.provenance() if self.data.calibration else None

    def figures(self) -> tuple[Variant, ...]:
        sizes, on_gpu = self.engines.sizes, self.engines.on_gpu
        return tuple(
            Variant(
                entry.name,
                weight_bytes(entry.built),
                sizes.get(entry.name),
                self.measured.get(entry.name),
                on_gpu.get(entry.name),
            )
            for entry in self.variants
        )


def _tail_note(source: SourceModel) -> tuple[str, ...]:
    told = (
        f"NonMaxSuppression and what follows are in {TAIL}, for ONNX Runtime, fed with the engine's inputs and outputs"
    )
    return (told,) if source.tail is not None else ()
