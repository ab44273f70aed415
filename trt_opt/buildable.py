"""Rewriting a model until its target takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx import ModelProto

from trt_opt.acceptance import Judge
from trt_opt.advice import with_hints
from trt_opt.errors import UnsupportedModelError
from trt_opt.graph.float_types import with_float_weights
from trt_opt.graph.names import with_unique_node_names
from trt_opt.graph.query import count_nodes, opset
from trt_opt.importing import imported
from trt_opt.made_up_samples import made_up_samples
from trt_opt.passes import ON_REQUEST, PASSES, REPAIRS
from trt_opt.passes.base import Pass
from trt_opt.passes.clean_up.raise_opset import RaiseOpset
from trt_opt.passes.node_pass import NodePass, misread_nodes
from trt_opt.passes.runner import Rewriting, chosen_passes
from trt_opt.quantize.quantized_models import is_quantized
from trt_opt.values.importing import ImportReport, ZeroPoints
from trt_opt.values.progress import Progress
from trt_opt.values.rewriting import Acceptance, RewriteReport
from trt_opt.values.samples import Sample

OPSET_OF_REPAIRS = 18
"""Replacements can be written in any opset from 13; from 18 on function bodies need the least conversion."""

MAX_ROUNDS = 12
"""Each round clears what the parser could name; nested function bodies take three or four."""


@dataclass(frozen=True, slots=True, eq=False)
class ImportChoice:
    """What becomes of a model that comes quantised.

    Attributes:
        zero_points: "fold" keeps every grid, "regrid" chooses symmetric ones.
        samples: What source and result are compared on; None for those of the passes.
        ranges: With "regrid": tensor of the normal form → lowest and highest number seen in data.
        float_weights: Weights that are stored as integers in a model that computes in float become floats, because a
            method is going to quantise them.
    """

    zero_points: ZeroPoints = "fold"
    samples: tuple[Sample, ...] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    float_weights: bool = False


@dataclass(frozen=True, slots=True)
class PassChoice:
    """Which passes may run.

    Attributes:
        only: These alone, on every node they know, whether the target refuses it or not.
        skip: Not these.
        on_request: These too, which otherwise do not run.
        least_opset: The opset is raised to this before anything else, so that the others clean up after onnx's
            converter; None leaves it.
        importing: How a model that comes quantised is imported before any pass; None leaves it to the passes.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    least_opset: int | None = None
    importing: ImportChoice | None = None


def made_buildable(
    model: ModelProto,
    judge: Judge,
    samples: Sequence[Sample],
    progress: Progress,
    *,
    choice: PassChoice | None = None,
) -> tuple[ModelProto, RewriteReport]:
    """Imports, cleans up, then rewrites what the target refuses, and nothing else, until it takes the model.

    A model that comes quantised is imported: the same quantisation in the form that TensorRT takes.

    Every pass is checked and compared on samples; without any, one is made up where that is possible.

    Args:
        model: Is not edited.
        judge: Says what the target refuses.
        samples: A few are enough.
        progress: Told of every pass.
        choice: Which passes may run.

    Returns:
        The model as far as it could be brought, and what was changed and declined; `report.after.refused` tells
        what the target still refuses.

    Raises:
        RequestError: No pass of a name in `choice`.
        UnsupportedModelError: The given samples do not run on the model.
    """
    choice = choice or PassChoice()
    named = with_unique_node_names(model)
    made_up, why_not = ((), "") if samples else made_up_samples(named)
    compared = tuple(samples) or made_up
    first = () if choice.least_opset is None else (RaiseOpset(to=choice.least_opset),)
    clean_up = (*first, *chosen_passes(PASSES, choice.only, choice.skip))
    asked = [*REPAIRS.values(), *(ON_REQUEST[name] for name in choice.on_request)]
    repairs = [entry for entry in asked if not choice.only and entry.name not in choice.skip]
    judge = _Remembering(judge)
    before = judge.acceptance(named, compared)
    start, import_report = _imported(named, tuple(samples), choice.importing, progress)
    rewriting = Rewriting(start, compared, progress)
    progress.start("rewrite", None, "passes")
    rewriting.run(clean_up)
    after = _until_accepted(rewriting, judge, compared, repairs, clean_up)
    progress.finish()
    report = replace(
        rewriting.report(),
        generated_samples=bool(made_up),
        not_compared=why_not or None,
        before=before,
        after=after,
        imported=import_report,
        nodes_before=count_nodes(named),
    )
    hinted = replace(after, refused=with_hints(after.refused, report.passes, rewriting.model))
    return rewriting.model, replace(report, after=hinted)


def _imported(
    model: ModelProto, samples: tuple[Sample, ...], choice: ImportChoice | None, progress: Progress
) -> tuple[ModelProto, ImportReport | None]:
    """The model imported, and its weights in float where a method is going to quantise them."""
    if choice is None:
        return model, None
    used = samples if choice.samples is None else choice.samples
    found = imported(model, used, zero_points=choice.zero_points, ranges=choice.ranges, progress=progress)
    if choice.float_weights and not is_quantized(found.model):
        return with_unique_node_names(with_float_weights(found.model)), found.report
    return found.model, found.report


class _Remembering:
    """Does not ask twice about the model it was asked about last: every question may cost a build."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._last: tuple[ModelProto, Acceptance] | None = None

    def acceptance(self, model: ModelProto, samples: Sequence[Sample]) -> Acceptance:
        """The answer, asked for or remembered; the samples are the same in one rewrite."""
        if self._last is None or self._last[0] is not model:
            self._last = model, self._judge.acceptance(model, samples)
        return self._last[1]


def require_accepted(report: RewriteReport) -> None:
    """Takes no for an error.

    Raises:
        UnsupportedModelError: Names the first node the target refuses, the reason, and what would work.
    """
    found = report.after
    if found is None or not found.refused:
        return
    first = found.refused[0]
    more = f" (and {len(found.refused) - 1} more)" if len(found.refused) > 1 else ""
    raise UnsupportedModelError(
        f"{found.asked} refuses it: {first.reason}{more}" if found.by_the_library else f"{first.reason}{more}",
        where=f"{'node ' if 'graph' not in first.op_type else ''}{first.node!r} ({first.op_type})"
        if first.node
        else None,
        hint=first.hint,
        nodes=tuple((entry.node, entry.op_type, entry.reason) for entry in found.refused),
    )


def _until_accepted(
    rewriting: Rewriting, judge: Judge, samples: Sequence[Sample], repairs: Sequence[Pass], clean_up: Sequence[Pass]
) -> Acceptance:
    """Asks, repairs and cleans up in turns; the last answer."""
    for _ in range(MAX_ROUNDS):
        found = _acceptance(rewriting, judge, samples, repairs)
        if not found.refused or not repairs:
            return found
        names = frozenset(entry.node for entry in found.refused)
        scoped = [entry.on(names) for entry in repairs]
        in_the_graph = any(not entry.op_type.startswith("graph ") for entry in found.refused)
        if in_the_graph and opset(rewriting.model) < OPSET_OF_REPAIRS:
            scoped.append(RaiseOpset(to=OPSET_OF_REPAIRS))
        if not rewriting.run((*scoped, *clean_up)):
            return found
    return _acceptance(rewriting, judge, samples, repairs)


def _acceptance(rewriting: Rewriting, judge: Judge, samples: Sequence[Sample], repairs: Sequence[Pass]) -> Acceptance:
    rewriting.name_nodes()
    found = judge.acceptance(rewriting.model, samples)
    misread = misread_nodes(rewriting.model, [entry for entry in repairs if isinstance(entry, NodePass)])
    known = {entry.node for entry in found.refused}
    return replace(found, refused=(*found.refused, *(entry for entry in misread if entry.node not in known)))
