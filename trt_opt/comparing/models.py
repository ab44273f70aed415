"""One comparison from files to findings: accuracy, where graphs part, speed."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import datetime, timezone

from trt_opt import __version__
from trt_opt.compare import Limits, compare_many
from trt_opt.comparing.feeding import fitted
from trt_opt.comparing.findings import findings
from trt_opt.comparing.graphs import partings, require_graphs
from trt_opt.comparing.request import ComparisonRequest
from trt_opt.comparing.sides import Participant, participants
from trt_opt.comparing.speed import NOT_TIMED, Speeds, speeds_of
from trt_opt.datasets import open_dataset, preprocess_from_text
from trt_opt.errors import MissingError, RequestError, StaleError
from trt_opt.runnables import Runnable, runnable
from trt_opt.values.accuracy import WORST_FIRST, Comparison, Verdict
from trt_opt.values.model_comparison import LayerwiseComparison, ModelComparison
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset
from trt_opt.values.tensors import TensorSpec

RANDOM = "the data are random numbers, which say little of the accuracy on real ones"


def compared_models(request: ComparisonRequest, progress: Progress) -> ModelComparison:
    """Compares models and engines on data, each in a process of its own.

    Raises:
        RequestError: A limit names an output that there is not, or graphs are to be compared that there are not.
        DataError: The data do not fit a side.
        StaleError: An engine is not what its manifest says, or not for this machine.
        MissingError: An engine's library or a GPU is missing.
        WorkerError: A side crashed or hung.
    """
    if len(request.files) < 2:
        raise RequestError("there is nothing to compare with", hint="trt-opt compare REFERENCE CANDIDATE… --data D")
    found = [_runnable(file, request.pythons) for file in request.files]
    if request.layerwise:
        require_graphs(found)
    sides = participants(found, request.files)
    inputs, feedings = fitted([one.feeding for one in sides])
    sides = tuple(replace(one, feeding=feeding) for one, feeding in zip(sides, feedings, strict=True))
    if sides[0].outputs:
        request.limits.require_outputs(sides[0].outputs, request.files[0])
    data = _opened(request, inputs)
    comparisons = _accuracy(sides, data, request.limits, progress)
    layerwise = _layerwise(request, sides, data, progress)
    speeds = NOT_TIMED if request.timing is None else speeds_of(sides, data, request.timing, progress)
    return _result(request, sides, data, comparisons, layerwise, speeds)


def _runnable(file: str, pythons: Sequence[str]) -> Runnable:
    """What a file is; an engine goes to the first interpreter that has its TensorRT.

    Raises:
        StaleError: None has.
    """
    if len(pythons) < 2:
        return runnable(file, *pythons)
    try:
        return runnable(file, pythons[0])
    except (StaleError, MissingError):
        return _runnable(file, pythons[1:])


def _opened(request: ComparisonRequest, inputs: tuple[TensorSpec, ...]) -> Dataset:
    steps = preprocess_from_text(request.preprocess) if request.preprocess else None
    metric = request.limits.metric
    return open_dataset(
        request.data,
        inputs,
        preprocess=steps,
        any_labels=metric is not None and metric.any_labels,
    )


def _accuracy(
    sides: Sequence[Participant], data: Dataset, limits: Limits, progress: Progress
) -> tuple[Comparison, ...]:
    reference, *candidates = (one.feeding.runner(one.runnable.exact_runner()) for one in sides)
    return compare_many(reference, candidates, data, limits=limits, progress=progress)


def _layerwise(
    request: ComparisonRequest, sides: Sequence[Participant], data: Dataset, progress: Progress
) -> tuple[LayerwiseComparison, ...]:
    if not request.layerwise:
        return ()
    threshold = request.limits.min_sqnr_db if request.threshold_db is None else request.threshold_db
    return tuple(partings(sides, data, threshold, progress))


def _result(
    request: ComparisonRequest,
    sides: Sequence[Participant],
    data: Dataset,
    comparisons: tuple[Comparison, ...],
    layerwise: tuple[LayerwiseComparison, ...],
    speeds: Speeds,
) -> ModelComparison:
    shown = tuple(one.side for one in sides)
    told = findings(shown, comparisons, {timing.name: timing for timing in speeds.timings}, speeds.environment)
    engines = {side.name for side in shown if not side.simulated}
    parted = tuple(f"{_graph(entry.candidate, engines)} layer by layer: {entry.finding}" for entry in layerwise)
    random = (RANDOM,) if data.is_random else ()
    verdict, reason = _overall(comparisons, [side.name for side in shown[1:]])
    return ModelComparison(
        tool=f"trt-opt {__version__}",
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        sides=shown,
        comparisons=comparisons,
        timings=speeds.timings,
        environment=speeds.environment,
        layerwise=layerwise,
        findings=(*told, *parted, *speeds.left_out, *random),
        verdict=verdict,
        reason=reason,
        data=data.provenance(),
        command=request.command,
    )


def _graph(name: str, engines: Set[str]) -> str:
    return f"{name}, the graph that it was built from," if name in engines else name


def _overall(comparisons: Sequence[Comparison], names: Sequence[str]) -> tuple[Verdict, str]:
    """The worst verdict and why; whose it is where there are several candidates."""
    verdict = min((one.verdict for one in comparisons), key=WORST_FIRST.index)
    if len(comparisons) == 1:
        return verdict, comparisons[0].reason
    reasons = [f"{name}: {one.reason}" for name, one in zip(names, comparisons, strict=True) if one.verdict == verdict]
    return verdict, "; ".join(reasons)
