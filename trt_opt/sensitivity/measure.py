"""The sensitivity report: every quantised layer alone and together with those before it, with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from trt_opt.acceptance import judge_for
from trt_opt.backends import target_or_default
from trt_opt.datasets.evenly_spread import EvenlySpread
from trt_opt.errors import RequestError, UnsupportedModelError
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.macs import macs_by_node, with_input_shapes
from trt_opt.preparation import loaded, precision_request, ranges_table, require_method
from trt_opt.quantize.stage import FloatGraph, float_graph, quantized_graph
from trt_opt.recipe import Recipe
from trt_opt.sensitivity.causes import CAUSE_SAMPLES, facts_of, operand_errors
from trt_opt.sensitivity.data_pass import Seen, seen_in
from trt_opt.sensitivity.end_to_end import (
    EACH_PASSES,
    Damage,
    affordable,
    damage_from,
    own_errors,
    ranked,
    switched_errors,
)
from trt_opt.sensitivity.layers import QuantizedLayer, quantized_layers
from trt_opt.sensitivity.origins import normalised_variances
from trt_opt.sensitivity.output_errors import GraphSums, decibels
from trt_opt.sensitivity.probes import ErrorSums
from trt_opt.sensitivity.reasons import reason_for
from trt_opt.sensitivity.switchboard import Switchboard
from trt_opt.values.calibration import CalibrationTable
from trt_opt.values.progress import Progress
from trt_opt.values.samples import DataProvenance, Dataset
from trt_opt.values.sensitivity import LayerSensitivity, Loss, SensitivityReport

TOGETHER_SHARE = 0.5
"""The passes for all layers up to each one, of those for the layers alone: the ranking goes by the latter."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What is measured.

    Attributes:
        source: The float graph with the placement of its INT8 layers.
        table: Its ranges.
        calibration: What statistics and errors at layers' own outputs are measured on.
        evaluation: What errors at the graph's outputs are measured on; None for the calibration data.
        given: The model as it was given, in which BatchNormalizations are not folded yet.
    """

    source: FloatGraph
    table: CalibrationTable
    calibration: Dataset
    evaluation: Dataset | None = None
    given: onnx.ModelProto = field(default_factory=onnx.ModelProto)


@dataclass(frozen=True, slots=True, eq=False)
class _Findings:
    """Errors by layer."""

    own: Mapping[str, ErrorSums]
    operands: Mapping[str, Mapping[int, float]]
    seen: Seen
    alone: Mapping[str, GraphSums]
    together: Mapping[str, GraphSums]
    each: int = 0
    each_together: int = 0


def sensitivity_of(recipe: Recipe, progress: Progress) -> SensitivityReport:
    """Measures what INT8 costs in every layer of a model file.

    Raises:
        RequestError: There are no calibration data.
        UnsupportedModelError: The model came quantised, or no layer of it can be quantised.
        DataError: The data do not fit.
    """
    if recipe.calib_data is None:
        raise RequestError("there is nothing to measure with", hint="--calib-data DATA")
    target = target_or_default(recipe.target)
    require_method(recipe, target)
    with judge_for(target, thorough=False) as judge:
        given, data = loaded(recipe, judge, progress)
    source = float_graph(given.rewritten, precision_request(recipe))
    if source.came_quantized:
        raise UnsupportedModelError(
            "the model came quantised: what INT8 costs its layers cannot be measured against float ones",
            where=recipe.model,
            hint="give the float model it was made from; `trt-opt compare` measures a quantised one as a whole",
        )
    table = ranges_table(recipe, source, data.calibration, progress)
    if data.calibration is None or table is None:
        raise UnsupportedModelError("no tensor of this model is quantised", where=recipe.model)
    study = Study(source, table, data.calibration, data.evaluation, given.original)
    return report_of(study, recipe.model, progress)


def report_of(study: Study, name: str, progress: Progress, *, passes: float = EACH_PASSES) -> SensitivityReport:
    """Measures a model that is ready.

    Args:
        study: What is measured.
        name: What the report calls the model.
        progress: Told of every sample.
        passes: How many times all samples may be run for the layers alone; half as many times for those up to each.
    """
    layers = quantized_layers(study.source, study.table.ranges)
    found = _measured(study, layers, progress, passes)
    whole = found.seen.outputs
    samples = found.seen.samples
    if study.evaluation is not None:
        again = seen_in(study.source, (), study.evaluation, progress, int8=_int8(study))
        whole, samples = again.outputs, again.samples
    damages = ranked([damage_from(layer.node, found.alone.get(layer.node), found.each) for layer in layers], found.own)
    entries = _layers(study, layers, found, {damage.node: damage for damage in damages})
    return SensitivityReport(
        model=name,
        layers=tuple(entries[damage.node] for damage in damages),
        outputs=tuple(_loss(sums.relative, samples, output) for output, sums in whole.outputs.items()),
        calibration=study.table.data,
        end_to_end=study.table.data if study.evaluation is None else study.evaluation.provenance(),
        calibrator=study.table.calibrator,
        samples_each=found.each,
        notes=_notes(study, layers, found),
    )


def _int8(study: Study) -> onnx.ModelProto:
    return quantized_graph(study.source, study.table.ranges).model


def _measured(study: Study, layers: Sequence[QuantizedLayer], progress: Progress, passes: float) -> _Findings:
    """Runs everything but the evaluation data through the whole model."""
    source, data = study.source, study.calibration
    own = own_errors(source, layers, data, progress)
    operands = operand_errors(source, layers, EvenlySpread(data, CAUSE_SAMPLES), progress)
    seen = seen_in(source, layers, data, progress, int8=_int8(study))
    if not seen.outputs.outputs:
        return _Findings(own, operands, seen, {}, {})
    judged = study.evaluation if study.evaluation is not None else data
    chosen, each = affordable(layers, len(judged), own, passes)
    some, fewer = affordable(layers, len(judged), own, passes * TOGETHER_SHARE)
    order = [layer.node for layer in layers]
    apart = {layer.node: frozenset({layer.node}) for layer in chosen}
    up_to = {layer.node: frozenset(order[: order.index(layer.node) + 1]) for layer in some}
    with Switchboard(source, layers) as board:
        alone = switched_errors(board, apart, EvenlySpread(judged, each), progress, stage="layers alone")
        together = switched_errors(board, up_to, EvenlySpread(judged, fewer), progress, stage="layers up to each")
    return _Findings(own, operands, seen, alone, together, each, fewer)


def _layers(
    study: Study, layers: Sequence[QuantizedLayer], found: _Findings, damages: Mapping[str, Damage]
) -> dict[str, LayerSensitivity]:
    macs = _macs(study)
    total = sum(count or 0 for count in macs.values())
    variances = normalised_variances(study.given)
    entries: dict[str, LayerSensitivity] = {}
    for position, layer in enumerate(layers):
        node, own = layer.node, found.own[layer.node]
        facts = facts_of(layer, study.source, found.seen, own, found.operands[node], variances=variances)
        cause, reason = reason_for(facts)
        together, count = found.seen.layers[node], macs.get(node)
        entries[node] = LayerSensitivity(
            node=node,
            op_type=layer.op_type,
            position=position,
            own=_loss(own.relative, found.seen.samples),
            output=_damage_loss(damages[node]),
            own_cumulative=_loss(together.relative, found.seen.samples),
            output_cumulative=_damage_loss(damage_from(node, found.together.get(node), found.each_together)),
            macs=count,
            macs_share=count / total if count is not None and total else None,
            activations=facts.activations,
            weights=facts.weights,
            from_weights=facts.from_weights,
            cause=cause,
            reason=reason,
        )
    return entries


def _macs(study: Study) -> dict[str, int | None]:
    """Layer → its MACs in one run of the first calibration sample."""
    first = next(iter(study.calibration))
    shapes = {name: tuple(array.shape) for name, array in first.feed.items()}
    return macs_by_node(GraphIndex(with_input_shapes(study.source.model, shapes)))


def _damage_loss(damage: Damage) -> Loss:
    return _loss(damage.energy, damage.samples, damage.output)


def _loss(relative: float | None, samples: int, output: str | None = None) -> Loss:
    if relative is None:
        return Loss("unmeasured")
    if math.isfinite(relative):
        return Loss("noise" if relative else "none", decibels(relative), output, samples)
    return Loss("ruined", None, output, samples)


def _notes(study: Study, layers: Sequence[QuantizedLayer], found: _Findings) -> tuple[str, ...]:
    notes: list[str] = []
    if not found.seen.outputs.outputs:
        notes.append("the model has no floating-point output: layers are ranked by the error at their own output")
    elif len(found.alone) < len(layers):
        notes.append(
            f"{len(layers)} layers and {len(_judged(study))} samples: only the {len(found.alone)} layers with the "
            "largest error of their own were tried alone at the graph's output; with more samples, more are"
        )
    made_up = dict.fromkeys(data.source for data in _provenances(study) if data.random)
    notes += [f"{source} is random data: the ranking says little about real ones" for source in made_up]
    return tuple(notes)


def _judged(study: Study) -> Dataset:
    return study.calibration if study.evaluation is None else study.evaluation


def _provenances(study: Study) -> tuple[DataProvenance, ...]:
    return (study.table.data, *(() if study.evaluation is None else (study.evaluation.provenance(),)))
