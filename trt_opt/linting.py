"""A model linted, and mended where that is safe: what `trt-opt lint` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import onnx

from calibrators import calibrator_from_text
from trt_opt.backends.onnxruntime import OnnxRuntimeRunner
from trt_opt.calibrate.ranges import calibration_table
from trt_opt.calibrate.table import table_from_file
from trt_opt.datasets import open_dataset, preprocess_from_text
from trt_opt.errors import RequestError, StageError, StaleError, TrtOptError, UnsupportedModelError
from trt_opt.files import require_free
from trt_opt.graph.check import check_model
from trt_opt.graph.load import load_model
from trt_opt.graph.query import graph_inputs, nodes_with_subgraphs
from trt_opt.graph.save import save_model
from trt_opt.importing import imported
from trt_opt.made_up_samples import made_up_samples
from trt_opt.quantize.lint import chosen_rules, findings_of
from trt_opt.quantize.lint.fixes import mended_model
from trt_opt.quantize.lint.rule import Rule
from trt_opt.quantize.request import PrecisionRequest
from trt_opt.quantize.stage import float_graph
from trt_opt.values.calibration import TensorRange
from trt_opt.values.importing import ImportReport
from trt_opt.values.lint import RANKS, Finding, LintReport, Mended, Severity
from trt_opt.values.progress import Progress
from trt_opt.values.samples import Dataset, Sample

SAMPLES_TO_COMPARE = 8

Ranges = Mapping[str, TensorRange]


@dataclass(frozen=True, slots=True)
class LintRequest:
    """What `trt-opt lint` was asked for; the fields are its options."""

    model: str
    fix: bool = False
    output: str | None = None
    force: bool = False
    calib_data: str | None = None
    preprocess: str | None = None
    table: str | None = None
    rule: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fix and self.output is None:
            raise RequestError("--fix needs a file to write", hint="-o FIXED.onnx")
        if self.output is not None and not self.fix:
            raise RequestError("there is nothing to write without --fix", hint="--fix -o FIXED.onnx")
        if self.preprocess is not None and self.calib_data is None:
            raise RequestError("--preprocess says how images become inputs, and there are none", hint="--calib-data")


def lint_file(request: LintRequest, progress: Progress) -> LintReport:
    """Lints a model file; with `fix`, mends what is safe and writes the result.

    Raises:
        RequestError: The output exists, or a rule is unknown.
        ModelFileError: The model cannot be read, or is not valid ONNX.
        DataError: The data do not fit.
        StaleError: The table is another model's.
        StageError: ONNX Runtime refuses the mended model though it took the given one.
    """
    rules = chosen_rules(request.rule, request.ignore)
    output = (
        None
        if request.output is None
        else require_free(Path(request.output), force=request.force, source=request.model)
    )
    model = load_model(request.model)
    check_model(model, request.model, shapes=False, known_operators_only=False)
    data = _data(request, model)
    ranges = _ranges(request, model, data, progress)
    if output is None:
        return LintReport(request.model, findings_of(model, rules=rules, ranges=ranges), notes=_unseen(model))
    samples = tuple(islice(data or (), SAMPLES_TO_COMPARE))
    fixed, mended, notes = _mended(model, rules, samples, progress)
    report = LintReport(
        model=request.model,
        findings=findings_of(fixed, rules=rules, ranges=ranges),
        mended=mended,
        output=str(output),
        notes=(*_unseen(fixed), *notes),
    )
    save_model(fixed, output)
    return report


def shown(report: LintReport, least: Severity) -> LintReport:
    """The report without the findings that are less severe, whose number becomes a note."""
    kept = tuple(entry for entry in report.findings if RANKS[entry.severity] >= RANKS[least])
    hidden = len(report.findings) - len(kept)
    notes = (*report.notes, f"{hidden} finding{'s' * (hidden > 1)} below {least} not shown") if hidden else report.notes
    return replace(report, findings=kept, notes=notes)


def _data(request: LintRequest, model: onnx.ModelProto) -> Dataset | None:
    if request.calib_data is None:
        return None
    steps = preprocess_from_text(request.preprocess) if request.preprocess else None
    return open_dataset(request.calib_data, graph_inputs(model), preprocess=steps)


def _ranges(request: LintRequest, model: onnx.ModelProto, data: Dataset | None, progress: Progress) -> Ranges:
    """The ranges of the model's tensors, from a table or a data pass; none without either."""
    if request.table is not None:
        ranges = table_from_file(Path(request.table)).ranges
        names = {name for node in model.graph.node for name in node.output} | {v.name for v in model.graph.input}
        if not names.intersection(ranges):
            raise StaleError("no tensor of this table is in the model", where=request.table)
        return ranges
    if data is None:
        return {}
    graph = float_graph(model, PrecisionRequest(method=None, fp16=True))
    minmax, optimised = calibrator_from_text("minmax"), not graph.came_quantized
    return calibration_table(graph.model, graph.taps, data, minmax, progress, optimised=optimised).ranges


def _unseen(model: onnx.ModelProto) -> tuple[str, ...]:
    inner = sum(len(graph.node) for _, graphs in nodes_with_subgraphs(model) for graph in graphs)
    if not inner:
        return ()
    return (f"{inner} nodes inside If, Loop or Scan were only looked at for operators on integers",)


@dataclass(slots=True)
class _Mending:
    """A model between two steps of being mended, and what was done and is worth knowing so far."""

    model: onnx.ModelProto
    mended: list[Mended]
    notes: list[str]


def _mended(
    model: onnx.ModelProto, rules: Sequence[Rule], samples: Sequence[Sample], progress: Progress
) -> tuple[onnx.ModelProto, tuple[Mended, ...], tuple[str, ...]]:
    """The mended model, what was done, and what is worth knowing."""
    state = _Mending(model, [], [])
    _import(state, rules, samples, progress)
    before = state.model
    state.model, mended = mended_model(state.model, {rule.name for rule in rules})
    state.mended += mended
    if state.model is not model:
        _require_sound(model, state)
    if mended:
        state.notes.append(_difference(before, state.model, samples))
    return state.model, tuple(state.mended), tuple(state.notes)


def _import(state: _Mending, rules: Sequence[Rule], samples: Sequence[Sample], progress: Progress) -> None:
    """Brings the quantisation into symmetric INT8 if a rule asks for that."""
    asking = [rule for rule in rules if rule.about.mended_by == "import"]
    found = findings_of(state.model, rules=asking)
    if not found:
        return
    result = imported(state.model, samples, zero_points="fold", progress=progress)
    if result.report is None or result.model is state.model:
        reason = result.report.undone if result.report is not None else None
        state.notes.append(f"the quantisation could not be imported: {reason or 'nothing of it could be changed'}")
        return
    state.model = result.model
    left = Counter(entry.rule for entry in findings_of(state.model, rules=asking))
    measured = _measured(result.report)
    for rule, entries in _by_rule(found).items():
        gone = len(entries) - left[rule]
        if gone > 0:
            what = f"{gone} of {len(entries)} mended by importing the quantisation: {measured}"
            state.mended.append(Mended(rule, entries[0].node, what))
    state.notes += [f"not imported: {entry.node}: {entry.why}" for entry in result.report.declined]
    state.notes += result.report.notes


def _by_rule(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    grouped: dict[str, list[Finding]] = {}
    for entry in findings:
        grouped.setdefault(entry.rule, []).append(entry)
    return grouped


def _measured(report: ImportReport) -> str:
    if not report.outputs:
        return "the same grids, not measured"
    where = "made-up numbers" if report.made_up else f"{report.samples} samples"
    if report.sqnr_db is None:
        return f"the same outputs on {where}"
    return f"{report.sqnr_db:.1f} dB from the source's outputs on {where}"


def _require_sound(given: onnx.ModelProto, state: _Mending) -> None:
    """Checks the mended model and loads it; what was broken before is no reason to refuse it."""
    check_model(state.model, "the mended model", shapes=False, known_operators_only=False)
    try:
        with OnnxRuntimeRunner(state.model, optimised=False):
            return
    except UnsupportedModelError as error:
        failure = error
    try:
        with OnnxRuntimeRunner(given, optimised=False):
            pass
    except UnsupportedModelError:
        state.notes.append(f"ONNX Runtime loads it neither before nor after: {failure.what}")
        return
    raise StageError(
        f"ONNX Runtime refuses the mended model: {failure.what}", hint="leave a rule out with --ignore RULE"
    ) from failure


def _difference(before: onnx.ModelProto, after: onnx.ModelProto, samples: Sequence[Sample]) -> str:
    """How far the edits moved the outputs, in words."""
    used, why_not = (samples, "") if samples else made_up_samples(before)
    if not used:
        return f"the edits were not compared: {why_not}"
    try:
        with (
            OnnxRuntimeRunner(before, optimised=False) as reference,
            OnnxRuntimeRunner(after, optimised=False) as candidate,
        ):
            errors = [_largest_error(reference.infer(entry.feed), candidate.infer(entry.feed)) for entry in used]
    except TrtOptError as error:
        return f"the edits were not compared: {error.what}"
    where = f"{len(used)} sample{'s' * (len(used) > 1)}" if samples else "made-up numbers"
    return f"the edits moved the outputs by {max(errors):.2g} of their largest magnitude, on {where}"


def _largest_error(before: Mapping[str, object], after: Mapping[str, object]) -> float:
    """The largest difference of any output, relative to that output's largest magnitude."""
    errors = [0.0]
    for name, array in before.items():
        first, second = np.asarray(array), np.asarray(after[name])
        if first.dtype.kind in "fiu" and first.size:
            largest = float(np.abs(first.astype(np.float64)).max()) or 1.0
            errors.append(float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max()) / largest)
    return max(errors)
