"""From a recipe to a bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from trt_opt import __version__
from trt_opt.backends import target_or_default
from trt_opt.backends.hardware import hardware_for
from trt_opt.backends.tensorrt_versions import newest_row, support_of
from trt_opt.build.manifest import record_of_file
from trt_opt.build.store import folder_name
from trt_opt.buildable import require_accepted
from trt_opt.builder_options import options_for, seen, with_flags
from trt_opt.bundling.archive import write_archive
from trt_opt.bundling.layout import CACHE, MODEL, MOST_SAMPLES, RECIPE
from trt_opt.bundling.packing import packed
from trt_opt.bundling.recipe_text import text_from_recipe
from trt_opt.bundling.recording import Subject, recorded
from trt_opt.bundling.samples import Recording, compared, files_from_recordings
from trt_opt.errors import DataError, RequestError, TargetError, UnsupportedModelError
from trt_opt.files import require_free
from trt_opt.graph.query import graph_inputs, graph_outputs
from trt_opt.graph.save import SINGLE_FILE_LIMIT_BYTES
from trt_opt.graph.tensors import weight_bytes
from trt_opt.profiles import profile_for
from trt_opt.quantize.methods.fp8 import Fp8
from trt_opt.quantize.methods.full_integer import FullInteger
from trt_opt.quantize.methods.implicit import Implicit
from trt_opt.quantize.methods.static import Static
from trt_opt.quantize.quantized_models import is_quantized, stores_quantized_weights
from trt_opt.quantize.stage import float_graph, quantized_graph
from trt_opt.quantizing import Quantized, quantized
from trt_opt.recipe import Recipe
from trt_opt.values.accuracy import Comparison
from trt_opt.values.bundle import Bundle, BundledInput, BundledOutput, BundlePrecision, BundleReport
from trt_opt.values.engine import BuildOptions
from trt_opt.values.hardware import Hardware
from trt_opt.values.progress import Progress
from trt_opt.values.shapes import ShapeRange, ValueRange
from trt_opt.values.target import TensorRTTarget
from trt_opt.variants import SIMULATED

SAMPLES = 8
"""How many samples travel where nobody says."""

MARGIN_DB = 3.0
"""How much less an engine's SQNR may be than the simulation's: half of its error energy may be the kernels' own."""

IMPLICIT_MARGIN_DB = 6.0
"""The same for implicit quantisation: TensorRT may run more layers in INT8 than the placement policy does."""

MOST_ASKED_DB = 50.0
"""More is never asked of an engine: TF32 and FP16 round every product to 11 bits."""

USABLE_DB = 10.0
"""Below this SQNR the simulated model itself is in doubt: a tenth of its output's energy is error."""

WORKSPACE_MIB = 1024
"""The builder's scratch memory where nobody says: a board shares its memory with all that runs on it."""


def bundled_file(recipe: Recipe, output: Path, samples: int, progress: Progress, *, force: bool) -> BundleReport:
    """Quantises a model for another machine, and writes all that is needed to build and to judge its engine there.

    The same request gives the same bytes, wherever and whenever it is made.

    Args:
        recipe: The request; its target names TensorRT's version, or a board.
        output: The file to write.
        samples: How many evaluation samples travel at most.
        progress: Told of every stage.
        force: Whether the file may be overwritten.

    Raises:
        RequestError: The output exists, or there is nothing to judge an engine with.
        TargetError: The target is not another machine's TensorRT, or the two do not go together.
        UnsupportedModelError: The target refuses the model, or a bundle cannot hold it.
        DataError: The data do not fit.
    """
    require_free(output, force=force, source=recipe.model)
    recipe, target, capability = _for_the_target(recipe)
    _require_possible(recipe, samples)
    found = quantized(recipe, output.with_name(f".{output.name}.search.jsonl"), progress)
    require_accepted(found.source.report)
    contents = _Contents(recipe, target, capability, found)
    bundle, files = packed(*contents.made(samples, progress))
    write_archive(output, files)
    if found.decision.journal is not None:
        found.decision.journal.done()
    search = found.decision.reported(found.accuracy)
    return BundleReport(replace(record_of_file(output), name=str(output)), bundle, written=True, search=search)


def _for_the_target(recipe: Recipe) -> tuple[Recipe, TensorRTTarget, str | None]:
    """The recipe with the version of the board's newest system where none was named; the target; its capability."""
    target = target_or_default(recipe.target)
    if recipe.target is None or not isinstance(target, TensorRTTarget):
        raise TargetError(
            "a bundle is for TensorRT on another machine"
            + ("" if recipe.target is None else f", and {recipe.target} is built here: trt-opt build"),
            hint="--target tensorrt:8.6@orin, tensorrt:10.3@orin-nano, tensorrt:10.3",
        )
    hardware = hardware_for(target, None)
    _require_kernels(recipe, hardware)
    if hardware.version is not None:
        target = replace(target, version=hardware.version)
    capability = hardware.supports[0].capability if hardware.is_known else None
    return replace(recipe, target=str(target)), target, capability


def _require_kernels(recipe: Recipe, hardware: Hardware) -> None:
    """Refuses what a known board does not have."""
    if recipe.use_dla is not None and hardware.is_known and not hardware.dla:
        raise TargetError(
            f"{hardware.title} has no Deep Learning Accelerator", where="--use-dla", hint="leave it out: the GPU then"
        )
    if recipe.method in (Static.name, Implicit.name) and not hardware.has_int8:
        raise TargetError(f"{hardware.title} does not compute in INT8", hint="--fp16, without --int8")
    if recipe.method == Fp8.name and hardware.is_known and not hardware.has_fp8:
        raise TargetError(f"{hardware.title} does not compute in FP8", hint="--int8")


def _require_possible(recipe: Recipe, samples: int) -> None:
    """Refuses, before any work is done, what a bundle cannot do."""
    if not 1 <= samples <= MOST_SAMPLES:
        raise RequestError(f"--samples is 1 to {MOST_SAMPLES}, not {samples}")
    if recipe.eval_data is None:
        raise RequestError(
            "a bundle carries samples by which the engine is judged, and there are none", hint="--eval-data DATA"
        )
    if recipe.method == FullInteger.name:
        raise RequestError(
            "an engine with integer ends cannot be judged by a float model's answers",
            hint="--quantization static; trt-opt quantize writes the graph with integer ends by itself",
        )
    if recipe.nms == "split":
        raise RequestError(
            "what lies behind NonMaxSuppression has no place in a bundle",
            hint="trt-opt rewrite --nms split first, then bundle the engine's part",
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Contents:
    """What one bundle is made of."""

    recipe: Recipe
    target: TensorRTTarget
    capability: str | None
    found: Quantized

    @property
    def graph(self) -> onnx.ModelProto:
        """The graph to build."""
        return self.found.decision.graph.built

    def made(self, most: int, progress: Progress) -> tuple[Bundle, dict[str, bytes]]:
        """The description, and the files that it does not follow from."""
        if weight_bytes(self.graph) > SINGLE_FILE_LIMIT_BYTES:
            raise UnsupportedModelError("a bundle holds models of less than 2 GB", hint="--quantization weights-only")
        evaluation = self.found.decision.judged_on
        if evaluation is None:
            raise RequestError("there is nothing to judge the engine by", hint="--eval-data DATA")
        shapes, values = seen(self.found.decision.table, self.found.data.evaluation)
        profile, notes = profile_for(self.recipe, graph_inputs(self.graph), shapes)
        subject = Subject(self.found.source.original, self._simulated(), self.graph, profile)
        keeps_int64 = self._support_binds_types
        recordings, more = recorded(subject, evaluation, most, progress, keeps_int64=keeps_int64)
        bundle = self._described(recordings, self._options(profile, values), progress)
        warnings = (*self.found.warnings, *notes, *more, *_doubts(bundle))
        return replace(bundle, warnings=warnings), self._files(recordings)

    def _simulated(self) -> onnx.ModelProto:
        """What answers for the engine; with implicit quantisation, the layers of the placement policy in INT8."""
        decision = self.found.decision
        if self.found.cache is None or decision.table is None:
            return decision.graph.model
        request = replace(decision.source.request, method=Static.name, typed=True)
        return quantized_graph(float_graph(self.found.source.rewritten, request), decision.table.ranges).model

    @property
    def _support_binds_types(self) -> bool:
        """Whether the target takes the graph's types as they are; INT64 tensors came with that too (TensorRT 10)."""
        version = self.target.version
        return (newest_row() if version is None else support_of(version)).binds_types

    def _options(self, profile: Mapping[str, ShapeRange], values: Mapping[str, ValueRange]) -> BuildOptions:
        recipe = self.recipe
        if recipe.workspace_mib is None:  # build.conf, which a shell reads, always names one
            recipe = replace(recipe, workspace_mib=WORKSPACE_MIB)
        return with_flags(options_for(recipe, self.target, profile, values), self.found.decision.graph.weak)

    def _described(self, recordings: Sequence[Recording], options: BuildOptions, progress: Progress) -> Bundle:
        decision, data = self.found.decision, self.found.data
        label = decision.source.name
        comparison = compared(recordings, f"{label} {SIMULATED}", None, None, progress)[0]
        feed, expected = recordings[0].feed, recordings[0].expected
        named = {output.name: output for output in comparison.outputs}
        evaluation = data.evaluation or decision.judged_on
        if evaluation is None:
            raise RequestError("there is nothing to judge the engine by", hint="--eval-data DATA")
        return Bundle(
            name=folder_name(self.found.source.path.stem),
            tool=f"trt-opt {__version__}",
            tensorrt=self.target.version,
            board=self.target.board,
            capability=self.capability,
            precision=self._precision(),
            label=label,
            options=options,
            inputs=tuple(BundledInput(name, array.dtype.name, array.shape) for name, array in feed.items()),
            outputs=tuple(BundledOutput(name, floats.shape, named[name].sqnr_db) for name, floats in expected.items()),
            not_compared=tuple(spec.name for spec in graph_outputs(self.graph) if spec.name not in expected),
            samples=len(recordings),
            least_sqnr_db=_least_sqnr_db(comparison, MARGIN_DB if self.found.cache is None else IMPLICIT_MARGIN_DB),
            plan=decision.graph.plan,
            rewrite=self.found.source.report,
            calibration=data.calibration.provenance() if data.calibration else None,
            evaluation=evaluation.provenance(),
            warnings=(),
        )

    def _precision(self) -> BundlePrecision:
        if self.found.cache is not None:
            return "int8-implicit"
        if is_quantized(self.graph) or stores_quantized_weights(self.graph):
            return "int8-explicit"
        return "fp16" if self.recipe.wants_fp16 else "fp32"

    def _files(self, recordings: Sequence[Recording]) -> dict[str, bytes]:
        files = {
            MODEL: self.graph.SerializeToString(deterministic=True),
            RECIPE: text_from_recipe(self.recipe).encode(),
        }
        if self.found.cache is not None:
            files[CACHE] = self.found.cache.encode()
        return {**files, **files_from_recordings(recordings)}


def _least_sqnr_db(comparison: Comparison, margin_db: float) -> float:
    """What the engine must reach: the simulation's worst output, less the margin.

    Raises:
        DataError: The float model, or the simulated one, gave NaN or infinity.
    """
    worst = comparison.sqnr_db
    if worst is None:
        return MOST_ASKED_DB
    if not math.isfinite(worst):
        raise DataError(
            "a model's answer to the samples is NaN or infinite: no engine can be judged by it",
            where=", ".join(output.name for output in comparison.outputs if not math.isfinite(output.sqnr_db or 0.0)),
            hint="--no-fp16, or other --eval-data",
        )
    return round(min(worst - margin_db, MOST_ASKED_DB), 2)


def _doubts(bundle: Bundle) -> tuple[str, ...]:
    notes = []
    if bundle.least_sqnr_db < USABLE_DB - MARGIN_DB:
        notes.append(
            "the simulated model itself is far from the float model: engines from "
            f"{bundle.least_sqnr_db:.1f} dB on will pass"
        )
    if bundle.precision == "int8-implicit":
        notes.append(
            "TensorRT chooses by its own timing what runs in INT8; simulated is the choice of the placement policy"
        )
    if bundle.not_compared:
        notes.append(f"not compared on the device, being no floating-point numbers: {', '.join(bundle.not_compared)}")
    return tuple(notes)
