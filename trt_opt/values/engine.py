"""What is asked of a builder, and what lies beside an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_opt.values.accuracy import Comparison
from trt_opt.values.cache_import import CacheCoverage
from trt_opt.values.device import Gpu
from trt_opt.values.engine_layers import EngineLayer, PrecisionMismatch
from trt_opt.values.integer_ends import IntegerEnds
from trt_opt.values.native_calibration import NativeCalibration
from trt_opt.values.precision import PrecisionPlan
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import DataProvenance
from trt_opt.values.search import SearchReport
from trt_opt.values.shapes import ShapeRange, ValueRange
from trt_opt.values.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The options a backend needs beside the graph itself.

    Attributes:
        target: The target as text.
        profile: One range per dynamic input.
        values: One range per input that decides a shape (axes, sizes, repeats).
        workspace_bytes: Limit of scratch memory; None leaves it to the library.
        optimization_level: 0 … 5; None leaves it to the library.
        strongly_typed: Whether the types in the graph decide every precision; if not, the flags below do.
        fp16: The builder may use FP16.
        int8: The builder may use INT8: the graph has Q/DQ pairs, or there is a calibration.
        float32_layers: Layers that stay FP32 though the builder may use FP16.
        dla_core: The Deep Learning Accelerator to build for; None for the GPU.
        gpu_fallback: Whether what a DLA cannot run may run on the GPU.
        version_compatible: The engine shall run in newer versions of TensorRT.
        hardware_compatible: The engine shall run on every GPU since Ampere.
        tactic_sources: The libraries to take kernels from, by TensorRT's names; none leaves it to the library.
    """

    target: str
    profile: Mapping[str, ShapeRange] = field(default_factory=dict)
    values: Mapping[str, ValueRange] = field(default_factory=dict)
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    strongly_typed: bool = True
    fp16: bool = False
    int8: bool = False
    float32_layers: tuple[str, ...] = ()
    dla_core: int | None = None
    gpu_fallback: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    tactic_sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildFiles:
    """What a backend reads and writes during one build.

    Attributes:
        model: The ONNX file.
        engine: Where the engine goes.
        timing_cache: What the builder has timed earlier on this GPU; read if it is there, and written. None without.
        calibration: What the child is to calibrate with, in its protocol's words; None without implicit quantisation.
    """

    model: Path
    engine: Path
    timing_cache: Path | None = None
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file, its size and its hash."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Variant:
    """The model in one precision.

    Attributes:
        name: "FP32", "FP16", "INT8 + FP16".
        onnx_bytes: Size of the graph with its weights.
        engine_bytes: Size of the engine; None where none was built.
        accuracy: Against the float model on the evaluation data, simulated; None without any.
        on_gpu: The same of the engine itself; None where it could not be run.
    """

    name: str
    onnx_bytes: int
    engine_bytes: int | None = None
    accuracy: Comparison | None = None
    on_gpu: Comparison | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that decided an engine; lies beside it and is checked before it is deserialised.

    Attributes:
        tool: "trt-opt 0.1.0".
        library: "tensorrt_rtx 1.7.1.116".
        built_at: UTC, ISO 8601.
        recipe: The request, in the words of a recipe file; `build --from` repeats it.
        model: The model as given.
        engine: The engine.
        graph: The graph the engine was built from.
        table: The calibration table's file, or None.
        options: What the builder was told.
        inputs: The engine's inputs.
        outputs: The engine's outputs.
        calibration: The data the ranges come from, or None.
        evaluation: The data accuracy was measured on, or None.
        precision: The precision of every layer as asked; what the builder made of it can be read on a GPU only.
        rewrite: What the graph passes changed and declined.
        variants: The precisions compared, FP32 first, the engine's own last.
        seconds: Stage → how long it took, in order.
        warnings: What the user should know, one sentence each.
        builder_warnings: What the vendor's library said, in its own words.
        packages: Package → version, as installed during the build.
        ends: What the caller feeds and gets where inputs and outputs are integers; None where they are the model's own.
        search: How the layers in INT8 were chosen; None where the placement policy's stayed as they were.
        gpu: The GPU the engine was built on; None where none was needed.
        layers: What the builder made of the layers, as the engine itself says; empty where no engine could be asked.
        mismatches: Nodes that run in another precision than was asked for.
        cache: TensorRT's calibration cache, where implicit quantisation used one.
        implicit: What implicit quantisation calibrated with; None without it.
        cache_coverage: What a calibration cache covered of the ranges; None where they come from elsewhere.
    """

    tool: str
    library: str
    built_at: str
    recipe: Mapping[str, Any]
    model: FileRecord
    engine: FileRecord
    graph: FileRecord
    table: FileRecord | None
    options: BuildOptions
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: DataProvenance | None
    evaluation: DataProvenance | None
    precision: PrecisionPlan
    rewrite: RewriteReport
    variants: tuple[Variant, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    builder_warnings: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    ends: IntegerEnds | None = None
    search: SearchReport | None = None
    gpu: Gpu | None = None
    layers: tuple[EngineLayer, ...] = ()
    mismatches: tuple[PrecisionMismatch, ...] = ()
    cache: FileRecord | None = None
    implicit: NativeCalibration | None = None
    cache_coverage: CacheCoverage | None = None


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """An engine in the store.

    Attributes:
        engine: Path of the engine.
        manifest_path: Path of the manifest beside it.
        manifest: Its content.
        reused: Whether the engine was there already and passed its checks.
    """

    engine: str
    manifest_path: str
    manifest: Manifest
    reused: bool
