"""The engines of a model's precisions: built one after another, and asked what they became where there is a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from trt_opt.accuracy_search.decision import Decision
from trt_opt.backends import Backend
from trt_opt.build.built_precision import mismatches
from trt_opt.build.store import ENGINE, GRAPH
from trt_opt.builder_options import with_flags
from trt_opt.errors import StageError, UnsupportedModelError
from trt_opt.graph.save import save_model
from trt_opt.guilty_node import with_guilty_node
from trt_opt.recipe import Recipe
from trt_opt.values.accuracy import Comparison
from trt_opt.values.backend import BuiltEngine
from trt_opt.values.engine import BuildFiles, BuildOptions
from trt_opt.values.engine_layers import EngineLayer, PrecisionMismatch
from trt_opt.values.progress import Progress, Renamed, Silent
from trt_opt.variants import GraphVariant, engine_accuracy


@dataclass(frozen=True, slots=True, eq=False)
class Engines:
    """What was built.

    Attributes:
        built: The engine asked for, which is the last variant's and lies in the folder.
        options: What its builder was told.
        sizes: Variant → bytes of its engine.
        on_gpu: Variant → how far its engine is from the model as given; empty where no engine runs.
        layers: What the builder made of the layers.
        mismatches: Nodes that run in another precision than was asked for.
        notes: What the user should know.
    """

    built: BuiltEngine
    options: BuildOptions
    sizes: Mapping[str, int]
    on_gpu: Mapping[str, Comparison] = field(default_factory=dict)
    layers: tuple[EngineLayer, ...] = ()
    mismatches: tuple[PrecisionMismatch, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class EngineBuilder:
    """Builds into one folder.

    Attributes:
        recipe: The request, its target with the version that builds.
        backend: Who builds.
        folder: Where the graph and the engine go.
        timings: What builders timed earlier on this GPU; None where there is no such thing.
        progress: Told of every build.
        calibration: What implicit quantisation calibrates with, for the child; None without.
    """

    recipe: Recipe
    backend: Backend
    folder: Path
    timings: Path | None
    progress: Progress
    calibration: Mapping[str, Any] | None = None

    def engines(
        self, variants: Sequence[GraphVariant], options: BuildOptions, original: onnx.ModelProto, decision: Decision
    ) -> Engines:
        """Builds every variant; the engines of all but the last are weighed, run where they can be, and thrown away.

        Raises:
            UnsupportedModelError: The builder does not take one.
            StageError: A build failed.
        """
        sizes: dict[str, int] = {}
        on_gpu: dict[str, Comparison] = {}
        for variant in variants:
            told = self._told(variant, options)
            built = self._engine(variant, told)
            sizes[variant.name] = built.engine_bytes
            runner = None if decision.judged_on is None else self.backend.runner(self.folder / ENGINE, told)
            if runner is not None and decision.judged_on is not None:
                running = Renamed(self.progress, f"run {variant.name}")
                on_gpu[variant.name] = engine_accuracy(
                    original, (variant, runner), decision.judged_on, running, limits=decision.limits
                )
        layers, notes = self._layers(told)
        found = mismatches(decision.graph.plan, layers, builder_chooses=not told.strongly_typed)
        return Engines(built, told, sizes, on_gpu, layers, found, notes)

    def _told(self, variant: GraphVariant, options: BuildOptions) -> BuildOptions:
        """The options for one variant: its own profile where its ends changed, its flags where they decide."""
        if variant.ends is not None:
            options = replace(options, profile=variant.ends.profile(options.profile))
        return with_flags(options, variant.weak)

    def _engine(self, variant: GraphVariant, options: BuildOptions) -> BuiltEngine:
        """Builds one graph; a refusal that names no node gets the node that bisection finds."""
        calibration = self.calibration if variant.weak is not None and variant.weak.calibrated else None
        try:
            return self._attempt(variant.built, options, Renamed(self.progress, f"build {variant.name}"), calibration)
        except UnsupportedModelError as error:
            if error.where is not None or calibration is not None:
                raise

            def builds(prefix: onnx.ModelProto) -> bool:
                try:
                    self._attempt(prefix, options, Silent(), None)
                except UnsupportedModelError:
                    return False
                return True

            raise with_guilty_node(error, variant.built, builds) from error

    def _attempt(
        self,
        model: onnx.ModelProto,
        options: BuildOptions,
        progress: Progress,
        calibration: Mapping[str, Any] | None,
    ) -> BuiltEngine:
        save_model(model, self.folder / GRAPH)
        files = BuildFiles(self.folder / GRAPH, self.folder / ENGINE, self.timings, calibration)
        return self.backend.build(files, options, progress, self.recipe.timeout_s)

    def _layers(self, options: BuildOptions) -> tuple[tuple[EngineLayer, ...], tuple[str, ...]]:
        """What the engine says of its layers; that it cannot be asked is no reason to throw it away."""
        try:
            return self.backend.layers(self.folder / ENGINE, options), ()
        except StageError as error:
            return (), (f"what became of the layers is not known: {error.what}",)
