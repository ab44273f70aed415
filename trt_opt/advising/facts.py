"""From a model file and data to the facts of an advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibrators import calibrator_from_text
from trt_opt.acceptance import judge_for
from trt_opt.advising.candidates import ATTEMPTS, SECOND_ATTEMPTS, Candidate, compared, placed, shared_ranges, written
from trt_opt.advising.compute import compute_share, decisions_from_error
from trt_opt.advising.recommendation import recommend
from trt_opt.advising.verdict import is_accurate
from trt_opt.backends import target_or_default
from trt_opt.backends.hardware import device_called, hardware_for
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.query import count_parameters
from trt_opt.graph.tensors import weight_bytes
from trt_opt.preparation import DataSets, SourceModel, loaded
from trt_opt.quantize.methods import METHODS
from trt_opt.quantize.stage import is_quantized
from trt_opt.recipe import Recipe
from trt_opt.values.accuracy import Comparison
from trt_opt.values.advice import (
    Advice,
    AdviceFacts,
    AdviceRequest,
    ComputeShare,
    Method,
    MethodFigures,
    SimulatedAccuracy,
)
from trt_opt.values.hardware import Hardware
from trt_opt.values.progress import Progress, Renamed
from trt_opt.values.target import RtxTarget, Target, target_from_text

BYTES_OF_FP32 = 4


def advice_for(request: AdviceRequest, progress: Progress) -> Advice:
    """Tries every method on a model, measures what can be measured here, and recommends one.

    Raises:
        RequestError: The device, the target or an option is unknown, or they exclude each other.
        ModelFileError: The model cannot be read.
        DataError: The data do not fit the model.
        UnsupportedModelError: ONNX Runtime cannot run the model.
    """
    device = device_called(request.device) if request.device else None
    target = target_from_text(request.target) if request.target else None
    hardware = hardware_for(target, device)
    judged_for = target or _built_here(hardware)
    recipe = Recipe(
        model=request.model,
        calib_data=request.calib_data,
        eval_data=request.eval_data,
        preprocess=request.preprocess,
        target=str(judged_for),
    )
    with judge_for(judged_for, thorough=False) as judge:
        source, data = loaded(recipe, judge, progress)
    candidates = _tried(recipe, source, data, progress)
    candidates += _tried_again(request.target_drop, candidates, source, data, progress)
    facts = _facts(request, hardware, source, data, candidates)
    return Advice(facts, recommend(facts))


def _built_here(hardware: Hardware) -> Target:
    """The target whose parser is asked: the hardware's own, or the one that is here in its place."""
    if hardware.library == "TensorRT-RTX" and hardware.is_known:
        pairs = (entry.capability.split(".") for entry in hardware.supports)
        return RtxTarget(tuple((int(major), int(minor)) for major, minor in pairs))
    return target_or_default(None)


def _tried(recipe: Recipe, source: SourceModel, data: DataSets, progress: Progress) -> list[Candidate]:
    in_float = [attempt for attempt in ATTEMPTS if attempt.request.method is None]
    candidates = placed(source.rewritten, in_float)
    if not _came_quantized(candidates):
        candidates += placed(source.rewritten, [attempt for attempt in ATTEMPTS if attempt not in in_float])
    graphs = _written(candidates, recipe.calibrator, data, progress)
    return compared(source.original, graphs, data.evaluation or data.calibration, progress)


def _came_quantized(candidates: Sequence[Candidate]) -> bool:
    """Whether the model's own quantisation was kept."""
    return any(entry.source is not None and entry.source.came_quantized for entry in candidates)


def _tried_again(
    target_drop: float, first: Sequence[Candidate], source: SourceModel, data: DataSets, progress: Progress
) -> list[Candidate]:
    """Static INT8 with other calibrators, if it was measured and is not shown to be good enough."""
    calibration = data.calibration
    static = next((entry.comparison for entry in first if entry.attempt.method == "static"), None)
    if calibration is None or calibration.is_random or static is None or is_accurate(_accuracy(static), target_drop):
        return []
    candidates = placed(source.rewritten, SECOND_ATTEMPTS)
    found: list[Candidate] = []
    for calibrator in dict.fromkeys(attempt.calibrator for attempt in SECOND_ATTEMPTS):
        alike = [entry for entry in candidates if entry.attempt.calibrator == calibrator]
        found += _written(alike, calibrator, data, progress)
    return compared(source.original, found, data.evaluation or calibration, progress)


def _written(candidates: Sequence[Candidate], calibrator: str, data: DataSets, progress: Progress) -> list[Candidate]:
    ranges = {}
    if data.calibration is not None:
        told = Renamed(progress, f"calibrate {calibrator}")
        ranges = shared_ranges(candidates, data.calibration, calibrator_from_text(calibrator), told)
    return written(candidates, ranges, progress)


def _facts(
    request: AdviceRequest, hardware: Hardware, source: SourceModel, data: DataSets, candidates: Sequence[Candidate]
) -> AdviceFacts:
    came_quantized = _came_quantized(candidates)
    judged = data.evaluation or data.calibration
    parameters = count_parameters(source.rewritten)
    after = source.report.after
    return AdviceFacts(
        request=request,
        hardware=hardware,
        fp32_bytes=parameters * BYTES_OF_FP32 if came_quantized else weight_bytes(source.rewritten),
        figures=tuple(_figures(entry, hardware) for entry in sorted(candidates, key=_row)),
        compute=_compute(source, data, candidates),
        came_quantized=came_quantized,
        methods=tuple(METHODS),
        calibration=data.calibration.provenance() if data.calibration else None,
        evaluation=judged.provenance() if judged else None,
        has_labels=judged is not None and judged.has_labels,
        fp16_kept=_fp16_kept(candidates),
        refused=tuple(f"{entry.title}: {entry.reason}" for entry in after.refused) if after else (),
        notes=(*_lost_pairs(source), *_notes(data, came_quantized=came_quantized)),
    )


def _row(candidate: Candidate) -> int:
    """A method's place in the table: all of its calibrators together."""
    order = [(attempt.method, attempt.weights) for attempt in ATTEMPTS]
    return order.index((candidate.attempt.method, candidate.attempt.weights))


def _figures(candidate: Candidate, hardware: Hardware) -> MethodFigures:
    method, weights = candidate.attempt.method, candidate.attempt.weights
    accuracy = None if candidate.comparison is None else _accuracy(candidate.comparison)
    size = None if candidate.written is None else weight_bytes(candidate.written.model)
    notes = [candidate.note] if candidate.note else []
    notes += [f"cannot: {candidate.error.what}"] if candidate.error else []
    notes += [] if _runs_on(hardware, method, weights) else ["not on this hardware"]
    calibrator = candidate.attempt.calibrator if accuracy and method == "static" else ""
    return MethodFigures(method, weights, candidate.label, size, accuracy, "; ".join(notes), calibrator)


def _runs_on(hardware: Hardware, method: Method, weights: str) -> bool:
    """Whether the hardware's documents say that it computes so; nothing is said of hardware nobody named."""
    needed = {("static", ""): hardware.has_int8, ("weights-only", "int4"): hardware.has_int4_weights}
    needed["fp8", ""] = hardware.has_fp8
    return needed.get((method, weights), True) or not hardware.is_known


def _accuracy(found: Comparison) -> SimulatedAccuracy:
    return SimulatedAccuracy(
        samples=found.samples,
        reference_top1=found.reference_task.top1 if found.reference_task else None,
        top1=found.candidate_task.top1 if found.candidate_task else None,
        agreement=found.top1_agreement,
        sqnr_db=found.sqnr_db,
        identical=bool(found.outputs) and all(output.identical for output in found.outputs),
    )


def _compute(source: SourceModel, data: DataSets, candidates: Sequence[Candidate]) -> ComputeShare:
    """The share of INT8 by the static method's placement, or by the model's own pairs."""
    by_method = {entry.attempt.method: entry for entry in reversed(candidates)}
    static = by_method.get("static", by_method["fp32"])
    samples = data.first_samples
    shapes = {name: tuple(array.shape) for name, array in samples[0].feed.items()} if samples else {}
    told = "the first sample" if samples else "the model's own shapes, an unknown batch being 1"
    if static.source is not None:
        return compute_share(static.source.model, static.source.placement.layers, shapes, told)
    decisions = decisions_from_error(static.error) if isinstance(static.error, UnsupportedModelError) else ()
    float_source = by_method["fp32"].source
    return compute_share(float_source.model if float_source else source.rewritten, decisions, shapes, told)


def _fp16_kept(candidates: Sequence[Candidate]) -> dict[str, str]:
    """What FP16 would ruin: nodes that a risk keeps in FP32, not those that have no FP16 form."""
    plans = (entry.written.plan for entry in candidates if entry.attempt.method == "fp16" and entry.written)
    layers = (layer for plan in plans for layer in plan.layers)
    return {layer.node: layer.reason for layer in layers if layer.rule == "fp16-risk" and layer.precision == "fp32"}


def _lost_pairs(source: SourceModel) -> Iterator[str]:
    if is_quantized(source.original) and not is_quantized(source.rewritten):
        yield (
            "the model came quantised in a form the target does not take: it is written out in float, its INT8 layers "
            "are lost; start from the float model it was made from"
        )


def _notes(data: DataSets, *, came_quantized: bool) -> Iterator[str]:
    calibration, evaluation = data.calibration, data.evaluation
    if calibration is None and not came_quantized:
        yield (
            "without --calib-data the ranges are unknown: how accurate static INT8 is, and whether a tensor overflows "
            "FP16, was not measured; some hundred samples like those the model will see would tell"
        )
    if calibration is None and evaluation is None:
        yield "without --eval-data nothing was simulated; samples, best with labels, would tell what each method costs"
    elif evaluation is None:
        yield "accuracy was measured on the calibration data, which flatters: give --eval-data"
    elif calibration is not None and calibration.provenance().sha256 == evaluation.provenance().sha256:
        yield "calibration and evaluation data are the same: the accuracy shown is flattering"
    if any(entry is not None and entry.is_random for entry in (calibration, evaluation)):
        yield "RANDOM data tell sizes and shares; nothing they say of accuracy is used"
