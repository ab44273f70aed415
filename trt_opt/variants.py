"""The precisions of one model side by side: their graphs, their accuracy, their engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.compare import Limits, compare_many
from trt_opt.half_runner import HalfInputsRunner, half_inputs
from trt_opt.importing import exact_source
from trt_opt.integer_runner import IntegerEndsRunner
from trt_opt.quantize.given_ends import given_ends
from trt_opt.quantize.quantized_models import is_quantized
from trt_opt.quantize.stage import FloatGraph, PrecisionRequest, float_graph, quantized_graph
from trt_opt.quantize.weak_form import WeakForm, weak_form
from trt_opt.values.accuracy import Comparison
from trt_opt.values.calibration import TensorRange
from trt_opt.values.integer_ends import IntegerEnds
from trt_opt.values.progress import Progress
from trt_opt.values.runner import Runner
from trt_opt.values.samples import Dataset

SIMULATED = "simulated on ONNX Runtime"
"""What a figure is that no engine gave: none runs where there is no GPU."""

NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class GraphVariant:
    """A graph in one precision.

    Attributes:
        name: "FP32", "FP16", "INT8 + FP16".
        model: The graph with every precision written into it; what is simulated.
        ends: Its inputs and outputs where they are integers.
        weak: What is built where builder flags decide the precision; None where the graph's types do.
    """

    name: str
    model: onnx.ModelProto
    ends: IntegerEnds | None = None
    weak: WeakForm | None = None

    @property
    def is_left_to_tensorrt(self) -> bool:
        """Whether TensorRT chooses what runs in INT8: what it will choose cannot be simulated."""
        return self.weak is not None and self.weak.calibrated

    @property
    def built(self) -> onnx.ModelProto:
        """What the builder gets."""
        return self.model if self.weak is None else self.weak.model


def graph_variants(
    graph: FloatGraph, ranges: Mapping[str, TensorRange], asked: GraphVariant, *, baselines: bool
) -> tuple[GraphVariant, ...]:
    """The float graph, the FP16 one, and the one asked for, last; without `baselines` only the last.

    A model that came quantised has no float graph: it is shown without and with FP16 in what is left.

    Args:
        graph: The float graph before anything was done about INT8.
        ranges: Its ranges.
        asked: The graph asked for.
        baselines: Whether the others are wanted.
    """
    request = graph.request
    plain = None if request.typed else weak_form(graph.model, fp16=False)
    variants = [GraphVariant(replace(graph, request=PrecisionRequest()).name, graph.model, weak=plain)]
    if request.method is not None and request.fp16:
        half = quantized_graph(float_graph(graph.model, PrecisionRequest(fp16=True, typed=request.typed)), ranges)
        variants.append(GraphVariant("FP16", half.model, weak=half.weak))
    others = [variant for variant in variants if variant.name != asked.name] if baselines else []
    return (*others, asked if graph.name != variants[0].name else variants[0])


def accuracies(
    original: onnx.ModelProto,
    variants: Sequence[GraphVariant],
    dataset: Dataset | None,
    progress: Progress,
    *,
    limits: Limits = NO_LIMITS,
) -> dict[str, Comparison]:
    """How far every variant is from the model as given, on the same samples; nothing without data.

    Variants with implicit quantisation are left out: only their engines show what they are.

    Args:
        original: The model as given.
        variants: What is judged.
        dataset: The samples, labelled or not.
        progress: Told of every sample.
        limits: The bounds of the verdicts, and the metric.

    Raises:
        DataError: Labels do not fit, or the user's own metric failed.
    """
    if dataset is None:
        return {}
    runners = {variant: _simulated(variant) for variant in variants if not variant.is_left_to_tensorrt}
    if not runners:
        return {}
    return _accuracies(original, runners, dataset, limits, progress)


def engine_accuracy(
    original: onnx.ModelProto,
    built: tuple[GraphVariant, Runner],
    dataset: Dataset,
    progress: Progress,
    *,
    limits: Limits = NO_LIMITS,
) -> Comparison:
    """How far an engine is from the model as given.

    Args:
        original: The model as given.
        built: What the engine was built from, and what runs it.
        dataset: The samples, labelled or not.
        progress: Told of every sample.
        limits: The bounds of the verdict, and the metric.

    Raises:
        DataError: The engine does not take the data, or labels do not fit.
        StageError: The engine cannot be loaded, or did not survive.
    """
    variant, runner = built
    return _accuracies(original, {variant: runner}, dataset, limits, progress)[variant.name]


def _accuracies(
    original: onnx.ModelProto,
    runners: Mapping[GraphVariant, Runner],
    dataset: Dataset,
    limits: Limits,
    progress: Progress,
) -> dict[str, Comparison]:
    reference: Runner = reference_runner(original)
    fed = half_inputs(original)
    candidates = [_fed_with_data(variant, runner, fed) for variant, runner in runners.items()]
    given = given_ends(original)
    if given is not None:  # fed as it is; integers are not compared, but the numbers they stand for
        answers = replace(given, inputs=())
        reference = IntegerEndsRunner(reference, answers)
        candidates = [IntegerEndsRunner(runner, answers) for runner in candidates]
    compared = compare_many(reference, candidates, dataset, limits=limits, progress=progress)
    return {variant.name: found for variant, found in zip(runners, compared, strict=True)}


def reference_runner(original: onnx.ModelProto) -> Runner:
    """Runs the model as given; a quantised one without optimisations, which would make inexact kernels of its pairs."""
    if not is_quantized(original):
        return OnnxRuntimeRunner(original, optimised=True, name="FP32 on ONNX Runtime")
    return OnnxRuntimeRunner(exact_source(original), optimised=False, name="the model as given on ONNX Runtime")


def _simulated(variant: GraphVariant) -> Runner:
    return OnnxRuntimeRunner(variant.model, optimised=False, name=f"{variant.name} {SIMULATED}", rounds_halves=True)


def _fed_with_data(variant: GraphVariant, runner: Runner, fed: frozenset[str]) -> Runner:
    """A runner that takes the model's data, whatever its own inputs and outputs became.

    Args:
        variant: What it runs.
        runner: The runner.
        fed: The inputs of which the data are FP16 already.
    """
    halves = half_inputs(variant.model) - fed
    runner = HalfInputsRunner(runner, halves) if halves else runner
    return runner if variant.ends is None else IntegerEndsRunner(runner, variant.ends)
