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
from trt_opt.values.accuracy import Comparison
from trt_opt.values.calibration import TensorRange
from trt_opt.values.integer_ends import IntegerEnds
from trt_opt.values.progress import Progress
from trt_opt.values.runner import Runner
from trt_opt.values.samples import Dataset

SIMULATED = "simulated on ONNX Runtime"
"""What every figure here is: no engine runs where there is no GPU."""

NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class GraphVariant:
    """A graph in one precision, and its ends where they are integers."""

    name: str
    model: onnx.ModelProto
    ends: IntegerEnds | None = None


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
    variants = [GraphVariant(replace(graph, request=PrecisionRequest()).name, graph.model)]
    if request.method is not None and request.fp16:
        half = quantized_graph(float_graph(graph.model, PrecisionRequest(fp16=True)), ranges)
        variants.append(GraphVariant("FP16", half.model))
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
    reference: Runner = _reference(original)
    fed = half_inputs(original)
    candidates: list[Runner] = [_runner(variant, fed) for variant in variants]
    given = given_ends(original)
    if given is not None:  # fed as it is; integers are not compared, but the numbers they stand for
        answers = replace(given, inputs=())
        reference = IntegerEndsRunner(reference, answers)
        candidates = [IntegerEndsRunner(runner, answers) for runner in candidates]
    compared = compare_many(reference, candidates, dataset, limits=limits, progress=progress)
    return {variant.name: found for variant, found in zip(variants, compared, strict=True)}


def _reference(original: onnx.ModelProto) -> Runner:
    """Runs the model as given; a quantised one without optimisations, which would make inexact kernels of its pairs."""
    if not is_quantized(original):
        return OnnxRuntimeRunner(original, optimised=True, name="FP32 on ONNX Runtime")
    return OnnxRuntimeRunner(exact_source(original), optimised=False, name="the model as given on ONNX Runtime")


def _runner(variant: GraphVariant, fed: frozenset[str]) -> Runner:
    """Runs a variant on the model's data.

    Args:
        variant: The variant.
        fed: The inputs of which the data are FP16 already.
    """
    runner: Runner = OnnxRuntimeRunner(
        variant.model, optimised=False, name=f"{variant.name} {SIMULATED}", rounds_halves=True
    )
    halves = half_inputs(variant.model) - fed
    runner = HalfInputsRunner(runner, halves) if halves else runner
    return runner if variant.ends is None else IntegerEndsRunner(runner, variant.ends)
