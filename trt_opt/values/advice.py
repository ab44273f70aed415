"""Which precision suits a model, a device and the data at hand: the facts measured, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trt_opt.errors import RequestError
from trt_opt.values.hardware import Hardware
from trt_opt.values.samples import DataProvenance

Method = Literal["fp32", "fp16", "static", "weights-only", "full-integer", "fp8", "qat", "as-given"]
"""What can be advised: a float precision, a quantisation method, quantisation-aware training, or a quantised model as
it came."""


@dataclass(frozen=True, slots=True)
class AdviceRequest:
    """What `trt-opt advise` was asked; the fields are its options.

    Attributes:
        model: The ONNX file.
        target: "rtx:8.6", "tensorrt:10.3@orin" …; None to let the device decide.
        device: "orin", "rtx-3060" …; None where nobody said.
        calib_data: What INT8 ranges come from.
        eval_data: What accuracy is measured on; the calibration data where there is none.
        preprocess: How images become inputs.
        target_drop: How many points of top-1 may be lost.
        edge: Whether integers shall go in and come out, as in pipelines without floating point.
    """

    model: str
    target: str | None = None
    device: str | None = None
    calib_data: str | None = None
    eval_data: str | None = None
    preprocess: str | None = None
    target_drop: float = 1.0
    edge: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.target_drop <= 100:
            raise RequestError(f"--target-drop is in points of top-1, 0 to 100, not {self.target_drop:g}")
        if self.preprocess and not (self.calib_data or self.eval_data):
            raise RequestError(
                "--preprocess says how images become inputs, and there are none", hint="--calib-data FOLDER"
            )


@dataclass(frozen=True, slots=True)
class SimulatedAccuracy:
    """A graph against the model as given, both on ONNX Runtime.

    Attributes:
        samples: How many samples both ran.
        reference_top1: The model's share of right answers, 0 … 1; None without labels.
        top1: The graph's; None without labels.
        agreement: Share of equal top-1 answers, the worst output's; None where no output looks like classes.
        sqnr_db: The worst output's SQNR, error energies pooled over all samples; None where no output has one.
        identical: Whether every element of every output is equal.
    """

    samples: int
    reference_top1: float | None
    top1: float | None
    agreement: float | None
    sqnr_db: float | None
    identical: bool

    @property
    def points_lost(self) -> float | None:
        """Points of top-1 lost against the labels; without labels, the most that can have been lost.

        An answer that differs from the model's need not be wrong: 100 · (1 - agreement) is an upper bound.
        """
        if self.top1 is not None and self.reference_top1 is not None:
            return 100 * (self.reference_top1 - self.top1)
        return None if self.agreement is None else 100 * (1 - self.agreement)


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """What one method makes of the model.

    Attributes:
        method: The method.
        weights: What weights-only stores: "int8" or "int4"; empty for the others.
        label: As in other tables: "INT8 + FP16".
        weight_bytes: Of the graph that was written; None where it could not be.
        accuracy: None where it was not simulated.
        note: Why a figure is missing, or what to know about one; may be empty.
        calibrator: What chose the ranges; empty where there are none.
    """

    method: Method
    weights: str
    label: str
    weight_bytes: int | None = None
    accuracy: SimulatedAccuracy | None = None
    note: str = ""
    calibrator: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A layer that stays in float.

    Attributes:
        node: Its name.
        op_type: The operator.
        macs: Its multiply-accumulate operations for one run; None where its shapes are not known.
        reason: Why.
    """

    node: str
    op_type: str
    macs: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class ComputeShare:
    """How much of the arithmetic the placement policy makes INT8.

    Attributes:
        macs: Multiply-accumulate operations of one run in Conv, ConvTranspose, Gemm and MatMul.
        int8_macs: Those in INT8 layers.
        wide_macs: Those in INT8 layers wide enough for INT8 tensor cores.
        product_macs: Those in Gemm and MatMul with constant weights, whatever their precision.
        weights: How many numbers the constant weights of these layers hold.
        left_out: The layers that stay in float, the largest first.
        not_counted: Operator → how many of its layers the figures above leave out.
        shapes: Where the shapes come from.
    """

    macs: int
    int8_macs: int
    wide_macs: int
    product_macs: int
    weights: int
    left_out: tuple[LeftOut, ...]
    not_counted: Mapping[str, int] = field(default_factory=dict)
    shapes: str = ""

    @property
    def int8_share(self) -> float:
        """Of all counted MACs, 0 … 1."""
        return self.int8_macs / self.macs if self.macs else 0.0

    @property
    def wide_share(self) -> float:
        """Of all counted MACs, 0 … 1."""
        return self.wide_macs / self.macs if self.macs else 0.0

    @property
    def product_share(self) -> float:
        """Of all counted MACs, 0 … 1."""
        return self.product_macs / self.macs if self.macs else 0.0

    @property
    def macs_per_weight(self) -> float:
        """How often a weight is used once it has been read from memory."""
        return self.macs / self.weights if self.weights else 0.0


@dataclass(frozen=True, slots=True)
class AdviceFacts:
    """Everything a recommendation rests on.

    Attributes:
        request: What was asked.
        hardware: Where it shall run.
        fp32_bytes: The weights in FP32.
        figures: One entry per method, in the order of the table.
        compute: Where the arithmetic is.
        came_quantized: Whether the model's own Q/DQ pairs were kept.
        methods: The quantisation methods this version has.
        calibration: The calibration data; None without.
        evaluation: What accuracy was measured on; None without data.
        has_labels: Whether these data say what is right.
        fp16_kept: Node → why FP16 would ruin it.
        refused: What the target refuses even after a rewrite.
        notes: What the user should know.
    """

    request: AdviceRequest
    hardware: Hardware
    fp32_bytes: int
    figures: tuple[MethodFigures, ...]
    compute: ComputeShare
    came_quantized: bool = False
    methods: tuple[str, ...] = ()
    calibration: DataProvenance | None = None
    evaluation: DataProvenance | None = None
    has_labels: bool = False
    fp16_kept: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def figures_of(self, method: Method, weights: str = "") -> MethodFigures | None:
        """The row of a method whose graph could be written; None if there is none."""
        rows = (row for row in self.figures if (row.method, row.weights) == (method, weights))
        return next((row for row in rows if row.weight_bytes is not None), None)

    @property
    def has_samples(self) -> bool:
        """Whether there are calibration data that are like what the model will see."""
        return self.calibration is not None and not self.calibration.random


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way.

    Attributes:
        method: The method.
        when: When it would be the better one.
    """

    method: str
    when: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do next.

    Attributes:
        method: The method advised.
        weights: What weights-only shall store; empty for the others.
        title: In words.
        reasons: Why, in whole sentences, the decisive one first.
        caveats: What could spoil it, and what was not measured.
        alternatives: What else could be done, and when.
        command: What to run next.
        then: What to run on the device after that; None where the first command makes the engine.
    """

    method: Method
    weights: str
    title: str
    reasons: tuple[str, ...]
    caveats: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    command: str
    then: str | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """Facts and what follows from them."""

    facts: AdviceFacts
    recommendation: Recommendation
