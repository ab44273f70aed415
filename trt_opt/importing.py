"""Models that come quantised: brought into the form TensorRT takes, and measured against what they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import check_in_onnxruntime
from trt_opt.compare.totals import OutputTotals
from trt_opt.errors import TrtOptError, UnsupportedModelError
from trt_opt.graph.names import with_unique_node_names
from trt_opt.import_trial import Measured, Trial, made_up, runs, source_outputs
from trt_opt.quantize.importing.grid_unsigned import with_unsigned_weights
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.quantize.importing.symmetric_form import symmetric_form
from trt_opt.quantize.validity import require_as_valid
from trt_opt.values.importing import ImportedOutput, ImportedTensor, ImportReport, ZeroPoints
from trt_opt.values.progress import Progress, Silent
from trt_opt.values.samples import Sample

SAMPLES_TO_MEASURE = 8

LEAST_OWN_SQNR_DB = 20.0
"""What one layer may add by itself, fed what the source's layer was fed, when zero-points are folded.

Products come to 43 dB and more in real networks, because few results lie close to half-way between two steps. Averages
of numbers of one grid do so more often: 36 dB were measured with one result in 64, and what is wrong is far below.
Errors from end to end are no measure of right and wrong: they grow from layer to layer, between two implementations of
the same operators too.
"""

ROUNDING = 1e-5
"""What float32 sums may be off by, relative to what they sum: outputs that small are noise themselves."""

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class ImportedModel:
    """A model whose quantisation TensorRT takes, as far as it could be brought.

    Attributes:
        model: The model; the very one that was given where nothing had to change, or the change was undone.
        report: What was done and what it costs; None where the model is not quantised.
    """

    model: onnx.ModelProto
    report: ImportReport | None


def imported(
    model: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    zero_points: ZeroPoints,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    progress: Progress | None = None,
) -> ImportedModel:
    """Writes a quantised model's grids as symmetric INT8 pairs and measures the difference.

    Args:
        model: Quantised or not. Is not edited.
        samples: What both are run on, the first eight; one is made up where there are none.
        zero_points: "fold" keeps the numbers, "regrid" the graph.
        ranges: With "regrid": tensor → lowest and highest number seen in data.
        progress: Told of every sample.
    """
    try:
        normal = normal_form(model)
        form = symmetric_form(normal.model, zero_points=zero_points, ranges=ranges)
    except TrtOptError as error:
        return ImportedModel(model, ImportReport((), zero_points, undone=error.what))
    if not (normal.kinds or form.tensors or form.weights):
        return ImportedModel(model, None)
    report = ImportReport(
        kinds=tuple(normal.kinds),
        zero_points=zero_points,
        tensors=form.tensors,
        weights=form.weights,
        changed=(*normal.changed, *form.changed),
        declined=(*normal.declined, *form.declined),
        notes=form.notes,
    )
    if form.model is model:
        return ImportedModel(model, report)
    try:
        require_as_valid(form.model, model, "the model with symmetric grids")
        report = _measured(report, Trial(model, normal.model, form), samples, progress or Silent())
    except TrtOptError as error:
        return ImportedModel(model, replace(report, undone=error.what))
    undone = _why_undone(report)
    return ImportedModel(model if undone else form.model, replace(report, undone=undone))


def _why_undone(report: ImportReport) -> str | None:
    if report.undone is not None:
        return report.undone
    for output in report.outputs:
        if output.sqnr_db is not None and np.isnan(output.sqnr_db):
            return f"output {output.name!r} cannot be compared with the source's"
    for entry in report.tensors if report.zero_points == "fold" else ():
        if report.made_up and entry.becomes == "float":
            continue  # Made-up numbers saturate 16 bits, which floats do not; real ones do so in no sensible model.
        if entry.own_sqnr_db is not None and not entry.own_sqnr_db >= LEAST_OWN_SQNR_DB:
            return (
                f"{entry.now!r} is {entry.own_sqnr_db:.1f} dB from the source's {entry.tensor!r} by its own layer's "
                f"doing; {LEAST_OWN_SQNR_DB:g} dB are asked for"
            )
    return None


def _measured(report: ImportReport, trial: Trial, samples: Sequence[Sample], progress: Progress) -> ImportReport:
    """The report with figures; as it is where nothing could be made up to run on."""
    used, why_not = tuple(samples[:SAMPLES_TO_MEASURE]), ""
    if not used:
        used, why_not = made_up(trial)
    if not used:
        return replace(report, notes=(*report.notes, f"nothing was compared: {why_not}"))
    progress.start("import", len(used))
    source, by_reference, note = source_outputs(trial, used)
    totals: dict[tuple[str, str], OutputTotals] = {}
    for expected, found in zip(source, runs(trial, report.tensors, used), strict=True):
        pairs = [Measured("output", name, np.asarray(array), found.outputs[name]) for name, array in expected.items()]
        for entry in (*pairs, *found.tensors):
            total = totals.setdefault((entry.what, entry.name), OutputTotals(entry.name))
            total.add(_as_numbers(entry.reference), _as_numbers(entry.candidate))
        progress.advance()
    progress.finish()
    return replace(
        report,
        tensors=tuple(_with_figures(entry, totals) for entry in report.tensors),
        outputs=tuple(_output(total) for (what, _), total in totals.items() if what == "output"),
        undone=_why_outputs_are_wrong(totals) if report.zero_points == "fold" else None,
        samples=len(used),
        made_up=not samples,
        by_reference=by_reference,
        notes=(*report.notes, *([note] if note else [])),
    )


def _why_outputs_are_wrong(totals: Mapping[tuple[str, str], OutputTotals]) -> str | None:
    """The float output that its own layer gets wrong, by more than the rounding of what is summed up to it."""
    loudest = max(
        (_mean(total.reference_energy, total) for (what, _), total in totals.items() if what == "own"), default=0
    )
    for (what, _), total in totals.items():
        if what != "own output" or _mean(total.error_energy, total) <= ROUNDING**2 * loudest:
            continue
        if total.sqnr_db is not None and total.sqnr_db < LEAST_OWN_SQNR_DB:
            return (
                f"output {total.name!r} is {total.sqnr_db:.1f} dB from the source's by its own layer's doing; "
                f"{LEAST_OWN_SQNR_DB:g} dB are asked for"
            )
    return None


def _mean(energy: float, total: OutputTotals) -> float:
    return energy / total.elements if total.elements else 0.0


def exact_source(model: onnx.ModelProto) -> onnx.ModelProto:
    """What the model as given computes, in a form that ONNX Runtime runs exactly.

    Its kernels for UINT8 x INT8 saturate on CPUs without VNNI, so weights become UINT8. It has no kernels for some of
    what its own quantiser writes; then the normal form stands for the model.

    Args:
        model: Quantised.
    """
    exact = with_unsigned_weights(with_unique_node_names(model))
    try:
        check_in_onnxruntime(exact, "the model as given")
    except UnsupportedModelError:
        return normal_form(model).model
    return exact


def _as_numbers(array: Array) -> Array:
    """Integers of 8 and 16 bits as floats, in which quantised scores are told from class numbers."""
    return array.astype(np.float32) if array.dtype.name in ("int8", "uint8", "int16", "uint16") else array


def _with_figures(entry: ImportedTensor, totals: Mapping[tuple[str, str], OutputTotals]) -> ImportedTensor:
    whole, own = (totals.get((what, entry.tensor)) for what in ("tensor", "own"))
    return replace(
        entry,
        sqnr_db=None if whole is None else whole.sqnr_db,
        own_sqnr_db=None if own is None else own.sqnr_db,
    )


def _output(total: OutputTotals) -> ImportedOutput:
    found = total.accuracy()
    comparable = total.elements > 0 and not total.shapes_differ
    return ImportedOutput(
        name=total.name,
        sqnr_db=found.sqnr_db if comparable else float("nan"),
        largest_error=found.max_abs_error,
        unequal=total.unequal / total.elements if total.elements else 1.0,
        top1_agreement=found.top1_agreement,
    )
