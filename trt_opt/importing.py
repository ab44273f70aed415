"""Models that come quantised: brought into the form TensorRT takes, and measured against what they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_opt.backends.onnxruntime import OnnxRuntimeRunner, check_in_onnxruntime
from trt_opt.compare.totals import OutputTotals
from trt_opt.errors import TrtOptError, UnsupportedModelError
from trt_opt.graph.check import check_model
from trt_opt.graph.index import GraphIndex
from trt_opt.graph.names import fresh_name, tensor_names, with_unique_node_names
from trt_opt.made_up_samples import made_up_samples
from trt_opt.passes.verification import Outputs, run_in_reference
from trt_opt.quantize.importing.grid_reading import LIMITS, pairs_of
from trt_opt.quantize.importing.grid_unsigned import with_unsigned_weights
from trt_opt.quantize.importing.normal_form import normal_form
from trt_opt.quantize.importing.symmetric_form import SymmetricForm, symmetric_form
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
        check_model(form.model, "the model with symmetric grids")
        report = _measured(report, _Trial(model, normal.model, form), samples, progress or Silent())
    except TrtOptError as error:
        return ImportedModel(model, replace(report, undone=error.what))
    undone = _why_undone(report)
    return ImportedModel(model if undone else form.model, replace(report, undone=undone))


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What is compared with what."""

    source: onnx.ModelProto
    normal: onnx.ModelProto
    form: SymmetricForm


def _why_undone(report: ImportReport) -> str | None:
    for output in report.outputs:
        if output.sqnr_db is not None and np.isnan(output.sqnr_db):
            return f"output {output.name!r} cannot be compared with the source's"
    for entry in report.tensors if report.zero_points == "fold" else ():
        if entry.own_sqnr_db is not None and not entry.own_sqnr_db >= LEAST_OWN_SQNR_DB:
            return (
                f"{entry.now!r} is {entry.own_sqnr_db:.1f} dB from the source's {entry.tensor!r} by its own layer's "
                f"doing; {LEAST_OWN_SQNR_DB:g} dB are asked for"
            )
    return None


def _measured(report: ImportReport, trial: _Trial, samples: Sequence[Sample], progress: Progress) -> ImportReport:
    """The report with figures; as it is where nothing could be made up to run on."""
    used = tuple(samples[:SAMPLES_TO_MEASURE])
    why_not = ""
    if not used:
        used, why_not = _made_up(trial)
    if not used:
        return replace(report, notes=(*report.notes, f"nothing was compared: {why_not}"))
    progress.start("import", len(used))
    source, by_reference, note = _source_outputs(trial, used)
    totals: dict[tuple[str, str], OutputTotals] = {}
    for expected, found in zip(source, _runs(trial, report.tensors, used), strict=True):
        pairs = [_Measured("output", name, np.asarray(array), found.outputs[name]) for name, array in expected.items()]
        for entry in (*pairs, *found.tensors):
            total = totals.setdefault((entry.what, entry.name), OutputTotals(entry.name))
            total.add(_as_numbers(entry.reference), _as_numbers(entry.candidate))
        progress.advance()
    progress.finish()
    return replace(
        report,
        tensors=tuple(_with_figures(entry, totals) for entry in report.tensors),
        outputs=tuple(_output(total) for (what, _), total in totals.items() if what == "output"),
        samples=len(used),
        made_up=not samples,
        by_reference=by_reference,
        notes=(*report.notes, *([note] if note else [])),
    )


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


def _source_outputs(trial: _Trial, samples: Sequence[Sample]) -> tuple[Outputs, bool, str]:
    """What the source gives; whether onnx's reference implementation ran it, and what else did, if it did not run."""
    try:
        return _outputs(with_unsigned_weights(with_unique_node_names(trial.source)), samples), False, ""
    except UnsupportedModelError as error:
        found = run_in_reference(trial.source, samples)
        if found is not None:
            return found, True, ""
        note = f"the source does not run here ({error.what}): compared with its normal form"
        return _outputs(trial.normal, samples), False, note


def _outputs(model: onnx.ModelProto, samples: Sequence[Sample]) -> Outputs:
    with OnnxRuntimeRunner(model, optimised=False) as runner:
        return tuple(runner.infer(sample.feed) for sample in samples)


def _made_up(trial: _Trial) -> tuple[tuple[Sample, ...], str]:
    """A sample that fills the grids of the inputs, and why there is none, if there is none."""
    found, why_not = made_up_samples(trial.source)
    if not found:
        return (), why_not
    pairs, _ = pairs_of(GraphIndex(trial.normal))
    ends = {pair.quantize.input[0]: pair.grid.ends for pair in pairs if pair.quantize is not None}
    generator = np.random.default_rng(0)

    def filled(name: str, array: Array) -> Array:
        if array.dtype.name in LIMITS:
            low, high = LIMITS[array.dtype.name]
            return generator.integers(low, high + 1, array.shape).astype(array.dtype)
        return generator.uniform(*ends[name], array.shape).astype(array.dtype) if name in ends else array

    feed = {name: filled(name, array) for name, array in found[0].feed.items()}
    return (Sample(found[0].name, feed),), ""


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """Two arrays to compare; `what` is "output", "tensor" (from end to end) or "own" (of one layer)."""

    what: str
    name: str
    reference: Array
    candidate: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What one sample gave."""

    outputs: Mapping[str, Array]
    tensors: list[_Measured]


def _runs(trial: _Trial, tensors: tuple[ImportedTensor, ...], samples: Sequence[Sample]) -> Iterator[_Found]:
    """For each sample the new model's outputs, and each tensor of the normal form beside what stands for it."""
    written = {name for node in trial.normal.graph.node for name in node.output}
    seen = [entry for entry in tensors if entry.tensor in written]
    separate, fed = _layers_apart(trial.form.model, seen)
    before = OnnxRuntimeRunner(trial.normal, optimised=False, outputs=[entry.tensor for entry in seen])
    after = OnnxRuntimeRunner(trial.form.model, optimised=False, outputs=[entry.now for entry in seen])
    apart = OnnxRuntimeRunner(separate, optimised=False, outputs=list(fed.values()))
    with before, after, apart:
        for sample in samples:
            reference = {**sample.feed, **before.infer(sample.feed)}
            found = {**sample.feed, **after.infer(sample.feed)}
            inner = {entry.now: _shifted(reference[entry.tensor], entry) for entry in seen if entry.now in fed}
            alone = apart.infer({**sample.feed, **inner})
            compared = [
                _Measured("tensor", entry.tensor, reference[entry.tensor], _unshifted(found[entry.now], entry))
                for entry in seen
            ]
            compared += [
                _Measured("own", entry.tensor, reference[entry.tensor], _unshifted(alone[fed[entry.now]], entry))
                for entry in seen
                if entry.now in fed
            ]
            yield _Found(found, compared)


def _layers_apart(model: onnx.ModelProto, tensors: Sequence[ImportedTensor]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model with its quantised tensors as inputs; these, and the names under which it gives its own of them."""
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    taken = tensor_names(apart.graph)
    outputs = {value.name for value in apart.graph.output}
    wanted = {entry.now for entry in tensors} - outputs
    fed: dict[str, str] = {}
    for node in apart.graph.node:
        for at, name in enumerate(node.output):
            if name in wanted:
                fed[name] = node.output[at] = fresh_name(f"{name}_own", taken)
    apart.graph.input.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in fed)
    values = [value for value in apart.graph.value_info if value.name not in fed]
    del apart.graph.value_info[:]
    apart.graph.value_info.extend(values)
    return apart, fed


def _shifted(array: Array, entry: ImportedTensor) -> Array:
    """The source's numbers as they are where something stands for the tensor."""
    moved = (array.astype(np.float64) + entry.offset).astype(np.float32)
    half = len(entry.pads) // 2
    if not half:
        return moved
    widths = [(0, 0), (0, 0), *zip(entry.pads[:half], entry.pads[half:], strict=True)]
    return np.pad(moved, widths, constant_values=np.float32(entry.offset))


def _unshifted(array: Array, entry: ImportedTensor) -> Array:
    """What stands for a tensor in the tensor's own numbers and shape."""
    half = len(entry.pads) // 2
    cut = array
    for axis, (begin, end) in enumerate(zip(entry.pads[:half], entry.pads[half:], strict=True), start=2):
        cut = np.take(cut, range(begin, array.shape[axis] - end), axis)
    return (cut.astype(np.float64) - entry.offset).astype(np.float32)


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
