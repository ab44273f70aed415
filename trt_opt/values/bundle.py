"""A bundle: what the machine that an engine is for needs to build it and to see that it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trt_opt.values.accuracy import Comparison, Verdict
from trt_opt.values.engine import BuildOptions, FileRecord
from trt_opt.values.precision import PrecisionPlan
from trt_opt.values.rewriting import RewriteReport
from trt_opt.values.samples import DataProvenance
from trt_opt.values.search import SearchReport
from trt_opt.values.shapes import Shape

FORMAT = 1

BundlePrecision = Literal["int8-explicit", "int8-implicit", "fp16", "fp32"]
"""What the graph asks of the builder; "int8-explicit" is any graph with Q/DQ pairs."""


@dataclass(frozen=True, slots=True)
class BundledInput:
    """An input of the graph.

    Attributes:
        name: The tensor's name.
        dtype: NumPy's name of the element type that the engine wants, and that the samples have.
        shape: The samples' shape; all have the same.
    """

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class BundledOutput:
    """A floating-point output of the graph.

    Attributes:
        name: The tensor's name.
        shape: Its shape on the samples.
        sqnr_db: Of the simulated quantised model against the float model, pooled over the samples; None without error.
    """

    name: str
    shape: Shape
    sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `bundle.json` says.

    Attributes:
        name: The model's name, fit for a folder.
        tool: "trt-opt 0.1.0".
        tensorrt: The version of TensorRT the graph was written for: "8.6" takes 8.6.1 and 8.6.2; None for any that
            takes the graph.
        board: The board's name in the hardware table; None for any machine.
        capability: The board's compute capability; None for any.
        precision: What the graph asks of the builder.
        label: The precisions in words: "INT8 + FP16".
        options: What the builder is told.
        inputs: The graph's inputs, in its order.
        outputs: The outputs that are compared, in its order: those of floating-point numbers.
        not_compared: The other outputs.
        samples: How many samples there are.
        least_sqnr_db: What every output of the engine must reach against the float model, pooled over the samples.
        plan: The precision of every layer as asked.
        rewrite: What the graph passes changed and declined.
        calibration: The data the ranges come from.
        evaluation: The data the samples come from, all of them.
        warnings: What the user should know.
        files: Every file but `SHA256SUMS` and `bundle.json` itself.
        format: The format's number.
    """

    name: str
    tool: str
    tensorrt: str | None
    board: str | None
    capability: str | None
    precision: BundlePrecision
    label: str
    options: BuildOptions
    inputs: tuple[BundledInput, ...]
    outputs: tuple[BundledOutput, ...]
    not_compared: tuple[str, ...]
    samples: int
    least_sqnr_db: float
    plan: PrecisionPlan
    rewrite: RewriteReport
    calibration: DataProvenance | None
    evaluation: DataProvenance
    warnings: tuple[str, ...]
    files: tuple[FileRecord, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class BundleReport:
    """A bundle that was written, or looked at and found whole.

    Attributes:
        file: The bundle's file, its name a path.
        bundle: What is in it.
        written: Whether it was written just now.
        search: How the layers in INT8 were chosen; None where nothing was searched, or the bundle was only looked at.
    """

    file: FileRecord
    bundle: Bundle
    written: bool
    search: SearchReport | None = None


@dataclass(frozen=True, slots=True)
class BundleBuild:
    """An engine built from a bundle, and whether it may be used.

    Attributes:
        bundle: The bundle's file.
        library: What built the engine: "tensorrt 8.6.2".
        gpu: The GPU it was built on, in words.
        verdict: PASS, and the engine is in the store; otherwise it was thrown away.
        reason: Why.
        engine: Path of the engine; None where it was thrown away.
        manifest_path: Path of its manifest; None likewise.
        engine_bytes: The engine's size.
        compared: The engine against the float model, on the bundle's samples.
        simulated: The simulated quantised model against the float model, on the same samples.
        reused: Whether the engine was in the store already.
        warnings: What the user should know.
    """

    bundle: str
    library: str
    gpu: str
    verdict: Verdict
    reason: str
    engine: str | None
    manifest_path: str | None
    engine_bytes: int
    compared: Comparison
    simulated: Comparison
    reused: bool
    warnings: tuple[str, ...] = ()
