"""The stages in order: from a recipe to an engine in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import onnx

from trt_opt import __version__
from trt_opt.acceptance import LibraryJudge
from trt_opt.accuracy_search.decision import Decision, Question, decided
from trt_opt.backends import Backend, backend_for, target_or_default
from trt_opt.backends.machine import package_versions
from trt_opt.backends.onnxruntime import check_in_onnxruntime
from trt_opt.build.manifest import MANIFEST, build_key, record_of_file, write_manifest
from trt_opt.build.store import ENGINE, GRAPH, TABLE, TAIL, EngineStore
from trt_opt.buildable import require_accepted
from trt_opt.errors import UnsupportedModelError
from trt_opt.files import sha256_of_file, write_atomically
from trt_opt.graph.fingerprint import fingerprint
from trt_opt.graph.query import graph_inputs
from trt_opt.graph.save import save_model
from trt_opt.graph.tensors import weight_bytes
from trt_opt.guilty_node import with_guilty_node
from trt_opt.preparation import (
    DataSets,
    SourceModel,
    data_warnings,
    import_notes,
    loaded,
    metric_sha256,
    precision_request,
    ranges_table,
    require_method,
)
from trt_opt.profiles import profile_for
from trt_opt.quantize.given_ends import given_ends
from trt_opt.quantize.stage import float_graph
from trt_opt.recipe import Recipe, plain_from_recipe
from trt_opt.report.integer_ends import PREPROCESSING, note_text
from trt_opt.stopwatch import Stopwatch
from trt_opt.values.accuracy import Comparison
from trt_opt.values.backend import BuiltEngine
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.codec import json_from_value
from trt_opt.values.engine import BuildOptions, BuildOutcome, Manifest, Variant
from trt_opt.values.integer_ends import IntegerEnds
from trt_opt.values.progress import Progress, Renamed, Silent
from trt_opt.values.shapes import Profile, ShapeRange, ValueRange
from trt_opt.values.shapes_seen import ShapesSeen
from trt_opt.variants import GraphVariant, accuracies, graph_variants

NOT_DECISIVE = ("model", "output", "calib_data", "eval_data", "table", "timeout_s")
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
    target = target_or_default(recipe.target)
    require_method(recipe, target)
    with backend_for(target) as backend:
        with watch.stage("rewrite"):
            source, data = loaded(recipe, LibraryJudge(backend, thorough=False), progress)
            require_accepted(source.report)
        name, key = source.path.stem, _key(recipe, backend, source, data)
        found = None if rebuild else store.find(name, key)
        if found is not None:
            return found
        with store.stage(name, key) as folder:
            _Build(recipe, backend, progress, watch, folder, store.journal(key)).run(source, data, key)
    return store.outcome(name, key, reused=False)


def _key(recipe: Recipe, backend: Backend, source: SourceModel, data: DataSets) -> str:
    """What decides an engine and its manifest, hashed."""
    options = {name: value for name, value in plain_from_recipe(recipe).items() if name not in NOT_DECISIVE}
    return build_key(
        {
            "tool": __version__,
            "library": backend.library,
            "target": str(backend.target),
            "model": sha256_of_file(source.path),
            "frozen": fingerprint(source.original) if recipe.freeze_input else None,  # the text may name a file
            "options": options,
            "metric": metric_sha256(recipe),
            "calibration": data.calibration.provenance().sha256 if data.calibration else None,
            "evaluation": data.evaluation.provenance().sha256 if data.evaluation else None,
            "table": sha256_of_file(Path(recipe.table)) if recipe.table else None,
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
    journal: Path

    def run(self, source: SourceModel, data: DataSets, key: str) -> None:
        graph = float_graph(source.rewritten, precision_request(self.recipe))
        with self.watch.stage("calibrate"):
            table = ranges_table(self.recipe, graph, data.calibration, self.progress)
        with self.watch.stage("search" if self.recipe.has_budget else "quantize"):
            question = Question(self.recipe, source, data, graph, table, self.progress, self.journal)
            decision = decided(question, key)
            final = decision.graph
            asked = GraphVariant(decision.source.name, final.model, final.ends)
            ranges = table.ranges if table else {}
            variants = graph_variants(graph, ranges, asked, baselines=self.recipe.baselines)
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
            shapes, values = _seen(table, data)
            profile, notes = profile_for(self.recipe, graph_inputs(graph.model), shapes)
            options = self._options(profile, values)
            sizes, built = self._engines(variants, options)
        if table is not None:
            write_atomically(self.folder / TABLE, json_from_value(table))
        if source.tail is not None:
            save_model(source.tail, self.folder / TAIL)
        ends = final.ends or given_ends(source.original)
        if ends is not None:
            write_atomically(self.folder / PREPROCESSING, note_text(ends))
        if final.ends is not None:
            options = _at_ends(options, final.ends)
        result = _Result(source, data, decision, variants, measured, sizes, built, options, notes, ends)
        write_manifest(self._manifest(result), self.folder / MANIFEST)
        if decision.journal is not None:
            decision.journal.done()

    def _options(self, profile: Profile, values: Mapping[str, ValueRange]) -> BuildOptions:
        workspace = self.recipe.workspace_mib
        return BuildOptions(
            target=str(self.backend.target),
            profile=profile,
            values=values,
            workspace_bytes=None if workspace is None else workspace * 2**20,
            optimization_level=self.recipe.optimization_level,
        )

    def _engines(self, variants: Sequence[GraphVariant], options: BuildOptions) -> tuple[dict[str, int], BuiltEngine]:
        """Builds every variant; the engines of all but the last are weighed and thrown away."""
        sizes: dict[str, int] = {}
        for variant in variants:
            built = self._engine(variant, options)
            sizes[variant.name] = built.engine_bytes
        return sizes, built

    def _engine(self, variant: GraphVariant, options: BuildOptions) -> BuiltEngine:
        """Builds one graph; a refusal that names no node gets the node that bisection finds."""
        try:
            options = options if variant.ends is None else _at_ends(options, variant.ends)
            return self._attempt(variant.model, options, Renamed(self.progress, f"build {variant.name}"))
        except UnsupportedModelError as error:
            if error.where is not None:
                raise

            def builds(prefix: onnx.ModelProto) -> bool:
                try:
                    self._attempt(prefix, options, Silent())
                except UnsupportedModelError:
                    return False
                return True

            raise with_guilty_node(error, variant.model, builds) from error

    def _attempt(self, model: onnx.ModelProto, options: BuildOptions, progress: Progress) -> BuiltEngine:
        save_model(model, self.folder / GRAPH)
        return self.backend.build(self.folder / GRAPH, options, self.folder / ENGINE, progress, self.recipe.timeout_s)

    def _manifest(self, result: _Result) -> Manifest:
        table = self.folder / TABLE
        calibration, evaluation = result.data.calibration, result.data.evaluation
        return Manifest(
            tool=f"trt-opt {__version__}",
            library=self.backend.library,
            built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            recipe=plain_from_recipe(self.recipe),
            model=record_of_file(result.source.path),
            engine=record_of_file(self.folder / ENGINE),
            graph=record_of_file(self.folder / GRAPH),
            table=record_of_file(table) if table.exists() else None,
            options=result.options,
            inputs=result.built.inputs,
            outputs=result.built.outputs,
            calibration=calibration.provenance() if calibration else None,
            evaluation=evaluation.provenance() if evaluation else None,
            precision=result.decision.graph.plan,
            rewrite=replace(result.source.report, tail=TAIL if result.source.tail else None),
            variants=result.figures(),
            seconds={stage: round(seconds, 3) for stage, seconds in self.watch.seconds.items()},
            warnings=(
                *import_notes(self.recipe, result.source),
                *result.decision.graph.warnings,
                *result.decision.warnings,
                *result.notes,
                *_tail_note(result.source),
                *data_warnings(result.data, allow_same=self.recipe.allow_same_data),
            ),
            builder_warnings=result.built.warnings,
            packages=package_versions(),
            ends=result.ends,
            search=result.decision.reported(result.measured.get(result.variants[-1].name)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """What the stages of one build gave."""

    source: SourceModel
    data: DataSets
    decision: Decision
    variants: tuple[GraphVariant, ...]
    measured: Mapping[str, Comparison]
    sizes: Mapping[str, int]
    built: BuiltEngine
    options: BuildOptions
    notes: tuple[str, ...]
    ends: IntegerEnds | None

    def figures(self) -> tuple[Variant, ...]:
        return tuple(
            Variant(entry.name, weight_bytes(entry.model), self.sizes.get(entry.name), self.measured.get(entry.name))
            for entry in self.variants
        )


def _at_ends(options: BuildOptions, ends: IntegerEnds) -> BuildOptions:
    """The options for the graph with integer ends, whose image has its channels last."""
    return replace(options, profile=ends.profile(options.profile))


def _seen(table: CalibrationTable | None, data: DataSets) -> tuple[Mapping[str, ShapeRange], Mapping[str, ValueRange]]:
    """The shapes and values that the data had."""
    if table is not None:
        return table.shapes, table.values
    seen = ShapesSeen(data.evaluation or ())
    return seen.ranges(), seen.values()


def _tail_note(source: SourceModel) -> tuple[str, ...]:
    told = (
        f"NonMaxSuppression and what follows are in {TAIL}, for ONNX Runtime, fed with the engine's inputs and outputs"
    )
    return (told,) if source.tail is not None else ()
